"""Pictures have the right size, the right colours, and never crash on odd input."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from visionkit.types import PADDING_LABEL, VOID_CLASS, Results
from visionkit.visualize import (
    draw_results,
    palette,
    plot_class_counts,
    plot_confusion_matrix,
    plot_history,
    plot_predictions,
    plot_samples,
    save_figure,
)
from visionkit.visualize.colors import text_color
from visionkit.visualize.drawing import open_image, to_image
from visionkit.visualize.text import class_name, fit, font, plain, printable

DATA = Path(__file__).parents[1] / "../shared/data"
ODD_NAMES = ["a\udcffb", "猫", "Ελλάδα кошка", "$x_{", "line\nbreak\x00", "👍\u200d"]


def photo(height=360, width=480, channels=3):
    rng = np.random.default_rng(0)
    return rng.integers(60, 200, (height, width, channels), np.uint8)


def classified(names=("cat", "dog"), **fields):
    scores = np.linspace(0.6, 0.1, len(names), dtype=np.float32)
    return Results(
        labels=np.arange(len(names)), scores=scores, label_names=list(names), **fields
    )


def draw_figure(figure):
    """Pixels of the figure, (H, W, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


# Colours


def test_palette_is_deterministic_distinct_and_grows_at_its_end():
    colors = palette(1000)
    assert colors.shape == (1000, 3) and colors.dtype == np.uint8
    assert len(np.unique(colors, axis=0)) == 1000
    np.testing.assert_array_equal(palette(5), colors[:5])
    assert palette(0).shape == (0, 3) and palette(5000).shape == (5000, 3)
    # The first twenty are far apart.
    distance = np.abs(colors[:20, None].astype(int) - colors[:20]).sum(-1)
    assert (distance + 1000 * np.eye(20)).min() > 50
    with pytest.raises(ValueError, match="at least 0"):
        palette(-1)


def test_text_color_contrasts():
    assert text_color((255, 255, 0)) == (0, 0, 0)
    assert text_color((0, 0, 120)) == (255, 255, 255)


# Text


def test_printable_replaces_only_what_cannot_be_drawn():
    shown = [printable(name) for name in ODD_NAMES]
    assert shown == ["a�b", "�", "Ελλάδα кошка", "$x_{", "line break�", "�"]
    assert printable("e\u0301") == "é"
    assert class_name(["猫"], 0) == "class 0" and class_name(None, 7) == "class 7"


def test_fit_and_plain_keep_the_limit():
    face = font(14)
    assert fit("short", face, 300) == "short"
    for width in (0, 20, 77.5, 200):
        assert fit("W" * 10_000, face, width) == "…" or (
            face.getlength(fit("W" * 10_000, face, width)) <= width
        )
    assert plain("n" * 50 + " 12", 20).endswith(" 12") and len(plain("x" * 99, 9)) == 9
    assert plain("a$b$") == r"a\$b\$"


# Images


@pytest.mark.parametrize(
    "image",
    [
        photo()[..., 0],
        photo(channels=1),
        photo(channels=4),
        photo().astype(np.float32) + 0.2,
        Image.fromarray(photo()[..., 0]),
        Image.fromarray(photo()[..., 0].astype(np.uint16) * 257),
        Image.fromarray(photo()).convert("P"),
        Image.fromarray(photo()).convert("CMYK"),
    ],
)
def test_to_image_takes_every_kind(image):
    picture = to_image(image)
    assert picture.mode == "RGB" and picture.size == (480, 360)
    assert 60 < np.asarray(picture).mean() < 200


def test_to_image_scales_16_bits_and_clips_floats():
    deep = Image.fromarray(np.full((2, 3), 514, np.uint16))
    assert np.unique(np.asarray(to_image(deep))).tolist() == [2]
    wild = np.array([[-5.0, 127.6, 300.0]])
    assert np.asarray(to_image(wild))[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("shape", [(4,), (4, 5, 2), (0, 5, 3), (1, 4, 5, 3)])
def test_to_image_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match=r"Received: shape"):
        to_image(np.zeros(shape))


def test_open_image_turns_upright_unless_the_answer_is_for_the_stored_frame(tmp_path):
    stored = Image.fromarray(photo(20, 30))
    exif = Image.Exif()
    exif[0x0112] = 6
    stored.save(tmp_path / "turned.jpg", exif=exif)
    assert open_image(tmp_path / "turned.jpg").size == (20, 30)
    assert open_image(tmp_path / "turned.jpg", (30, 20)).size == (20, 30)
    assert open_image(tmp_path / "turned.jpg", (20, 30)).size == (30, 20)
    stored.save(tmp_path / "other.tiff")
    with pytest.raises(OSError, match="cannot identify"):
        open_image(tmp_path / "other.tiff")
    with pytest.raises(ValueError, match="name no file"):
        draw_results(classified())


# Answers


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (3, 300), (32, 48), (3000, 4000)])
def test_classification_is_enlarged_when_small_and_never_reduced(size):
    picture = draw_results(classified(), np.zeros((*size, 3), np.uint8))
    assert picture.mode == "RGB" and picture.width >= max(320, size[1])
    assert picture.height > size[0]
    caption = np.asarray(picture)[-(picture.width // 12) :]
    assert caption.min() < 130 < caption.max()  # text on paper
    if max(size) >= 320:
        assert picture.width == size[1]


def test_classification_takes_odd_names_many_classes_and_bare_probabilities():
    image = photo(64, 48, 1)
    long_names = ["a very long name " * 40, *ODD_NAMES]
    assert draw_results(classified(long_names), image).width == 320
    probabilities = np.random.default_rng(0).dirichlet(np.ones(1000)).astype("float32")
    bare = draw_results(Results(probabilities=probabilities), image)
    assert bare.size == draw_results(classified(["x"] * 5), image).size


def test_box_edge_has_the_class_color_and_the_inside_is_untouched():
    image = photo()
    results = Results(
        boxes=np.array([[100, 80, 300, 250]], np.float32),
        labels=np.array([3]),
        label_names=["name"],
    )
    pixels = np.asarray(draw_results(results, image))
    color = palette(4)[3].tolist()
    for x, y in [(100, 150), (299, 150), (200, 249), (299, 249)]:
        assert pixels[y, x].tolist() == color
    np.testing.assert_array_equal(pixels[100:240, 110:290], image[100:240, 110:290])
    np.testing.assert_array_equal(pixels[250:], image[250:])


@pytest.mark.parametrize(
    "box", [[0, 0, 30, 20], [470, 0, 480, 10], [450, 340, 480, 360], [-9, -9, 999, 999]]
)
def test_tags_stay_inside_the_picture(box):
    image = np.zeros((360, 480, 3), np.uint8)
    results = Results(
        boxes=np.array([box], np.float32), labels=np.array([1]), label_names=["a" * 30]
    )
    pixels = np.asarray(draw_results(results, image)).astype(int)
    # The whole tag is there: the label's color fills its height and width.
    tag = (np.abs(pixels - palette(2)[1]).sum(-1) == 0).sum()
    assert pixels.shape == image.shape and tag > font(12).getlength("a" * 30) * 6


def test_tags_do_not_overlap_and_the_best_score_wins():
    boxes = np.tile([[100, 100, 140, 140]], (20, 1)).astype(np.float32)
    results = Results(
        boxes=boxes,
        labels=np.arange(20),
        label_names=["name"] * 20,
        scores=np.linspace(0.1, 0.9, 20, dtype=np.float32),
    )
    pixels = np.asarray(draw_results(results, photo()))
    above = pixels[80:98, 102:130].reshape(-1, 3)
    assert (above == palette(20)[19]).all(1).any()
    assert not (above == palette(20)[0]).all(1).any()


@pytest.mark.parametrize(
    "boxes",
    [
        np.zeros((0, 4)),
        [[np.nan, 0, 5, 5]],
        [[5, 5, 5, 5]],
        [[480, 360, 480, 360]],
        [[900, 900, 990, 990]],
    ],
)
def test_empty_and_degenerate_boxes_do_not_crash(boxes):
    boxes = np.array(boxes, np.float32)
    n = len(boxes)
    results = Results(
        boxes=boxes,
        labels=np.zeros(n, np.int32),
        label_names=ODD_NAMES[:n],
        scores=np.full(n, np.nan, np.float32),
    )
    assert draw_results(results, photo()).size == (480, 360)
    assert draw_results(results, np.zeros((1, 1), np.uint8)).size == (320, 320)


def test_instance_masks_are_translucent_with_a_solid_outline():
    image = np.zeros((360, 480, 3), np.uint8)
    masks = np.zeros((2, 360, 480), bool)
    masks[0, 100:200, 150:300] = True  # the second is empty
    results = Results(
        boxes=np.array([[150, 100, 300, 200], [0, 0, 1, 1]], np.float32),
        labels=np.array([0, 0]),
        label_names=["name", "name"],
        masks=masks,
    )
    pixels = np.asarray(draw_results(results, image)).astype(int)
    color = palette(1)[0].astype(int)
    assert np.abs(pixels[150, 225] - 0.45 * color).max() <= 1
    bare = Results(masks=masks)
    pixels = np.asarray(draw_results(bare, image)).astype(int)
    assert pixels[150, 150].tolist() == color.tolist()
    assert pixels[150, 149].tolist() == [0, 0, 0]


def test_segmentation_paints_classes_but_neither_void_nor_background():
    image = np.full((330, 400, 3), 100, np.uint8)
    classes = np.zeros((330, 400), np.uint8)
    classes[:100], classes[200:] = 7, VOID_CLASS
    results = Results(
        segmentation=classes, labels=np.array([0, 7]), label_names=["background", "猫"]
    )
    pixels = np.asarray(draw_results(results, image)).astype(int)
    expected = 0.4 * 100 + 0.6 * palette(8)[7]
    assert np.abs(pixels[50, 50] - expected).max() <= 1
    assert (pixels[110:330] == 100).all() and pixels.shape[0] > 330
    legend = pixels[330:].reshape(-1, 3)
    assert (legend == palette(8)[7]).all(1).any()


def test_segmentation_of_every_class_at_once_keeps_the_width():
    classes = np.arange(256, dtype=np.uint8).repeat(16).reshape(64, 64)
    assert draw_results(Results(segmentation=classes), photo(64, 64)).width == 320


def test_error_becomes_a_grey_card():
    results = Results(error="cannot read \udcff " * 80, path="/a/b\udcff.jpg")
    card = draw_results(results)
    assert card.size == (480, 270) and card.getpixel((470, 5)) == (236, 236, 236)


def test_picture_of_another_size_is_refused():
    with pytest.raises(ValueError, match="Pass the original image"):
        draw_results(Results(image_size=(10, 20)), photo(20, 10))


# Grids


def test_plot_samples_of_classification_names_the_classes():
    images = np.stack([photo(40, 60)] * 5)
    figure = plot_samples(images, targets=np.arange(5), class_names=ODD_NAMES)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[2] == "Ελλάδα кошка" and titles[1] == "class 1"
    assert len(figure.axes) == 5 and draw_figure(figure).std() > 0


def test_plot_samples_ignores_padding_and_draws_boxes_and_masks():
    images = np.full((2, 200, 300, 3), 255, np.uint8)
    labels = np.array([[0, PADDING_LABEL], [PADDING_LABEL, PADDING_LABEL]])
    boxes = np.zeros((2, 2, 4), np.float32)
    boxes[:, 0], boxes[:, 1] = [50, 50, 250, 150], [0, 0, 300, 200]
    masks = np.ones((2, 2, 28, 28), np.float32)
    for extra in ({}, {"masks": masks}):
        target = {"boxes": boxes, "labels": labels, **extra}
        figure = plot_samples(images, targets=target, class_names=["a"])
        first, second = (np.asarray(axes.images[0].get_array()) for axes in figure.axes)
        assert (first != 255).any() and (second == 255).all()
        middle = first[first.shape[0] // 2, first.shape[1] // 2]
        assert (middle != 255).any() == bool(extra)
        assert (first[-3:] == 255).all()  # the padded box is not drawn


def test_plot_samples_of_segmentation_has_one_legend():
    classes = np.tile(np.arange(6, dtype=np.uint8), (3, 20, 5))
    figure = plot_samples(np.stack([photo(20, 30)] * 3), targets=classes, columns=2)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [f"class {i}" for i in range(6)]


def test_plot_predictions_colors_right_and_wrong():
    images = np.stack([photo(30, 40, 1)] * 2)
    figure = plot_predictions(images, [0, 1], [0, 0], [0.9, 0.8], ["cat", "dog"])
    right, wrong = (axes.title for axes in figure.axes)
    assert right.get_text() == "cat 90%" and wrong.get_text() == "cat 80%\ntrue: dog"
    assert right.get_color() != wrong.get_color()


def test_plot_predictions_pairs_the_other_tasks():
    images = np.stack([photo(30, 40)] * 2)
    target = {"boxes": np.ones((2, 3, 4)), "labels": np.full((2, 3), PADDING_LABEL)}
    answers = [Results(boxes=np.array([[2.0, 3, 20, 20]]), labels=np.array([0]))] * 2
    figure = plot_predictions(images, target, answers, class_names=["a"])
    assert [axes.get_title() for axes in figure.axes] == ["truth", "prediction"] * 2


def test_grids_refuse_what_does_not_fit():
    with pytest.raises(ValueError, match="at least one image"):
        plot_samples([])
    with pytest.raises(ValueError, match="one title per image"):
        plot_samples([photo()], ["a", "b"])
    with pytest.raises(ValueError, match="one target per image"):
        plot_samples([photo()], targets=np.zeros(2, np.int32))
    with pytest.raises(ValueError, match="one true and one predicted"):
        plot_predictions([photo()], [1, 2], [1, 2])


# Figures


def test_plot_history_shares_panels_and_marks_the_best_epoch():
    history = {
        "loss": [3, 2, float("nan"), 1],
        "val_loss": [3, 2.5, float("inf"), 2],
        "accuracy": [0.1, 0.4, 0.5, 0.6],
        "val_accuracy": [0.1, 0.5, 0.4, float("nan")],
        "learning_rate": [1, 0.1, 0.01, 0.001],
    }
    figure = plot_history(history)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["loss", "accuracy", "learning rate"]
    labels = [text.get_text() for text in figure.axes[1].get_legend().get_texts()]
    assert labels == ["training 0.4", "validation 0.5", "best epoch 2"]
    assert figure.axes[2].get_yscale() == "log"
    lowest = plot_history(history, monitor="val_loss").axes[0].get_legend()
    assert lowest.get_texts()[-1].get_text() == "best epoch 4"
    assert draw_figure(figure).std() > 0


def test_plot_history_reads_csv_and_one_epoch_and_nothing_finite(tmp_path):
    path = tmp_path / "history.csv"
    path.write_text("epoch,loss,val_loss,note\n4,0.5,0.25,NA\n")
    figure = plot_history(path)
    assert [axes.get_title() for axes in figure.axes] == ["loss", "note"]
    last = figure.axes[0].get_legend().get_texts()[-1].get_text()
    assert last == "best epoch 4"
    assert figure.axes[1].texts[0].get_text() == "no finite values"
    draw_figure(figure)
    path.write_text("epoch,loss\n")
    for nothing in (path, {}, {"loss": []}):
        with pytest.raises(ValueError, match="at least one metric"):
            plot_history(nothing)
    with pytest.raises(ValueError, match=r"one of loss.*'x'"):
        plot_history({"loss": [1]}, monitor="x")
    with pytest.raises(ValueError, match="one length"):
        plot_history({"loss": [1], "val_loss": [1, 2]})


@pytest.mark.parametrize("k", [1, 2, 20, 60, 1000])
def test_plot_confusion_matrix_of_any_number_of_classes(k):
    matrix = np.diag(np.full(k, 9)).astype(np.int64)
    matrix[0, -1] += 3
    matrix[k // 2] *= k < 3
    figure = plot_confusion_matrix(matrix, (ODD_NAMES * k)[:k])
    axes = figure.axes[0]
    printed = [text.get_text() for text in axes.texts]
    assert len(printed) == (np.count_nonzero(matrix) if k <= 20 else 0)
    assert (len(axes.get_xticks()) == k) == (k <= 60)
    if k > 20:
        lines = [text.get_text() for text in figure.axes[1].texts]
        assert lines[0] == "Most confused" and lines[1].startswith("3 (25%)")
    if k == 1000:
        shares = axes.images[0].get_array()
        assert shares.shape == (250, 250) and shares[0, -1] == 0.25
        draw_figure(figure)
    with pytest.raises(ValueError, match=r"\(K, K\)"):
        plot_confusion_matrix(matrix, ["a"] * (k + 1))


def test_text_of_a_figure_lies_inside_it():
    names = [f"a rather long class name, number {i}" for i in range(30)]
    matrix = np.random.default_rng(0).integers(0, 9, (30, 30))
    figures = [
        plot_confusion_matrix(matrix, names),
        plot_confusion_matrix(matrix[:3, :3], names[:3]),
        plot_class_counts(np.arange(30), names),
        plot_samples([photo(30, 40)] * 3, names[:3]),
        plot_history({"loss": [1, 2], "val_loss": [2, 1]}),
    ]
    for figure in figures:
        draw_figure(figure)
        for axes in figure.axes:
            low, high = sorted(axes.get_xlim())
            inside = [low <= tick <= high for tick in axes.get_xticks()]
            ticks = np.array(axes.get_xticklabels())[inside].tolist()
            for text in (axes.title, axes.xaxis.label, axes.yaxis.label, *ticks):
                box = text.get_window_extent()
                if axes.axison and text.get_text():
                    assert min(box.x0, box.y0) >= -1, text
                    assert box.x1 <= figure.bbox.x1 + 1, text
                    assert box.y1 <= figure.bbox.y1 + 1, text


@pytest.mark.parametrize("k", [1, 40, 1000])
def test_plot_class_counts_of_any_number_of_classes(k):
    figure = plot_class_counts(np.arange(k), (ODD_NAMES * k)[:k])
    assert len(figure.axes) == (1 if k <= 40 else 2)
    draw_figure(figure)
    with pytest.raises(ValueError, match="one name per class"):
        plot_class_counts(np.arange(k), [])


# Files and state


def test_a_notebook_shows_a_figure_by_itself():
    png = plot_history({"loss": [1, 2]})._repr_png_()
    assert png.startswith(b"\x89PNG")


def test_save_figure_is_whole_or_not_at_all(tmp_path):
    figure = plot_class_counts([3, 4], ["a", "b"])
    path = save_figure(figure, tmp_path / "new" / "counts.png")
    assert Image.open(path).format == "PNG"
    image = Image.fromarray(photo())
    assert Image.open(save_figure(image, tmp_path / "photo.JPG")).format == "JPEG"
    before = path.read_bytes()
    for wrong in (figure, image):
        with pytest.raises(ValueError, match=r"xyz|picture format"):
            save_figure(wrong, path.with_suffix(".xyz"))
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["counts.png"]


def test_nothing_heavy_is_imported_and_pyplot_is_never_touched():
    code = """
import sys, time
import numpy
start = time.perf_counter()
import visionkit.visualize as v
from visionkit.visualize import draw_results
seconds = time.perf_counter() - start
heavy = {"matplotlib", "PIL", "tensorflow", "keras"} & set(sys.modules)
assert not heavy, heavy
assert seconds < 0.5, seconds
import matplotlib
before = dict.__getitem__(matplotlib.rcParams, "backend")
v.plot_history({"loss": [1.0]})
v.plot_confusion_matrix(numpy.eye(2, dtype=int), ["a", "b"])
v.plot_samples(numpy.zeros((1, 4, 6, 3)), ["a"]).savefig(sys.stderr.buffer, dpi=20)
assert "matplotlib.pyplot" not in sys.modules
assert dict.__getitem__(matplotlib.rcParams, "backend") is before
"""
    subprocess.run([sys.executable, "-c", code], check=True, stderr=subprocess.PIPE)


def test_real_images_with_boxes_and_turned_photographs(tmp_path):
    if not (DATA / "sign_digits").is_dir():
        pytest.skip("the folder of labelled images is not here")
    blood = next((DATA / "bccd" / "JPEGImages").glob("*.jpg"))
    results = Results(
        image_size=(480, 640),
        boxes=np.array([[10, 20, 200, 220]], np.float32),
        labels=np.array([1]),
        label_names=["WBC"],
        path=str(blood),
    )
    assert results.plot().size == (640, 480)
    sign = sorted((DATA / "sign_digits" / "3").iterdir())[0]
    assert draw_results(classified(path=str(sign))).width == 400
