"""Scaling, enlarging, colouring and showing heatmaps."""

import base64
import io
import re
import sys

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from helpers import overlay


@pytest.fixture
def shown(monkeypatch):
    """Everything that `show` displays, as dictionaries from MIME type to content."""
    outputs = []
    monkeypatch.setattr(overlay, "display", lambda data, raw: outputs.append(data))
    return outputs


def test_to_unit_keeps_zero_and_small_maps():
    maps = np.array([[[-2.0, 0.0, 4.0]], [[0, 0, 0]], [[-1, -2, -3]], [[1e-30, 0, 2e-30]], [[5, 5, 5]]])
    want = [[[0, 0, 1]], [[0, 0, 0]], [[0, 0, 0]], [[0.5, 0, 1]], [[1, 1, 1]]]
    np.testing.assert_allclose(overlay.to_unit(maps), want)
    assert overlay.to_unit(maps.astype(np.float32)).dtype == np.float32


@pytest.mark.parametrize("shape", [(28, 28), (28, 21), (9, 4)])
def test_upsample_is_torchs_bilinear(shape):
    maps = np.random.default_rng(0).normal(size=(3, 7, 5))
    want = torch.nn.functional.interpolate(
        torch.tensor(maps)[:, None], size=shape, mode="bilinear", align_corners=False
    )
    if shape[0] > 7 and shape[1] > 5:
        np.testing.assert_allclose(overlay.upsample(maps, shape), want[:, 0].numpy(), atol=1e-12)
    assert overlay.upsample(maps.astype(np.float32), shape).dtype == np.float32


def test_cells_are_where_their_receptive_fields_are():
    """The middle of the pixels that a cell depends on, from gradients of a net without any clipping."""
    layers = [(5, 1, 1), (2, 2, 0), (4, 1, 2), (3, 3, 1)]
    net = torch.nn.Sequential(*(torch.nn.Conv2d(1, 1, k, s, p, bias=False) for k, s, p in layers)).double()
    for parameter in net.parameters():
        torch.nn.init.ones_(parameter)
    first, step = overlay.cell_centres(layers)
    for cell in (2, 3):
        image = torch.zeros(1, 1, 64, 64, dtype=torch.double, requires_grad=True)
        net(image)[0, 0, cell, cell].backward()
        weights = image.grad[0, 0].sum(dim=0)
        centre = (weights * torch.arange(64)).sum() / weights.sum()
        assert first + cell * step == pytest.approx(centre.item())
    assert overlay.cell_centres([]) == (0, 1), "the picture itself"


def test_aligned_upsampling_puts_each_cell_on_its_pixel():
    maps = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)
    enlarged = overlay.upsample(maps, (22, 16), centres=(3, 4))
    assert enlarged.dtype == np.float32 and enlarged.shape == (2, 22, 16)
    np.testing.assert_allclose(enlarged[:, 3::4, 3::4], maps[:, :5, :4], atol=1e-5)
    np.testing.assert_allclose(enlarged[:, 5, 3::4], maps[:, :2].mean(axis=1), atol=1e-5)
    np.testing.assert_allclose(enlarged[:, 0, 3::4], maps[:, 0], atol=1e-5)  # beyond the outer cells
    np.testing.assert_allclose(enlarged[:, 21, 3::4], maps[:, 4], atol=1e-5)


def test_aligned_upsampling_is_the_plain_one_where_a_map_covers_the_picture():
    maps = np.random.default_rng(0).random((3, 6, 6))
    centres = overlay.cell_centres([(4, 4, 0)])
    np.testing.assert_allclose(
        overlay.upsample(maps, (24, 24), centres=centres), overlay.upsample(maps, (24, 24)), atol=1e-12
    )


def test_outline_colours_the_edge_of_the_mask_only():
    picture = np.zeros((3, 7, 7), dtype=np.uint8)
    mask = np.zeros((7, 7), dtype=bool)
    mask[2:5, 1:6] = True
    drawn = overlay.outline(picture, mask, rgb=(1, 0.5, 0))
    edge = mask.copy()
    edge[3, 2:5] = False
    assert (overlay.outline(picture, np.ones((7, 7), bool))[0] == 1).all(), "the picture's border closes it"
    np.testing.assert_array_equal(drawn, edge[..., None] * np.array([1, 0.5, 0]))
    assert not picture.any(), "the picture stays as it was"


def test_pictures_in_every_form_come_out_the_same():
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, size=(4, 6), dtype=np.uint8)
    want = np.repeat(grey[..., None] / 255, 3, axis=2)
    colour = np.repeat(grey[..., None], 3, axis=2)
    forms = (
        grey,
        grey[None],
        grey / 255,
        colour,
        np.moveaxis(colour, -1, 0),
        (colour / 255).astype(np.float32),
    )
    for picture in forms:
        np.testing.assert_allclose(overlay.as_rgb(picture), want, atol=1e-6)


def test_wrong_pictures_and_maps_are_named():
    with pytest.raises(ValueError, match="undo Normalize"):
        overlay.as_rgb(np.random.default_rng(0).normal(size=(3, 8, 8)))
    with pytest.raises(ValueError, match=r"shape \(2, 1, 8, 8\)"):
        overlay.as_rgb(np.zeros((2, 1, 8, 8)))
    with pytest.raises(ValueError, match="to_unit first"):
        overlay.blend(np.zeros((4, 4)), np.full((4, 4), 1.5))


