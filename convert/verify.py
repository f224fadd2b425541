"""The same picture through JAX and through PyTorch, compared iteration by iteration."""

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import torch

import isrrescnet_jax as isr
from isrrescnet_jax import images
from isrrescnet_jax.evaluation.metrics import psnr

from . import torch_model
from .names import to_torch

GREY_LEVELS = 0.02  # largest difference of an iterate that passes
# A byte flips about as often as the mean difference in grey levels, 1e-4 in float32.
BYTES = 5e-4  # largest share of output bytes that differ (by 1) that passes


def verify(weights: isr.Weights, paths: Sequence[Path], expect: Path | None = None) -> int:
    """Print how far JAX and PyTorch are apart on each picture; 0 if all pass, else 1.

    Passing means that every iterate is within 0.02 grey levels, and that over all pictures at most
    5e-4 of the output bytes differ, by no more than 1. With `expect`, the result of JAX is also
    compared with the published picture of the same name; for information, as who made it with
    what weights is not known here.
    """
    if weights.config.scale is None:
        raise ValueError("--verify needs --scale: these weights name none")
    state = to_torch(weights.params)
    reconstruct = jax.jit(isr.reconstruct, static_argnames="trace")
    operator = isr.Bicubic(weights.config.scale)
    worst, wrong, total, largest = 0.0, 0, 0, 0
    for path in paths:
        color = images.read(path).color
        if weights.config.channels == 1:
            color = color.mean(-1, keepdims=True)
        if min(color.shape[:2]) < 8:
            raise ValueError(f"{path}: PyTorch takes images from 8x8 pixels up")
        lr = np.broadcast_to(color, (*color.shape[:2], weights.config.channels))[None]
        print(
            f"{path}: {lr.shape[2]}x{lr.shape[1]}, x{operator.scale}, JAX against PyTorch",
            flush=True,
        )
        ours = np.asarray(reconstruct(weights, lr, operator=operator, trace=True).iterates)
        theirs = torch_model.reconstruct(
            state,
            torch.tensor(lr.transpose(0, 3, 1, 2)),
            operator.scale,
            feedback_steps=weights.config.feedback_steps,
            physics=weights.config.physics,
            step=weights.config.step,
        )["iterates"]
        theirs = theirs.numpy().transpose(0, 1, 3, 4, 2)
        print("  iteration  max difference  mean difference  output bytes that differ")
        for k, (a, b) in enumerate(zip(ours, theirs, strict=True), 1):
            difference = np.abs(a - b)
            share = np.mean(_bytes_off(a, b) > 0)
            print(f"  {k:9d}  {difference.max():14.6f}  {difference.mean():15.7f}  {share:.2e}")
            worst = float(np.maximum(worst, difference.max()))  # max() would lose a NaN
        off = _bytes_off(ours[-1], theirs[-1])
        wrong, total = wrong + int((off > 0).sum()), total + off.size
        largest = max(largest, int(off.max()))
        if expect is not None:
            _compare_published(images.to_uint8(ours[-1, 0]), path, expect)
    passed = worst <= GREY_LEVELS and wrong <= BYTES * total and largest <= 1
    print(
        f"{'PASS' if passed else 'FAIL'}: iterates within {worst:.6f} grey levels (at most "
        f"{GREY_LEVELS}), {wrong} of {total} output bytes differ (at most {BYTES:.0e}), "
        f"by {largest} at most (1)"
    )
    return 0 if passed else 1


def _bytes_off(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.abs(images.to_uint8(a).astype(int) - images.to_uint8(b))


def _compare_published(sr: np.ndarray, path: Path, folder: Path) -> None:
    """Print how a result differs from the published picture of the same name."""
    published = folder / path.name
    if not published.exists():
        raise ValueError(f"{published}: no published image of this name")
    other = images.to_uint8(images.read(published).color)
    if other.shape != sr.shape:
        raise ValueError(f"{published} is {other.shape}, the result {sr.shape}")
    difference = np.abs(sr.astype(int) - other)
    print(
        f"  against {published}: {np.mean(difference > 0):.2e} of the bytes differ, "
        f"by {difference.max()} at most, PSNR between them {psnr(sr, other):.2f} dB"
    )
