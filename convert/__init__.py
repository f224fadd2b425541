"""Weights between PyTorch and JAX, and the proof that both compute the same."""

from .names import from_torch, to_torch

__all__ = ["from_torch", "to_torch"]
