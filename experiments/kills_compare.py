"""What two workdirs of the same training run have in common, and what in one is unfinished."""

import json
import os
from pathlib import Path
from typing import Any

# What a clock says of a run; everything else must be the same.
SPEEDS = ("images_per_second", "megapixels_per_second", "share_waiting_for_data")


def differences(a: Path, b: Path) -> list[str]:
    """A line for everything that is not the same; none if the runs ended alike to the bit."""
    found = []
    for what, read in {"weights": weights, "metrics": metrics, "checkpoints": checkpoints}.items():
        one, other = read(a), read(b)
        names = sorted({*one, *other})
        found += [f"{what}: {name}" for name in names if one.get(name) != other.get(name)]
    return found


def timeless(line: dict[str, Any]) -> dict[str, Any]:
    """Numbers without those that a clock made."""
    return {name: value for name, value in line.items() if name not in SPEEDS}


def weights(workdir: Path) -> dict[str, Any]:
    """The parts of the file: bytes, but for the speeds in its metadata."""
    data = (workdir / "weights.safetensors").read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    figures = json.loads(header["__metadata__"].pop("figures"))
    return {"header": header, "figures": timeless(figures), "tensors": data[end:]}


def metrics(workdir: Path) -> dict[str, Any]:
    """The lines, by number."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return {f"line {i}": timeless(json.loads(line)) for i, line in enumerate(lines, 1)}


def checkpoints(workdir: Path) -> dict[str, Any]:
    """Every array as type, shape and bytes, and every text, by step and name."""
    import jax
    import numpy as np
    import orbax.checkpoint as ocp

    found: dict[str, Any] = {}
    for folder in (workdir / "checkpoints").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            with ocp.PyTreeCheckpointer() as reader:
                state = reader.restore(folder.absolute() / "state")
        except Exception as error:  # whatever a part of one may raise
            found[folder.name] = f"cannot be read: {error!r}", workdir
            continue
        for path, value in jax.tree_util.tree_leaves_with_path(state):
            array = np.asarray(value)
            name = f"{folder.name}{jax.tree_util.keystr(path)}"
            found[name] = array.dtype, array.shape, array.tobytes()
        for item in folder.iterdir():
            if item.is_dir() and item.name != "state":
                texts = {path.name: path.read_text() for path in item.iterdir()}
                texts.pop("commit_success.txt", None)  # names the folder
                found[f"{folder.name} {item.name}"] = texts
    return found


def unfinished(workdir: Path) -> list[Path]:
    """Files and folders that do not have their final names, those within such folders apart."""
    found = []
    for here, folders, files in os.walk(workdir):
        for name in [*folders, *files]:
            if name.startswith(".") or "tmp" in name:
                found.append(Path(here, name))
        folders[:] = [name for name in folders if not (name.startswith(".") or "tmp" in name)]
    return found
