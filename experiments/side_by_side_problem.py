"""The problem that `side_by_side` solves: images, blur and weights, as NumPy's arrays."""

import dataclasses

import numpy as np

from . import harness

Layers = list[tuple[np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Problem:
    """Photographs to deblur.

    Attributes:
        iterations: K, or None for the fixed point.
        size: side of the photographs.
        images: how many.
        dtype: of everything.
    """

    iterations: int | None = 10
    size: int = 64
    images: int = 2
    dtype: str = "float64"

    limit = 1000  # iterations until the fixed point
    step = 1.25  # a float32 holds it

    @property
    def tolerance(self) -> float:
        """Of the relative change at the fixed point."""
        return 1e-9 if self.dtype == "float64" else 1e-5

    @property
    def name(self) -> str:
        """For the table."""
        return "fixed point" if self.iterations is None else f"K = {self.iterations}"

    def kernel(self) -> np.ndarray:
        """A blur that is not symmetric."""
        rows, columns = np.mgrid[-2:3, -2:3]
        kernel = np.exp(-(rows**2 + rows * columns + columns**2) / 3) * (3 + rows - columns / 2)
        return kernel / kernel.sum()

    def photographs(self) -> tuple[np.ndarray, np.ndarray]:
        """(y, target) in [0, 1], (n, h, w, 3)."""
        wide = harness.photograph(self.size + 100, self.size * self.images)[100:] / 255
        target = np.stack(np.split(wide, self.images, axis=1))
        padded = np.zeros((self.size, self.size, 1))
        padded[:5, :5, 0] = self.kernel()
        spectrum = np.fft.fft2(np.roll(padded, (-2, -2), (0, 1)), axes=(0, 1))
        y = np.fft.ifft2(spectrum * np.fft.fft2(target, axes=(1, 2)), axes=(1, 2)).real
        return y + np.random.default_rng(0).normal(0, 0.01, y.shape), target

    def layers(self) -> Layers:
        """Kernels (3, 3, in, out) and biases: random, beside a path that takes a fifth of z away.

        So iterations contract, and have a fixed point.
        """
        rng = np.random.default_rng(1)
        shapes = [(3, 3, a, b) for a, b in ((3, 32), (32, 32), (32, 3))]
        kernels = [rng.normal(0, 0.1 / np.sqrt(9 * shape[2]), shape) for shape in shapes]
        biases = [rng.normal(0, 0.01, shape[3]) for shape in shapes]
        eye = np.eye(3)
        kernels[0][1, 1, :, :3] += eye
        biases[0][:3] += 1  # above zero, where ReLU is linear
        kernels[1][1, 1, :3, :3] += eye
        kernels[2][1, 1, :3] += 0.2 * eye
        biases[2] -= 0.2
        return list(zip(kernels, biases, strict=True))
