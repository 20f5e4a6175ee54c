"""Heat, feature maps and filters as pictures."""

import numpy as np
import pytest
from PIL import Image

from visionkit.visualize import draw_heat, plot_feature_maps, plot_filters, save_figure


def test_draw_heat_colours_what_is_hot_and_greys_the_rest():
    image = np.full((400, 500, 3), (200, 40, 40), np.uint8)
    heat = np.zeros((400, 500), np.float32)
    heat[100:200, 300:400] = 1
    picture = np.asarray(draw_heat(image, heat)).astype(int)
    assert picture.shape == image.shape
    cold, hot = picture[20, 20], picture[150, 350]
    assert np.ptp(cold) == 0
    assert np.ptp(hot) > 30 and hot[2] < hot[0]
    grey = np.asarray(Image.fromarray(image).convert("L"))[0, 0]
    assert cold[0] == grey


def test_draw_heat_enlarges_small_images_and_adds_a_caption():
    image, heat = np.zeros((8, 12), np.uint8), np.eye(8, 12, dtype=np.float32)
    assert draw_heat(image, heat).size == (324, 216)
    captioned = draw_heat(image, heat, "Grad-CAM: näher 中 (93 %)")
    assert captioned.width == 324 and captioned.height > 216
    with pytest.raises(ValueError, match=r"one size.*\(8, 12\).*\(8, 8\)"):
        draw_heat(np.zeros((8, 8)), heat)


def test_plot_feature_maps_shows_the_most_varied_channels_first(tmp_path):
    maps = np.random.default_rng(0).normal(size=(6, 9, 40)).astype(np.float32)
    maps[..., 7] *= 9
    maps[..., 11] = 3
    figure = plot_feature_maps(maps)
    titles = [axes.get_title() for axes in figure.axes]
    assert len(titles) == 32 and titles[0] == "7" and "11" not in titles
    some = plot_feature_maps(maps, [3, 11], columns=1)
    assert [axes.get_title() for axes in some.axes] == ["3", "11"]
    save_figure(some, tmp_path / "maps.png")
    for wrong, message in (((maps[None],), "of one image"), ((maps, [40]), "0..39")):
        with pytest.raises(ValueError, match=message):
            plot_feature_maps(*wrong)


@pytest.mark.parametrize("channels", [1, 3])
def test_plot_filters_has_mid_grey_at_zero(channels):
    kernels = np.zeros((3, 5, channels, 6), np.float32)
    kernels[0, 0, :, 1] = -2
    figure = plot_filters(kernels)
    assert len(figure.axes) == 6
    zero, second = (axes.images[0].get_array() for axes in figure.axes[:2])
    assert zero.shape[:2] == (3, 5) and np.all(zero == 0.5)
    assert np.all(second[0, 0] == 0) and np.all(second[1:] == 0.5)
    with pytest.raises(ValueError, match="sees an image"):
        plot_filters(np.zeros((3, 3, 16, 4)))
