"""The physics in PyTorch, those of the reference with their defects and the exact ones.

A part of `torch_model`, which see: it shares no code with `isrrescnet_jax`.
"""

import functools
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# The high-pass decomposition filter of Daubechies' wavelet with seven vanishing moments.
DB7_HIGH_PASS = (
    -0.07785205408500918,
    0.3965393194819173,
    -0.7291320908462351,
    0.4697822874051931,
    0.14390600392856498,
    -0.22403618499387498,
    -0.07130921926683026,
    0.08061260915108308,
    0.03802993693501441,
    -0.01657454163066688,
    -0.01255099855609984,
    0.0004295779729213665,
    0.0018016407040474908,
    0.00035371379997452024,
)

# --- the physics of the reference ---------------------------------------------------------------


def bilinear(x: Tensor, h: int, w: int) -> Tensor:
    """Sample to h x w on a grid for aligned corners, read as one for unaligned; 0 outside."""
    rows = torch.linspace(-1, 1, h, dtype=x.dtype, device=x.device)
    columns = torch.linspace(-1, 1, w, dtype=x.dtype, device=x.device)
    grid = torch.stack((columns.expand(h, w), rows[:, None].expand(h, w)), dim=-1)
    return F.grid_sample(x, grid.expand(len(x), h, w, 2), align_corners=False)


def catmull_rom(t: Tensor) -> list[Tensor]:
    """Weights of the neighbours -1, 0, 1 and 2 of a sample at fraction t."""

    def near(d):
        return 1.5 * d**3 - 2.5 * d**2 + 1

    def far(d):
        return -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2

    return [far(1 + t), near(t), near(1 - t), far(2 - t)]


def bicubic_up(x: Tensor, scale: int) -> Tensor:
    """Interpolate with rows weighted by the columns' fractions and columns by the rows'."""

    def positions(n):
        return torch.linspace(0, n, scale * n + 1, dtype=x.dtype, device=x.device)[:-1]

    h, w = x.shape[2:]
    i, j = positions(h), positions(w)
    row, column = i.floor(), j.floor()
    of_row_offset, of_column_offset = catmull_rom(j - column), catmull_rom(i - row)
    out = x.new_zeros(())
    for a in range(4):
        taken = x.index_select(2, (row.long() + (a - 1)).clamp(0, h - 1))
        mixed = x.new_zeros(())
        for b in range(4):
            picked = taken.index_select(3, (column.long() + (b - 1)).clamp(0, w - 1))
            mixed = mixed + of_column_offset[b][:, None] * picked
        out = out + of_row_offset[a] * mixed
    return out


def _given(kernel: Tensor | None) -> Tensor:
    if kernel is None:
        raise ValueError("mode kernel needs a kernel")
    return kernel


