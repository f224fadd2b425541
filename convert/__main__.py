"""`python -m convert SRC DST [--verify IMAGE...]`: .pth to .safetensors and back, and to .onnx."""

import dataclasses
import pickle
import sys
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional, arg

from isrrescnet_jax.files import atomic_path
from isrrescnet_jax.messages import counted
from isrrescnet_jax.weights import Weights, load_weights, save_weights

from .names import OFFICIAL, from_torch, to_torch

PYTORCH, JAX, ONNX = (".pth", ".pt"), (".safetensors",), (".onnx",)


@dataclasses.dataclass(frozen=True)
class Convert:
    """Convert weights between the official PyTorch format and safetensors, exact to the bit.

    To .onnx goes the network, compared with ours in onnxruntime before the file is there."""

    src: Positional[Path]
    """A .pth (or .pt) or .safetensors file, or a shipped name (x4)."""
    dst: Positional[Path]
    """The file to write, in the other format or .onnx."""
    feedback_steps: int = 4
    """Feedback steps of the network; a .pth file does not say. The official one has 4."""
    scale: Annotated[int | None, arg(metavar="{2,3,4}")] = None
    """Scale the weights were trained for; a .pth file does not say."""
    overwrite: bool = False
    """Replace DST if it exists."""
    verify: tuple[Path, ...] = ()
    """Low-resolution images on which JAX and PyTorch are compared, iteration by iteration."""
    expect: Path | None = None
    """Folder of published SR images, named like the --verify images, to compare with as well."""

    def run(self) -> int:
        """Convert, then verify; 0, or 1 if the two do not agree."""
        source, target = self.src.suffix.lower(), self.dst.suffix.lower()
        ours = (*JAX, "")  # a shipped name has no suffix
        ways = ((PYTORCH, JAX), (ours, PYTORCH), ((*ours, *PYTORCH), ONNX))
        if not any(source in a and target in b for a, b in ways):
            raise ValueError(
                f"{self.src} -> {self.dst}: one must end in .pth, the other in .safetensors, or "
                "the second in .onnx; a shipped name may be the first for .pth and .onnx"
            )
        if self.dst.exists() and not self.overwrite:
            raise ValueError(f"{self.dst} exists: give --overwrite to replace it")
        if target in ONNX:
            return self._onnx()
        if self.expect is not None and not self.verify:
            raise ValueError("--expect DIR needs --verify IMAGE...")
        published = [] if self.expect is None else [self.expect / p.name for p in self.verify]
        for path in (*[self.src][: bool(source)], *self.verify, *published):
            if not path.exists():
                raise ValueError(f"{path}: no such file")
        weights = self._weights()
        if self.verify and weights.config.scale is None:
            raise ValueError(f"--verify needs --scale: {self.src} names none")
        if source in PYTORCH:
            save_weights(weights, self.dst, {"source": f"converted from {self.src.name}"})
        else:
            save_pth(weights, self.dst)
        config = weights.config
        print(
            f"{self.src} -> {self.dst}: {'RGB' if config.channels == 3 else 'grey'}, "
            f"depth {config.depth}, {config.feedback_steps} feedback steps, "
            f"{counted(config.iterations, 'iteration')}, scale {config.scale or 'not stated'}"
            + (f", {config.physics} physics, step {config.step:g}" if _unofficial(weights) else "")
        )
        if source not in PYTORCH and _unofficial(weights):
            print(
                f"convert: warning: {self.dst} is for {config.physics} physics and step "
                f"{config.step:g}: the official PyTorch code ignores that and runs its own on it",
                file=sys.stderr,
            )
        if not self.verify:
            return 0
        from .verify import verify

        return verify(weights, self.verify, self.expect)

    def _weights(self) -> Weights:
        if self.src.suffix.lower() in PYTORCH:
            return load_pth(self.src, self.feedback_steps, self.scale)
        weights = load_weights(str(self.src))
        if self.scale is None:
            return weights
        return dataclasses.replace(
            weights, config=dataclasses.replace(weights.config, scale=self.scale)
        )

    def _onnx(self) -> int:
        """Write the network, if onnxruntime computes what we do."""
        if self.verify or self.expect:
            raise ValueError("--verify and --expect are for the whole method: not for .onnx")
        _torch()
        from . import to_onnx

        weights = self._weights()
        data = to_onnx.as_onnx(weights)
        apart = to_onnx.disagreement(weights, data)
        if not apart <= to_onnx.GREY_LEVELS:
            print(f"FAIL: {apart:.6f} grey levels between onnxruntime and ours, nothing written")
            return 1
        with atomic_path(self.dst, self.overwrite) as temporary:
            temporary.write_bytes(data)
        said = f"{len(data) / 1e6:.1f} MB, within {apart:.6f} grey levels of ours in onnxruntime"
        print(f"{self.src} -> {self.dst}: {said}")
        return 0