def test_blend_leaves_the_picture_where_there_is_no_evidence():
    picture = np.random.default_rng(0).random((6, 8))
    unit_map = np.zeros((6, 8))
    unit_map[1, 5], unit_map[2, 2] = 1.0, 0.2
    mixed = overlay.blend(picture, unit_map, alpha=0.7, threshold=0.3)
    plain = overlay.as_rgb(picture)
    changed = np.abs(mixed - plain).max(axis=2) > 0
    assert np.argwhere(changed).tolist() == [[1, 5]], "only the pixel above the threshold may change"
    np.testing.assert_allclose(mixed[1, 5], 0.3 * plain[1, 5] + 0.7 * overlay.colour(np.array([1.0]))[0])


def test_blend_enlarges_small_maps():
    mixed = overlay.blend(np.zeros((8, 6)), np.array([[0.0, 1.0]]))
    assert mixed.shape == (8, 6, 3)
    assert mixed[:, -1].sum() > mixed[:, 0].sum()


def test_explanation_rows_line_up_picture_and_map():
    images = np.zeros((1, 1, 8, 6))
    maps = np.zeros((1, 4, 3))
    maps[0, 3, 0] = 2.0
    ((overlaid, original, heatmap),) = overlay.explanation_rows(images, maps, ["a corner"])
    assert overlaid[0] == "a corner"
    assert original[1].max() == 0
    for picture in (overlaid[1].sum(axis=2), heatmap[1]):
        assert np.unravel_index(picture.argmax(), picture.shape) == (7, 0)


def test_show_writes_a_described_picture_and_closes_it(shown):
    figure = overlay.panels(
        [[("a", np.eye(4), {}), ("b", np.eye(4), {"cmap": overlay.HEAT})]], bar="strength"
    )
    overlay.show(figure, 'Two "diagonal" lines & nothing else.')
    (output,) = shown
    assert output["text/plain"] == 'Figure: Two "diagonal" lines & nothing else.'
    page = output["text/html"]
    assert 'alt="Two &quot;diagonal&quot; lines &amp; nothing else."' in page
    data = re.search(r"data:image/(\w+);base64,([^\"]+)", page)
    with Image.open(io.BytesIO(base64.b64decode(data[2]))) as picture:
        assert picture.format.lower() == data[1] and picture.width > 100
    assert not plt.fignum_exists(figure.number)


@pytest.mark.parametrize("cells, exact", [(6, True), (300, False)])
def test_photos_are_stored_with_losses_and_enlarged_pixels_without(shown, cells, exact):
    noise = np.random.default_rng(0).random((cells, cells))
    figure = plt.figure(figsize=(3, 3))
    figure.add_axes((0, 0, 1, 1)).imshow(noise, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    overlay.show(figure, "Noise in squares, few or many of them.")
    data = base64.b64decode(re.search(r"base64,([^\"]+)", shown[0]["text/html"])[1])
    with Image.open(io.BytesIO(data)) as picture:
        stored = np.asarray(picture.convert("L")) / 255
    step = 300 // cells
    off = np.abs(stored[step // 2 :: step, step // 2 :: step] - noise).max()
    assert (off < 0.01) == exact


def test_panels_have_titles_scales_and_a_colour_bar():
    rows = [
        [("one", np.eye(4), {}), ("two", np.eye(3), {"cmap": "cividis", "vmin": -1, "vmax": 2})],
        [("three", np.eye(2), {})],
    ]
    figure = overlay.panels(rows, bar="strength")
    *axes, bar = figure.axes
    assert [axis.get_title() for axis in axes] == ["one", "two", "three", ""]
    assert [axis.images[0].get_clim() for axis in axes[:3]] == [(0, 1), (-1, 2), (0, 1)]
    assert [axis.images[0].get_cmap().name for axis in axes[:2]] == ["gray", "cividis"]
    assert not axes[3].images and not axes[3].axison
    assert "strength" in (bar.get_ylabel(), bar.get_xlabel())
    plt.close(figure)


def test_show_wants_a_description():
    with pytest.raises(ValueError, match="describe in a sentence"):
        overlay.show(overlay.panels([[("a", np.eye(4), {})]]), "a figure")


def test_colour_maps_get_brighter_all_the_way():
    """Perceived brightness: rising for HEAT; for SIGNED lowest in the middle and rising to both sides."""
    ramp = np.linspace(0, 1, 64)
    heat, signed = (
        overlay.colour(ramp, name) @ [0.2126, 0.7152, 0.0722] for name in (overlay.HEAT, overlay.SIGNED)
    )
    assert (np.diff(heat) > -1e-3).all()
    assert 28 <= signed.argmin() <= 36
    assert (np.diff(signed[36:]) > -1e-3).all() and (np.diff(signed[:28]) < 1e-3).all()


CONTROLS = {"digit": (4, list(range(10))), "alpha": (0.5, (0.0, 1.0, 0.1))}


def test_headless_explore_draws_once_with_the_defaults(monkeypatch):
    calls = []
    monkeypatch.setenv("LABS_HEADLESS", "1")
    monkeypatch.setitem(sys.modules, "ipywidgets", None)  # importing it would fail
    overlay.explore(lambda **chosen: calls.append(chosen), **CONTROLS)
    assert calls == [{"digit": 4, "alpha": 0.5}]


def test_explore_makes_a_control_for_each_keyword(monkeypatch):
    made = {}
    monkeypatch.delenv("LABS_HEADLESS", raising=False)
    monkeypatch.setattr(ipywidgets, "interact", lambda draw, **widgets: made.update(widgets))
    overlay.explore(lambda **_: None, **CONTROLS)
    assert {name: (type(w).__name__, w.value) for name, w in made.items()} == {
        "digit": ("Dropdown", 4),
        "alpha": ("FloatSlider", 0.5),
    }
