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

import math
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .torch_physics import data_gradient, initial_image, noise_level

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
        gradients: list[Tensor] = []
        iterations = len(self.alpha) if iterations is None else iterations
        for k in range(iterations):
            v = x if k == 0 else x + torch.exp(self.w[k]) * (x - previous)
            gradient = data_gradient(v, lr, scale, mode, kernel, physics, border)
            gradients = gradients or [gradient]
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
            "gradient_at_initial": gradients[0],
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
    lr: Tensor | np.ndarray,
    scale: int,
    mode: str = "bicubic",
    kernel: Tensor | np.ndarray | None = None,
    iterations: int | None = None,
    noise: float | Tensor | np.ndarray | None = None,
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
