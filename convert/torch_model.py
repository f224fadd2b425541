"""The whole method once more, in PyTorch: what the JAX implementation is compared with.

Written from the description of the method and checked against numbers of the reference
implementation; it shares no code with `isrrescnet_jax`. Modules and parameters bear the official
names, so the state dict of an official file loads as it is, and what the reference cannot do this
cannot either: images under 8 pixels, 0/0 in the projection (NaN), more iterations than trained.
Beside the physics of the reference with their defects there are the exact ones, which the reference
does not have (`physics="exact"`). Images are (n, c, h, w), in [0, 255].

Works in float32 and float64, under autograd and on any device. `model.model.compile()` compiles the
network; `model.to(memory_format=torch.channels_last)` makes its convolutions run channels-last.
"""

import functools
import math
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

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

# --- the network --------------------------------------------------------------------------------


class NormedConv(nn.Module):
    """Convolution with weight g v / |v|, the norm taken over all axes but the first."""

    def __init__(self, first: int, second: int, size: int, outputs: int):
        super().__init__()
        v = torch.empty(first, second, size, size)
        nn.init.kaiming_normal_(v)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.weight_g = nn.Parameter(torch.linalg.vector_norm(v, dim=(1, 2, 3), keepdim=True))
        self.weight_v = nn.Parameter(v)

    @property
    def weight(self) -> Tensor:
        norm = torch.linalg.vector_norm(self.weight_v, dim=(1, 2, 3), keepdim=True)
        return self.weight_v * (self.weight_g / norm)


