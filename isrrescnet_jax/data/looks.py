"""What is odd about training images that can be used: twice there, or of a benchmark."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator, Sequence
from importlib import resources

import numpy as np
from jaxtyping import UInt8

_ALIKE = 0.5  # correlation, below which two images hardly show the same
_CROPS = (1, 2, 3, 4, 12)  # scales to whose multiples benchmark images are cut


@dataclasses.dataclass(frozen=True)
class Look:
    """What one look at a pair tells.

    Attributes:
        digest: of the high-resolution pixels.
        alike: whether the two images show the same.
    """

    digest: str
    alike: bool = True


def look(pair: dict[str, np.ndarray]) -> Look:
    """At a pair as it is trained on."""
    return Look(digest(pair["hr"]), alike(pair["hr"], pair["lr"]))


def digest(hr: UInt8[np.ndarray, "h w 3"]) -> str:
    """Of pixels and shape, whatever file they came from."""
    found = hashlib.blake2b(str(hr.shape).encode(), digest_size=12)
    found.update(np.ascontiguousarray(hr).data)
    return found.hexdigest()


def alike(hr: UInt8[np.ndarray, "H W 3"], lr: UInt8[np.ndarray, "h w 3"]) -> bool:
    """Whether an image correlates with the means of another's blocks; flat ones always do."""
    (h, w), s = lr.shape[:2], hr.shape[0] // lr.shape[0]
    high = hr[..., 1].reshape(h, s, w, s).mean((1, 3), dtype=np.float32)
    low = lr[..., 1].astype(np.float32)
    high, low = high - high.mean(), low - low.mean()
    energy = float(np.sqrt(np.sum(high**2) * np.sum(low**2)))
    return energy < h * w or float(np.sum(high * low)) > _ALIKE * energy


def remarks(names: Sequence[str], looks: Sequence[Look]) -> dict[str, list[str]]:
    """A line for each image that is odd, by what it is: "twice", "of_benchmarks", "unlike_lr"."""
    first: dict[str, str] = {}
    found: dict[str, list[str]] = {"twice": [], "of_benchmarks": [], "unlike_lr": []}
    for name, seen in zip(names, looks, strict=True):
        if (other := first.setdefault(seen.digest, name)) != name:
            found["twice"].append(f"{name}: the same pixels as {other}, which count twice")
        if benchmark := benchmarks().get(seen.digest):
            line = f"{name}: this is {benchmark}: what is trained on it must not be measured on it"
            found["of_benchmarks"].append(line)
        if not seen.alike:
            found["unlike_lr"].append(f"{name}: its LR image hardly shows the same")
    return found


@functools.cache
def benchmarks() -> dict[str, str]:
    """Names of Set5 and Set14, by the digests of `experiments/benchmark_hashes.py`."""
    file = resources.files("isrrescnet_jax") / "assets" / "benchmarks.json"
    named = json.loads(file.read_text())
    return {digest: name for name, digests in named.items() for digest in digests}


def crops(hr: UInt8[np.ndarray, "h w 3"]) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """An image as benchmarks have it, and as training then cuts it, for every scale."""
    sizes = {
        tuple(n // first * first // then * then for n in hr.shape[:2])
        for first in _CROPS
        for then in _CROPS[:4]
    }
    yield from (hr[:h, :w] for h, w in sorted(sizes))