def reference_gradient(
    v: Tensor, y: Tensor, scale: int, mode: str = "bicubic", kernel: Tensor | None = None
) -> Tensor:
    """U (D v - y) of the operator `mode`: bicubic, bilinear, kernel or normal (decimation).

    `kernel` is (c, 1, k, k); k must be odd and at least the scale, or the shapes do not meet.
    """
    if mode == "bicubic":
        return bicubic_up(v[:, :, ::scale, ::scale] - y, scale)
    if mode == "bilinear":
        return bilinear(bilinear(v, *y.shape[2:]) - y, *v.shape[2:])
    if mode == "kernel":
        kernel, c = _given(kernel), v.shape[1]
        k = kernel.shape[-1]
        residual = F.conv2d(v, kernel, stride=scale, padding=k // 2, groups=c) - y
        up = F.conv_transpose2d(residual, kernel, stride=scale, groups=c)
        return up[:, :, : v.shape[2], : v.shape[3]]
    if mode == "normal":
        out = torch.zeros_like(v)
        out[:, :, 1::scale, 1::scale] = v[:, :, 1::scale, 1::scale] - y
        return out
    raise ValueError(f"mode must be bicubic, bilinear, kernel or normal, not {mode!r}")


# --- the exact physics --------------------------------------------------------------------------


def keys(x: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution kernel, a = -1/2."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _tensor(matrix: np.ndarray, dtype: torch.dtype, device: torch.device) -> Tensor:
    # One made under inference_mode, and kept, could never be used under autograd.
    with torch.inference_mode(False):
        return torch.from_numpy(matrix).to(device, dtype)


@functools.lru_cache(maxsize=32)
def imresize_matrix(
    n: int, m: int, border: str, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """MATLAB's bicubic `imresize` of an axis from n to m pixels: (m, n), computed in float64.

    Output i lies at (i + 1/2) n / m - 1/2. The kernel is stretched by n / m when that is above 1;
    its weights sum to 1. Beyond the ends the axis is mirrored, edge pixel included ("symmetric"),
    or its last pixel repeated ("replicate").
    """
    if border not in ("symmetric", "replicate"):
        raise ValueError(f"border must be symmetric or replicate, not {border!r}")
    stretch = max(n / m, 1)
    margin = math.ceil(2 * stretch) + 1
    centres = (np.arange(m) + 0.5) * (n / m) - 0.5
    weights = keys((np.arange(-margin, n + margin) - centres[:, None]) / stretch)
    weights /= weights.sum(axis=1, keepdims=True)
    around = ((margin, margin), (0, 0))
    extended = np.pad(np.eye(n), around, mode="edge" if border == "replicate" else "symmetric")
    return _tensor(weights @ extended, dtype, device)


@functools.lru_cache(maxsize=32)
def centre_matrix(m: int, scale: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Linear interpolation at the centres of m pixels that are `scale` wide: (m, scale m)."""
    distance = np.abs(np.arange(scale) - (scale - 1) / 2)
    return _tensor(np.kron(np.eye(m), np.maximum(1 - distance, 0)), dtype, device)


def _axes(mode: str, like: Tensor, h: int, w: int, scale: int, border: str) -> list[Tensor]:
    """D of the rows and of the columns, for low-resolution images of h x w pixels."""
    kind = like.dtype, like.device
    if mode == "bicubic":
        return [imresize_matrix(scale * m, m, border, *kind) for m in (h, w)]
    return [centre_matrix(m, scale, *kind) for m in (h, w)]


def _repeated(m: int, k: int, scale: int, device: torch.device) -> Tensor:
    """Which pixels of an axis the windows of a kernel see, the first and the last ones again.

    The window of low-resolution pixel i begins at s i + (s - k) // 2; m of them need s (m - 1) + k
    pixels.
    """
    seen = torch.arange(scale * (m - 1) + k, device=device) + (scale - k) // 2
    return seen.clamp(0, scale * m - 1)


def observe(
    x: Tensor,
    scale: int,
    mode: str = "bicubic",
    kernel: Tensor | None = None,
    border: str = "symmetric",
) -> Tensor:
    """The exact D: (n, c, s h, s w) -> (n, c, h, w).

    bicubic    MATLAB's antialiased `imresize` by 1/s, unrounded, with this `border`
    bilinear   linear interpolation at the centres of the low-resolution pixels
    kernel     correlation with the (c, 1, k, k) kernel centred on the low-resolution pixel (to half
               a pixel), edge pixels repeated
    normal     the pixels [1::s, 1::s]
    """
    h, w = x.shape[2] // scale, x.shape[3] // scale
    if mode in ("bicubic", "bilinear"):
        rows, columns = _axes(mode, x, h, w, scale, border)
        return rows @ x @ columns.mT
    if mode == "kernel":
        kernel = _given(kernel)
        k = kernel.shape[-1]
        for axis, m in ((2, h), (3, w)):
            x = x.index_select(axis, _repeated(m, k, scale, x.device))
        return F.conv2d(x, kernel, stride=scale, groups=x.shape[1])
    if mode == "normal":
        return x[:, :, 1::scale, 1::scale]
    raise ValueError(f"mode must be bicubic, bilinear, kernel or normal, not {mode!r}")


def observe_transposed(
    y: Tensor,
    scale: int,
    mode: str = "bicubic",
    kernel: Tensor | None = None,
    border: str = "symmetric",
) -> Tensor:
    """D^T of `observe`: (n, c, h, w) -> (n, c, s h, s w), with <D x, y> = <x, D^T y>."""
    n, c, h, w = y.shape
    if mode in ("bicubic", "bilinear"):
        rows, columns = _axes(mode, y, h, w, scale, border)
        return rows.mT @ y @ columns
    if mode == "kernel":
        kernel = _given(kernel)
        k = kernel.shape[-1]
        x = F.conv_transpose2d(y, kernel, stride=scale, groups=c)
        for axis, m in ((2, h), (3, w)):
            shape = [*x.shape]
            shape[axis] = scale * m
            x = x.new_zeros(shape).index_add(axis, _repeated(m, k, scale, x.device), x)
        return x
    if mode == "normal":
        x = y.new_zeros(n, c, scale * h, scale * w)
        x[:, :, 1::scale, 1::scale] = y
        return x
    raise ValueError(f"mode must be bicubic, bilinear, kernel or normal, not {mode!r}")


# --- both ---------------------------------------------------------------------------------------


def _exact(physics: str) -> bool:
    if physics not in ("reference", "exact"):
        raise ValueError(f"physics must be reference or exact, not {physics!r}")
    return physics == "exact"


def data_gradient(
    v: Tensor,
    y: Tensor,
    scale: int,
    mode: str = "bicubic",
    kernel: Tensor | None = None,
    physics: str = "reference",
    border: str = "symmetric",
) -> Tensor:
    """U (D v - y): that of the reference (`reference_gradient`), or exact, D^T (D v - y)."""
    if not _exact(physics):
        return reference_gradient(v, y, scale, mode, kernel)
    residual = observe(v, scale, mode, kernel, border) - y
    return observe_transposed(residual, scale, mode, kernel, border)


def initial_image(
    y: Tensor, scale: int, physics: str = "reference", border: str = "symmetric"
) -> Tensor:
    """x_0: bilinear with dark borders (reference), or MATLAB's bicubic `imresize` (exact)."""
    h, w = y.shape[2:]
    if not _exact(physics):
        return bilinear(y, h * scale, w * scale)
    kind = border, y.dtype, y.device
    rows, columns = (imresize_matrix(m, scale * m, *kind) for m in (h, w))
    return rows @ y @ columns.mT


@torch.no_grad()
def noise_level(y: Tensor) -> Tensor:
    """Noise level (n,) from the median magnitude of the diagonal wavelet coefficients."""
    n, c, h, w = y.shape
    taps = y.new_tensor(DB7_HIGH_PASS)
    d = y.reshape(n * c, 1, h, w)
    d = F.conv2d(F.pad(d, (0, 0, 7, 7), mode="reflect"), taps.view(1, 1, -1, 1), stride=(2, 1))
    d = F.conv2d(F.pad(d, (7, 7, 0, 0), mode="reflect"), taps.view(1, 1, 1, -1), stride=(1, 2))
    return (d.abs().flatten(1).median(dim=1).values / 0.6745).view(n, c).mean(dim=1)
