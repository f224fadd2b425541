"""Checkpoints of PyTorch, and the command that converts them, called in this process."""

import dataclasses
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from convert.__main__ import main  # noqa: E402

STEPS = {"depth2_k5": 4, "depth5_k10": 4, "gray_depth3_k4_steps2": 2}
# The values that a careless copy changes, among ordinary ones.
AWKWARD = torch.tensor([-0.0, 0.0, 1e-45, -1e-39, 1e18, 1 / 3])


def run(*arguments):
    """The exit code of `python -m convert`."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return stop.value.code


def bits(state):
    """Everything that must survive: names in order, types, shapes and bytes."""
    arrays = {name: np.asarray(value) for name, value in state.items()}
    return [(name, a.dtype, a.shape, a.tobytes()) for name, a in arrays.items()]


def storages(state):
    """Which names share memory."""
    first = {}
    return {name: first.setdefault(value.data_ptr(), name) for name, value in state.items()}


def files(folder):
    """Contents of a folder, hidden files included."""
    return {path.name: path.read_bytes() if path.is_file() else None for path in folder.iterdir()}


class Skeleton(torch.nn.Module):
    """PyTorch's own modules where the official ones are, so that PyTorch names the tensors."""

    def __init__(self, norm, channels=3, features=4, depth=2, iterations=3):
        super().__init__()
        nn, f = torch.nn, features

        def block():
            return nn.ModuleDict(
                {
                    "conv1": norm(nn.Conv2d(f, f, 3)),
                    "relu1": nn.PReLU(f),
                    "relu2": nn.PReLU(f),
                    "conv2": norm(nn.Conv2d(f, f, 3)),
                }
            )

        blocks = nn.ModuleList(block() for _ in range(depth))
        feedback = {
            "compress_in": norm(nn.Conv2d(2 * f, f, 1)),
            "prelu": nn.PReLU(2 * f),
            "RBs": blocks,
        }
        self.alpha = nn.Parameter(torch.zeros(iterations))
        self.w = nn.Parameter(torch.zeros(iterations))
        self.model = nn.ModuleDict(
            {
                "conv": norm(nn.Conv2d(channels, f, 5)),
                "resblocks": blocks,
                "fbblock": nn.ModuleDict(feedback),
                "conv_out": norm(nn.ConvTranspose2d(f, channels, 5)),
            }
        )


def old_norm(module):
    with warnings.catch_warnings(action="ignore"):  # deprecated, but in the official files
        return torch.nn.utils.weight_norm(module)


new_norm = torch.nn.utils.parametrizations.weight_norm


def random_state(norm=old_norm, seed=0, **shape):
    """A state dict of random numbers, with awkward ones in it."""
    generator = torch.Generator().manual_seed(seed)
    model = Skeleton(norm, **shape)
    with torch.no_grad():
        for parameter in model.parameters():
            flat = torch.randn(parameter.numel(), generator=generator)
            flat[:: len(AWKWARD) + 1] = AWKWARD[seed % len(AWKWARD)]
            parameter.copy_(flat.view_as(parameter))
        for parameter in (model.alpha, model.w):  # logarithms
            parameter.clamp_(max=80)
    return model.state_dict()


# --- damage -------------------------------------------------------------------------------------


def refused(capsys, folder, *arguments):
    """The one line with which a conversion is refused, having left nothing behind."""
    before = files(folder)
    capsys.readouterr()
    assert run(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.endswith("\n"), (out, err)
    assert err.startswith("convert: ") and files(folder) == before
    return err


def with_physics(weights, physics, step):
    config = dataclasses.replace(weights.config, physics=physics, step=step)
    return dataclasses.replace(weights, config=config)