def load_pth(path: Path, feedback_steps: int = 4, scale: int | None = None) -> Weights:
    """Weights of a PyTorch file, read with `weights_only=True`.

    Raises:
        ValueError: unreadable, or not an ISRResCNet checkpoint (see `from_torch`).
        ImportError: PyTorch is not installed.
    """
    torch = _torch()
    if not path.exists():
        raise ValueError(f"{path}: no such file")
    _check_stored(path)
    try:
        with warnings.catch_warnings(action="ignore"):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # whose text advises to switch the protection off
        raise ValueError(
            f"{path}: refused: it holds more than tensors, which could run code, or is damaged"
        ) from None
    except Exception as error:  # torch raises anything from EOFError to KeyError
        raise ValueError(
            f"{path}: damaged, or not a PyTorch weights file ({type(error).__name__})"
        ) from None
    if not isinstance(state, dict):
        raise ValueError(f"{path}: holds a {type(state).__name__}, not a state dict")
    try:
        _check_sizes(state, path.stat().st_size)
        return from_torch(state, feedback_steps, scale)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _check_stored(path: Path) -> None:
    """Raise ValueError if a file would grow as it is read: PyTorch stores without compression."""
    try:
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            grown = [e.filename for e in archive.infolist() if e.compress_type or e.flag_bits & 1]
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError):
        return  # PyTorch has its own words for it
    if grown:
        raise ValueError(f"{path}: {grown[0]} is compressed, which PyTorch does not do: refused")


def _check_sizes(state: Any, size: int) -> None:
    """Raise ValueError if a tensor is larger than the whole file, as one of strides 0 may be."""
    if isinstance(state.get("model_state_dict"), dict):
        state = state["model_state_dict"]
    for name, value in state.items():
        dense = hasattr(value, "numel") and not value.is_sparse
        if dense and value.numel() * value.element_size() > size:
            raise ValueError(f"tensor {name} has more values than the file")


def _unofficial(weights: Weights) -> dict[str, Any]:
    """Physics and step, if they are not both those of the official code; else empty."""
    own = {name: getattr(weights.config, name) for name in OFFICIAL}
    return {} if own == OFFICIAL else own


def save_pth(weights: Weights, path: Path) -> None:
    """Write the official format; the two names of a block's tensor share its storage.

    Physics and step, if they are not those of the official code, stand beside the tensors as
    "physics" and "step". The official code, which knows only its own, ignores them.
    """
    torch = _torch()
    shared: dict[str, Any] = {}
    state = OrderedDict()
    for name, array in to_torch(weights.params).items():
        original = name.replace("model.fbblock.RBs.", "model.resblocks.")
        state[name] = shared.setdefault(original, torch.from_numpy(array.copy()))
    beside = _unofficial(weights)
    if beside:
        beside["step"] = float(beside["step"])
    with atomic_path(path) as temporary:
        torch.save({"model_state_dict": state, **beside}, temporary)


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise ImportError("PyTorch is not installed: pip install '.[convert]'") from None
    return torch


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of `python -m convert`."""
    try:
        sys.exit(tyro.cli(Convert, args=argv, prog="python -m convert").run())
    except (ValueError, OSError, ImportError, MemoryError, RecursionError) as error:
        text = " ".join(str(error).split()) or "memory ran out"
        print(f"convert: {text}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
