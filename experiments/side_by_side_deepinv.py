"""What a user of DeepInverse writes for `side_by_side`: its proximal gradient, unfolded.

Its conventions that matter here: the data term is 1/2 |A x - y|^2, as ours; a prior is the denoiser
itself, not what that takes away; iterations start from A^T y unless told; and `PGD` makes a trained
step float32, so that in float64 it should be a number which that holds.
"""

from collections.abc import Callable
from typing import Any

import deepinv  # pyright: ignore[reportMissingImports]
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


class Denoiser(nn.Module):
    """The image without what the network takes away."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 3, 3, padding=1),
        )

    def forward(self, x, sigma):
        """The network knows no noise level."""
        return x - self.net(x)


class Checkpointed(Denoiser):
    """Computed again on the way back."""

    def forward(self, x, sigma):
        """The same."""
        return x - checkpoint(self.net, x, use_reentrant=False)


def gradient(
    kernel: Any, size: int, denoiser: Any, iterations: int, step: float, **options: Any
) -> Callable[..., Any]:
    """(y, target) -> gradient of the mean squared error by the step, kernels and biases."""
    physics = deepinv.physics.BlurFFT((3, size, size), kernel[None, None])
    model = deepinv.optim.PGD(
        data_fidelity=deepinv.optim.L2(),
        prior=deepinv.optim.PnP(denoiser),
        stepsize=step,
        max_iter=iterations,
        unfold=True,
        trainable_params=["stepsize"],
        **options,
    ).to(kernel.dtype)
    parameters = list(model.parameters())

    def at(y, target):
        loss = nn.functional.mse_loss(model(y, physics, init=y), target)
        return torch.autograd.grad(loss, parameters)

    return at
