"""The scores of the classes as bars or a profile, classes without any included."""

import numpy as np
import pytest

from visionkit.visualize import plot_class_scores


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_bars_are_sorted_and_name_classes_without_examples():
    figure = plot_class_scores([0.25, None, 0.75], ["ant", "bee", "cat"], "precision")
    axes = figure.axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["cat", "ant", "bee"]
    assert texts(figure) == ["0.750", "0.250", "no example"]
    assert axes.get_xlabel() == "precision (mean 0.500)"


def test_many_classes_are_a_profile_with_both_ends_named():
    scores = np.linspace(0, 1, 300)
    figure = plot_class_scores(scores, [f"class {i}" for i in range(300)], "recall")
    found = texts(figure)
    assert "1.000  class 299" in found and "0.000  class 0" in found


def test_no_scores_at_all_and_wrong_numbers():
    figure = plot_class_scores([np.nan, np.nan], ["a", "b"], "recall")
    assert figure.axes[0].get_xlabel() == "recall"
    with pytest.raises(ValueError, match="2 names"):
        plot_class_scores([0.5], ["a", "b"], "recall")
