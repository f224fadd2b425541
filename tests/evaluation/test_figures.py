import re

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import photo
from PIL import Image
from scipy import ndimage

import isrrescnet_jax as isr
from isrrescnet_jax.evaluation import figures, metrics
from isrrescnet_jax.evaluation.degrade import degrade, resize

matplotlib = pytest.importorskip("matplotlib")

HR = photo(48, 64)[0]


def texts(path) -> str:
    """All text of an SVG figure, one line each."""
    return "\n".join(re.findall(r">([^<>]*[^<>\s][^<>]*)</(?:text|tspan)>", path.read_text()))


@pytest.fixture(autouse=True)
def readable_svg():
    """Text as text, and nothing that differs between runs."""
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "1"}):
        yield


def solution(k: int = 4, channels: int = 3, pictures: int = 1, steps=None) -> isr.Solution:
    """Iterates that approach HR, each step half as large as the one before."""
    truth = (
        HR.astype(np.float32)[None] if channels == 3 else np.moveaxis(HR[..., :1], 2, 0)[..., None]
    )
    truth = truth.repeat(pictures, 0).astype(np.float32)
    start = np.zeros_like(truth)
    away = 0.5 ** np.arange(1, k + 1, dtype=np.float32)
    iterates = truth + (start - truth) * away[:, None, None, None, None]
    return solved(iterates, start)


def solved(iterates: np.ndarray, start: np.ndarray) -> isr.Solution:
    sigma = jnp.zeros(start.shape[0])
    return isr.Solution(jnp.asarray(iterates[-1]), jnp.asarray(iterates), jnp.asarray(start), sigma)


# --- the iterations -----------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 4, 23])
@pytest.mark.parametrize("hr", [None, HR])
def test_trace_draws_for_any_number_of_iterations(tmp_path, k, hr):
    path = tmp_path / "new folder/trace.png"
    figures.trace_figure(solution(k), path, hr)
    with Image.open(path) as image:
        assert image.width > 2000 and len(image.getcolors(2**24)) > 100
    assert list(path.parent.iterdir()) == [path]


def test_trace_tells_steps_and_quality(tmp_path):
    figures.trace_figure(solution(4), tmp_path / "a.svg", HR)
    last = np.rint(HR * (1 - 0.5**4)).astype(np.uint8)
    psnr = metrics.luma_psnr(last, HR)
    found = texts(tmp_path / "a.svg")
    assert f"PSNR on Y, {psnr:.2f} dB at the end" in found and "±116" in found
    figures.trace_figure(solution(4), tmp_path / "b.svg")
    assert "PSNR" not in texts(tmp_path / "b.svg")


def test_trace_plots_the_step_sizes(tmp_path, monkeypatch):
    curves = []
    monkeypatch.setattr(figures._Canvas, "curve", lambda *a: curves.append(a[2:4]))
    figures.trace_figure(solution(3), tmp_path / "a.png", HR)
    (first, steps), (zero, quality) = curves
    rms = np.sqrt(np.mean(HR.astype(float) ** 2)) * 0.5 ** np.arange(1, 4)
    assert first == 1 and zero == 0
    np.testing.assert_allclose(steps, rms, rtol=1e-5)
    assert len(quality) == 4 and (np.diff(quality) > 0).all()


def test_trace_of_grey_networks(tmp_path):
    figures.trace_figure(solution(2, channels=1), tmp_path / "grey.png", HR[..., 0])
    # Colours run through a grey network as three pictures.
    figures.trace_figure(solution(2, channels=1, pictures=3), tmp_path / "colours.png", HR)


def test_trace_that_ends_at_the_truth(tmp_path):
    same = np.repeat(HR.astype(np.float32)[None, None], 3, 0)
    standing = solved(same, same[0])
    figures.trace_figure(standing, tmp_path / "a.svg", HR)
    assert "PSNR on Y, equal at the end" in texts(tmp_path / "a.svg")


def test_trace_refuses_what_it_cannot_show(tmp_path):
    path = tmp_path / "a.png"
    full = solution()
    with pytest.raises(ValueError, match="trace=True"):
        figures.trace_figure(isr.Solution(full.image, None, full.initial, full.sigma), path)
    with pytest.raises(ValueError, match="one picture, not of 2"):
        figures.trace_figure(solution(pictures=2), path)
    with pytest.raises(ValueError, match="a truth of 64x40 and iterates of 64x48"):
        figures.trace_figure(full, path, HR[:40])
    with pytest.raises(ValueError, match="nope"):
        figures.trace_figure(full, tmp_path / "a.nope")
    assert not list(tmp_path.iterdir())


# --- two pictures -------------------------------------------------------------------------------


