"""Curves, errors and the matrix of a detector are drawn for any number of classes."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from visionkit.visualize import (
    plot_confusion_matrix,
    plot_errors,
    plot_precision_recall,
)


def draw(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def curves(k, absent=()):
    precision = np.linspace(1, 0, 101) ** np.linspace(0.2, 3, k)[:, None]
    precision[list(absent)] = np.nan
    return {"recall": np.linspace(0, 1, 101), "precision": precision}


def names(k):
    return [f"class {i}" for i in range(k)]


def lines_of(figure):
    """Label -> ys of the lines that have a label of their own."""
    return {
        line.get_label(): np.array(line.get_ydata())
        for line in figure.axes[0].lines
        if not line.get_label().startswith("_")
    }


def test_few_classes_have_a_legend_with_the_best_first():
    figure = plot_precision_recall(curves(4, absent=[1]), names(4))
    lines = lines_of(figure)
    assert [label.split(None, 1)[1] for label in lines] == [
        "class 0",
        "class 2",
        "class 3",
        "mean of 3 classes",
    ]
    scores = [float(label.split()[0]) for label in lines]
    assert scores == [*sorted(scores[:3], reverse=True), scores[3]]
    assert scores[3] == pytest.approx(np.mean(scores[:3]), abs=2e-3)
    *classes, mean = lines.values()
    np.testing.assert_allclose(mean, np.mean(classes, axis=0))
    legend = figure.axes[1].get_legend().get_texts()
    assert [text.get_text() for text in legend] == list(lines)
    draw(figure)


@pytest.mark.parametrize("k", [8, 20, 300])
def test_many_classes_are_named_beside_their_lines(k):
    figure = plot_precision_recall(curves(k), names(k))
    assert list(lines_of(figure)) == [
        label for label in lines_of(figure) if label.endswith(f"mean of {k} classes")
    ]
    texts = [text.get_text() for text in figure.axes[1].texts]
    assert texts[1].endswith("class 0") and texts[-1].endswith(f"class {k - 1}")
    draw(figure)
    # The last line of the listing lies inside the figure.
    assert figure.axes[1].texts[-1].get_window_extent().y0 >= 0


def test_one_class_and_no_class_with_objects_and_lists_from_json():
    one = plot_precision_recall(curves(1), ["a"])
    assert list(lines_of(one)) == ["0.829  a"]
    plain = {"recall": [0.0, 1.0], "precision": [[None, None], [1.0, 0.5]]}
    assert list(lines_of(plot_precision_recall(plain, ["a", "b"]))) == ["0.750  b"]
    none = plot_precision_recall(curves(2, absent=[0, 1]), names(2))
    assert not lines_of(none) and none.axes[1].texts[0].get_text() == "No objects"
    draw(none)
    with pytest.raises(ValueError, match="3 names"):
        plot_precision_recall(curves(2), names(3))


def test_errors_show_counts_and_gains():
    errors = {
        "localization": {"count": 1200, "ap_gain": 0.0512},
        "missed": {"count": 0, "ap_gain": -0.001},
        "both": {"count": 3, "ap_gain": None},
    }
    figure = plot_errors(errors)
    left, right = figure.axes
    assert [text.get_text() for text in left.texts] == ["1,200", "0", "3"]
    assert [text.get_text() for text in right.texts] == ["+0.051", "-0.001", "–"]
    ticks = [tick.get_text() for tick in left.get_yticklabels()]
    assert ticks == ["localization", "missed", "both"]
    assert left.get_ylim()[0] > left.get_ylim()[1]  # the first on top
    draw(figure)
    draw(plot_errors({"missed": {"count": 0, "ap_gain": 0.0}}))
    with pytest.raises(ValueError, match="at least one kind"):
        plot_errors({})


@pytest.mark.parametrize("k", [1, 5, 30])
def test_the_matrix_of_a_detector_names_its_background(k):
    matrix = np.diag(np.full(k + 1, 9))
    matrix[-1, -1] = 0
    matrix[0, -1], matrix[-1, 0] = 4, 7
    figure = plot_confusion_matrix(matrix, names(k))
    axes = figure.axes[0]
    ticks = [tick.get_text() for tick in axes.get_xticklabels()]
    assert ticks == [*names(k), "background"]
    if k == 30:
        texts = [text.get_text() for text in figure.axes[1].texts]
        assert texts == [
            *("Most confused", "none"),
            *("Most missed", "4 (31%)  class 0 → background"),
            *("Most found in nothing", "7 (100%)  background → class 0"),
        ]
    else:
        printed = [text.get_text() for text in axes.texts]
        assert sorted(printed) == sorted(["4", "7", *["9"] * k])
    draw(figure)
    with pytest.raises(ValueError, match="with a background"):
        plot_confusion_matrix(np.zeros((k + 2, k + 2)), names(k))
