import math

import numpy as np
import pytest
from conftest import photo
from hypothesis import given
from hypothesis import strategies as st
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from isrrescnet_jax.evaluation import metrics

sides = st.integers(13, 40)
seeds = st.integers(0, 2**31)


def two_planes(h: int, w: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    a = metrics.luma(photo(h, w, seed=seed)[0])
    return a, np.clip(a + rng.normal(0, rng.uniform(0.1, 60), a.shape), 0, 255)


def test_luma_of_known_colours():
    colours = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]])
    expected = [[16, 235, 16 + 65.481, 16 + 128.553, 16 + 24.966]]
    np.testing.assert_allclose(metrics.luma(colours.astype(np.uint8)), expected, rtol=1e-12)


def test_luma_agrees_with_skimage():
    image = photo(9, 8)[0]
    np.testing.assert_allclose(metrics.luma(image), rgb2ycbcr(image)[..., 0], rtol=1e-12)


def test_luma_of_grey_spans_the_studio_range():
    grey = np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, -1)
    np.testing.assert_allclose(metrics.luma(grey)[0], 16 + 219 * np.arange(256) / 255, rtol=1e-12)


@given(sides, sides, seeds, st.integers(0, 4))
def test_psnr_agrees_with_skimage(h, w, seed, crop):
    a, b = two_planes(h, w, seed)
    inside = np.s_[crop : h - crop, crop : w - crop]
    expected = peak_signal_noise_ratio(a[inside], b[inside], data_range=255)
    assert metrics.psnr(a, b, crop) == pytest.approx(expected, rel=1e-12)
    assert metrics.psnr(b, a, crop) == metrics.psnr(a, b, crop)


def test_psnr_of_uint8_does_not_wrap_around():
    a, b = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 1, np.uint8)
    assert metrics.psnr(a, b) == pytest.approx(20 * math.log10(255))
    assert metrics.psnr(a, 255 + np.zeros_like(a)) == pytest.approx(0)


def test_equal_images():
    a, _ = two_planes(16, 16, 0)
    assert metrics.psnr(a, a) == math.inf
    assert metrics.ssim(a, a) == pytest.approx(1, abs=1e-15)


def test_luma_psnr_is_that_of_luma():
    a, b = photo(20, 17, seed=1)[0], photo(20, 17, seed=2)[0]
    for crop in (0, 3):
        assert metrics.luma_psnr(a, b, crop) == metrics.psnr(metrics.luma(a), metrics.luma(b), crop)
    # Y of white is 235 and of black 16.
    white, black = np.full((4, 4, 3), 255, np.uint8), np.zeros((4, 4, 3), np.uint8)
    assert metrics.luma_psnr(white, black) == pytest.approx(20 * math.log10(255 / 219))


@given(sides, sides, seeds, st.integers(0, 1))
def test_ssim_agrees_with_skimage(h, w, seed, crop):
    a, b = two_planes(h, w, seed)
    inside = np.s_[crop : h - crop, crop : w - crop]
    expected = structural_similarity(
        a[inside],
        b[inside],
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert metrics.ssim(a, b, crop) == pytest.approx(expected, abs=1e-12)


def test_ssim_of_one_window_by_hand():
    a, b = two_planes(11, 11, 3)
    row = np.exp(-(np.arange(-5, 6) ** 2) / 4.5)
    weight = np.outer(row, row) / row.sum() ** 2
    m_a, m_b = (weight * a).sum(), (weight * b).sum()
    s_a, s_b = (weight * (a - m_a) ** 2).sum(), (weight * (b - m_b) ** 2).sum()
    s_ab = (weight * (a - m_a) * (b - m_b)).sum()
    c1, c2 = 2.55**2, 7.65**2
    expected = (2 * m_a * m_b + c1) * (2 * s_ab + c2)
    expected /= (m_a**2 + m_b**2 + c1) * (s_a + s_b + c2)
    assert metrics.ssim(a, b) == pytest.approx(expected, rel=1e-9)


def test_ssim_of_constants_is_the_luminance_term():
    a, b = np.full((12, 15), 50.0), np.full((12, 15), 100.0)
    expected = (2 * 50 * 100 + 6.5025) / (50**2 + 100**2 + 6.5025)
    assert metrics.ssim(a, b) == pytest.approx(expected, rel=1e-9)


@pytest.mark.usefixtures("unchecked")
def test_bad_input():
    a = np.zeros((12, 14))
    with pytest.raises(ValueError, match=r"\(12, 14\) and \(14, 12\)"):
        metrics.psnr(a, a.T)
    with pytest.raises(ValueError, match="crop 6 pixels on every side of 14x12"):
        metrics.psnr(a, a, crop=6)
    with pytest.raises(ValueError, match="crop -1"):
        metrics.psnr(a, a, crop=-1)
    with pytest.raises(ValueError, match="11 pixels a side, there are 12x10"):
        metrics.ssim(a, a, crop=1)
    with pytest.raises(ValueError, match="one channel"):
        metrics.ssim(np.zeros((12, 12, 3)), np.zeros((12, 12, 3)))