def test_compare_with_a_truth(tmp_path):
    lr = degrade(HR, 4)
    near = np.clip(HR + 2.0, 0, 255)
    path = tmp_path / "a.svg"
    figures.compare(lr, near, path, truth=HR, titles=("input", "mo$el_$"))
    found = texts(path)
    for image in (resize(lr, 48, 64), np.rint(near)):
        assert f"{metrics.luma_psnr(image, HR):.2f} dB" in found
    for text in ("input (bicubic ×4)", "mo$el_$", "truth", "64 × 48 pixels"):
        assert text in found
    assert path.read_text().count("<image") == 4


def test_compare_without_a_truth(tmp_path):
    other = np.clip(HR.astype(int) + 3, 0, 255).astype(np.uint8)
    figures.compare(HR, other, tmp_path / "a.svg")
    psnr = metrics.luma_psnr(HR, other)
    assert f"PSNR between the two: {psnr:.2f} dB" in texts(tmp_path / "a.svg")
    assert (tmp_path / "a.svg").read_text().count("<image") == 3
    figures.compare(HR, HR, tmp_path / "b.svg")
    assert "PSNR between the two: equal" in texts(tmp_path / "b.svg")


@pytest.mark.parametrize("interpolation", ["bicubic", "nearest"])
def test_compare_enlarges_the_smaller_one(tmp_path, monkeypatch, interpolation):
    shown = []
    monkeypatch.setattr(
        figures._Canvas, "picture", lambda self, place, x: shown.append(x) or Axes()
    )
    lr = degrade(HR, 2)
    whole = (0, 0, 64, 48)
    large = resize(lr, 48, 64) if interpolation == "bicubic" else lr.repeat(2, 0).repeat(2, 1)
    for pair in ((lr, HR), (HR, lr)):
        shown.clear()
        figures.compare(*pair, tmp_path / "a.png", crop=whole, interpolation=interpolation)
        expected = [large if x is lr else x for x in pair]
        np.testing.assert_array_equal(shown, [expected[1], *expected])


class Axes:
    def add_patch(self, patch):
        pass


def test_compare_shows_where_the_two_differ_most(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(
        figures._Canvas, "picture", lambda self, place, x: shown.append(x) or Axes()
    )
    changed = np.full((100, 120, 3), 100, np.uint8)
    changed[50:82, 70:102] = 101  # as large as the crop
    figures.compare(np.full_like(changed, 100), changed, tmp_path / "a.png")
    assert (shown[1] == 100).all() and (shown[2] == 101).all() and shown[2].shape == (32, 32, 3)
    # Where nothing differs, the part with the most detail.
    flat = np.full((100, 120), 100.0)
    flat[10:20, 10:20] += np.random.default_rng(0).normal(0, 50, (10, 10))
    shown.clear()
    figures.compare(flat, flat, tmp_path / "a.png")
    assert shown[1].std() > 0


def test_grey_and_colour_go_together(tmp_path):
    figures.compare(HR[..., 0], HR, tmp_path / "a.png", truth=HR[..., 1:2].astype(np.float32))


def test_figures_are_the_same_every_time(tmp_path):
    for name in ("a.png", "b.png"):
        figures.compare(ndimage.gaussian_filter(HR, (1, 1, 0)), HR, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize(
    ("before", "options", "message"),
    [
        (HR[:20], {}, "64x20 and 64x48 pixels"),
        (HR[::2, ::4], {}, "16x24 and 64x48"),
        (HR[..., :2], {}, r"not \(48, 64, 2\)"),
        (HR, {"truth": HR[1:]}, "a truth of 64x47"),
        (HR, {"crop": (0, 0, 65, 10)}, "leaves 64x48 pixels"),
        (HR, {"crop": (-1, 0, 5, 5)}, "leaves"),
        (HR, {"crop": (3, 3, 0, 5)}, "leaves"),
        (HR, {"interpolation": "linear"}, "'bicubic' or 'nearest'"),
        (HR, {"path": "a.nope"}, "nope"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_compare_refuses_what_does_not_fit(tmp_path, before, options, message):
    path = tmp_path / options.pop("path", "a.png")
    with pytest.raises(ValueError, match=message):
        figures.compare(before, HR, path, **options)
    assert not list(tmp_path.iterdir())


def test_without_a_suffix_it_is_png(tmp_path):
    figures.compare(HR, HR, tmp_path / "figure")
    assert Image.open(tmp_path / "figure").format == "PNG"
    assert len(list(tmp_path.iterdir())) == 1


def test_without_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(ValueError, match="need matplotlib"):
        figures.compare(HR, HR, tmp_path / "a.png")