class Conv(NormedConv):
    """Reflect-padded convolution; the image keeps its size."""

    def __init__(self, inputs: int, outputs: int, size: int):
        super().__init__(outputs, inputs, size, outputs)
        self.padding = [size // 2] * 4

    def forward(self, x: Tensor, overwritten: bool = False) -> Tensor:
        if any(self.padding):
            x = F.pad(x, self.padding, mode="reflect")
        weight = self.weight
        if not overwritten:
            return F.conv2d(x, weight, self.bias)
        # The value and the gradient of the kernel as they are, the gradient of x with the kernel's
        # mean subtracted: see `Prior.forward`.
        centred = F.conv2d(x, (weight - weight.mean()).detach())
        return F.conv2d(x.detach(), weight, self.bias) + centred - centred.detach()


class TransposedConv(NormedConv):
    """Transposed convolution with stride 1; the image keeps its size."""

    def __init__(self, inputs: int, outputs: int, size: int):
        super().__init__(inputs, outputs, size, outputs)
        self.padding = size // 2

    def forward(self, x: Tensor) -> Tensor:
        return F.conv_transpose2d(x, self.weight, self.bias, padding=self.padding)


class Block(nn.Module):
    """Two pre-activated 3x3 convolutions, without the way around them in the first block."""

    def __init__(self, features: int, skip: bool):
        super().__init__()
        self.conv1 = Conv(features, features, 3)
        self.relu1 = nn.PReLU(features)
        self.relu2 = nn.PReLU(features)
        self.conv2 = Conv(features, features, 3)
        self.skip = skip

    def forward(self, x: Tensor, overwritten: bool = False) -> Tensor:
        out = self.conv1(self.relu1(x), overwritten)
        out = self.conv2(self.relu2(out), overwritten)
        return x + out if self.skip else out


class Feedback(nn.Module):
    """One feedback step: (features, memory) -> features."""

    def __init__(self, features: int, blocks: nn.ModuleList):
        super().__init__()
        self.compress_in = Conv(2 * features, features, 1)
        self.prelu = nn.PReLU(2 * features)
        self.RBs = blocks

    def forward(self, x: Tensor, memory: Tensor, overwritten: bool = False) -> Tensor:
        x = self.compress_in(self.prelu(torch.cat((x, memory), dim=1)), overwritten)
        for block in self.RBs:
            x = block(x, overwritten)
        return x


class Prior(nn.Module):
    """The residual r(z) of the learned prior, before its projection."""

    def __init__(self, channels: int, features: int, depth: int, feedback_steps: int):
        super().__init__()
        self.conv = Conv(channels, features, 5)
        self.resblocks = nn.ModuleList(Block(features, skip=i > 0) for i in range(depth))
        self.fbblock = Feedback(features, self.resblocks)  # the same blocks under a second name
        self.conv_out = TransposedConv(features, channels, 5)
        self.feedback_steps = feedback_steps

    def forward(self, z: Tensor, overwritten: bool = False) -> Tensor:
        """r(z).

        With `overwritten`, the gradient has the error of the reference, whose every iteration
        begins by subtracting the means of the kernels in place. The forward pass does not notice,
        because weight normalisation computes the kernels anew. But autograd still holds the last
        kernels of the iteration before, so that its backward pass uses them without their means:
        in the encoder and in the last feedback step of every iteration but the last.
        """
        x = memory = self.conv(z, overwritten)
        for step in range(self.feedback_steps):
            last = step == self.feedback_steps - 1
            x = memory = self.fbblock(x, memory, overwritten and last)
        return self.conv_out(x)


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
    out = 0
    for a in range(4):
        taken = x.index_select(2, (row.long() + (a - 1)).clamp(0, h - 1))
        mixed = 0
        for b in range(4):
            picked = taken.index_select(3, (column.long() + (b - 1)).clamp(0, w - 1))
            mixed = mixed + of_column_offset[b][:, None] * picked
        out = out + of_row_offset[a] * mixed
    return out


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
        c, k = v.shape[1], kernel.shape[-1]
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
    modes = {"symmetric": "symmetric", "replicate": "edge"}
    if border not in modes:
        raise ValueError(f"border must be symmetric or replicate, not {border!r}")
    stretch = max(n / m, 1)
    margin = math.ceil(2 * stretch) + 1
    centres = (np.arange(m) + 0.5) * (n / m) - 0.5
    weights = keys((np.arange(-margin, n + margin) - centres[:, None]) / stretch)
    weights /= weights.sum(axis=1, keepdims=True)
    extended = np.pad(np.eye(n), ((margin, margin), (0, 0)), mode=modes[border])
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


# --- the iterations -----------------------------------------------------------------------------


class ISRResCNet(nn.Module):
    """The iterations around the network; the official model's parameters under their names."""

    def __init__(
        self,
        channels: int = 3,
        features: int = 64,
        depth: int = 5,
        feedback_steps: int = 4,
        iterations: int = 10,
    ):
        super().__init__()
        k = torch.arange(iterations, dtype=torch.get_default_dtype()).clamp(min=1)
        self.alpha = nn.Parameter(torch.linspace(math.log(2), 0, iterations))
        self.w = nn.Parameter(torch.log(k / (k + 3)))
        self.model = Prior(channels, features, depth, feedback_steps)

    def forward(
        self,
        lr: Tensor,
        scale: int,
        mode: str = "bicubic",
        kernel: Tensor | None = None,
        iterations: int | None = None,
        noise: float | Tensor | None = None,
        reference_gradient: bool = False,
        physics: str = "reference",
        step: float = 1.0,
        border: str = "symmetric",
    ) -> dict[str, Tensor]:
        """Run the iterations; see `reconstruct` for arguments and result.

        `reference_gradient` gives the gradient of the reference implementation with its error (see
        `Prior.forward`); values are the same.
        """
        sigma = noise_level(lr) if noise is None else (torch.ones_like(lr[:, 0, 0, 0]) * noise)
        x = previous = initial = initial_image(lr, scale, physics, border)
        count = math.sqrt(initial[0].numel() - 1)
        iterates, ratios = [], []
        iterations = len(self.alpha) if iterations is None else iterations
        for k in range(iterations):
            v = x if k == 0 else x + torch.exp(self.w[k]) * (x - previous)
            gradient = data_gradient(v, lr, scale, mode, kernel, physics, border)
            if k == 0:
                first_gradient = gradient
            z = v - step * gradient
            r = self.model(z, reference_gradient and k < iterations - 1)
            length = torch.linalg.vector_norm(r, dim=(1, 2, 3))
            radius = torch.exp(self.alpha[k]) * sigma * count
            factor = radius / torch.maximum(length, radius)
            previous, x = x, torch.clamp(z - r * factor[:, None, None, None], 0, 255)
            iterates.append(x)
            ratios.append((length / radius).detach())
        return {
            "iterates": torch.stack(iterates),
            "initial": initial,
            "sigma": sigma,
            "gradient_at_initial": first_gradient,
            "projection_ratio": torch.stack(ratios),
        }


def from_state(state: Mapping, feedback_steps: int = 4, dtype=torch.float32) -> ISRResCNet:
    """The model of an official state dict (old-style names; NumPy arrays or tensors)."""
    state = {name: torch.tensor(np.asarray(value)) for name, value in state.items()}
    features, channels = state["model.conv.weight_v"].shape[:2]
    depth = len({name.split(".")[2] for name in state if name.startswith("model.resblocks.")})
    model = ISRResCNet(channels, features, depth, feedback_steps, len(state["alpha"])).to(dtype)
    model.load_state_dict(state, strict=True)
    return model


def reconstruct(
    model_or_state: ISRResCNet | Mapping,
    lr: Tensor,
    scale: int,
    mode: str = "bicubic",
    kernel: Tensor | None = None,
    iterations: int | None = None,
    noise: float | Tensor | None = None,
    feedback_steps: int = 4,
    physics: str = "reference",
    step: float = 1.0,
    border: str = "symmetric",
) -> dict[str, Tensor]:
    """Super-resolve a batch and keep everything on the way.

    Args:
        model_or_state: an `ISRResCNet`, through which gradients flow, or an official state dict,
            which is run in the type of `lr` and without gradients.
        lr: low-resolution images (n, c, h, w) in [0, 255], tensor or array, sides from 8 up.
        scale: 2, 3 or 4.
        mode: the operator: "bicubic", "bilinear", "kernel" or "normal" (decimation).
        kernel: (k, k), (c, k, k) or (c, 1, k, k) for mode "kernel".
        iterations: how many to run; all that were trained by default.
        noise: known noise level in grey levels, one or one for each image; None estimates it.
        feedback_steps: of a state dict, which does not say.
        physics: "reference", the operators of the reference with their defects, or "exact" (see
            `observe`), whose initial image is MATLAB's bicubic interpolation.
        step: length of the gradient step, z = v - step * gradient.
        border: how exact bicubic interpolation goes on beyond the edge: "symmetric" or "replicate".

    Returns:
        "iterates" (K, n, c, H, W), "initial" (n, c, H, W), "sigma" (n,), "gradient_at_initial"
        (n, c, H, W), "projection_ratio" (K, n): |r|/e before the projection, active above 1.

    Raises:
        ValueError: no such mode, physics or border.
    """
    lr = torch.as_tensor(lr)
    if kernel is not None:
        kernel = torch.as_tensor(kernel).to(lr)
        k = kernel.shape[-1]
        kernel = kernel.reshape(-1, 1, k, k).expand(lr.shape[1], 1, k, k)
    if noise is not None:
        noise = torch.as_tensor(noise).to(lr)
    options = {"physics": physics, "step": step, "border": border}
    if isinstance(model_or_state, nn.Module):
        return model_or_state(lr, scale, mode, kernel, iterations, noise, **options)
    model = from_state(model_or_state, feedback_steps, lr.dtype).to(lr.device)
    with torch.no_grad():
        return model(lr, scale, mode, kernel, iterations, noise, **options)
