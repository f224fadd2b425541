"""PSNR and SSIM as super-resolution papers measure them: NumPy arrays, values in [0, 255]."""

import numpy as np
from jaxtyping import Float, Num
from scipy import ndimage


def luma(rgb: Num[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w"]:
    """Y of ITU-R BT.601 in studio range, [16, 235], as MATLAB's `rgb2ycbcr` but not rounded.

    Y = 16 + (65.481 R + 128.553 G + 24.966 B) / 255
    """
    return 16 + np.asarray(rgb, np.float64) @ np.array([65.481, 128.553, 24.966]) / 255


def shave(image: Num[np.ndarray, "h w *c"], border: int) -> Num[np.ndarray, "H W *c"]:
    """Without `border` pixels on every side.

    Raises:
        ValueError: nothing would be left.
    """
    h, w = image.shape[:2]
    if border < 0 or 2 * border >= min(h, w):
        raise ValueError(f"cannot crop {border} pixels on every side of {w}x{h} pixels")
    return image[border : h - border, border : w - border]


def psnr(a: Num[np.ndarray, "h w *c"], b: Num[np.ndarray, "h w *c"], crop: int = 0) -> float:
    """Peak signal-to-noise ratio in dB: 10 log10(255^2 / mean |a - b|^2); infinite for a = b.

    Args:
        a, b: images of one shape, real or complex.
        crop: pixels left out on every side.

    Raises:
        ValueError: shapes that differ, or a crop that leaves nothing.
    """
    a, b = _comparable(a, b, crop)
    error = np.mean(np.abs(a - b) ** 2)
    return float(10 * np.log10(255**2 / error)) if error > 0 else float("inf")


def luma_psnr(a: Num[np.ndarray, "h w 3"], b: Num[np.ndarray, "h w 3"], crop: int = 0) -> float:
    """PSNR on Y, as papers report it: `psnr` of the `luma` of both.

    Args:
        a, b: RGB images of one shape.
        crop: pixels left out on every side.

    Raises:
        ValueError: as `psnr`.
    """
    return psnr(luma(a), luma(b), crop)


def ssim(a: Num[np.ndarray, "h w"], b: Num[np.ndarray, "h w"], crop: int = 0) -> float:
    """Structural similarity, the mean over all windows that lie in the image.

        (2 m_a m_b + C1) (2 s_ab + C2) / ((m_a^2 + m_b^2 + C1) (s_a^2 + s_b^2 + C2))

    with means, variances and covariance under an 11 x 11 Gaussian window of standard deviation 1.5,
    C1 = (0.01 * 255)^2, C2 = (0.03 * 255)^2 (Wang et al., IEEE TIP 13(4), 2004, and the first of
    its MATLAB codes, `ssim_index`, which does not reduce large images).

    Args:
        a, b: images of one channel and one shape.
        crop: pixels left out on every side.

    Raises:
        ValueError: shapes that differ, several channels, or under 11 pixels left on a side.
    """
    a, b = _comparable(a, b, crop)
    if a.ndim != 2:
        raise ValueError(f"SSIM is measured on one channel, (h, w), not {a.shape}")
    if min(a.shape) < 11:
        h, w = a.shape
        raise ValueError(f"SSIM needs at least 11 pixels a side, there are {w}x{h} to compare")
    window = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    window /= window.sum()

    def mean(x: np.ndarray) -> np.ndarray:
        for axis in (0, 1):
            x = ndimage.correlate1d(x, window, axis)
        return x[5:-5, 5:-5]

    mean_a, mean_b = mean(a), mean(b)
    variances = mean(a * a) - mean_a**2 + mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similarity = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return float(np.mean(similarity * (2 * covariance + c2) / (variances + c2)))


def _comparable(a: np.ndarray, b: np.ndarray, crop: int) -> tuple[np.ndarray, np.ndarray]:
    if np.shape(a) != np.shape(b):
        raise ValueError(f"images of shapes {np.shape(a)} and {np.shape(b)} cannot be compared")
    wide = np.result_type(a, b, np.float64)
    a, b = np.asarray(a, wide), np.asarray(b, wide)
    return shave(a, crop), shave(b, crop)
