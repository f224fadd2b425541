"""Weights files and the files of a run, for `fuzz.py`: how they are made, spoiled and read."""

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import torch

import isrrescnet_jax as isr
from convert.__main__ import main as convert
from isrrescnet_jax.data import DataConfig
from isrrescnet_jax.messages import one_line
from isrrescnet_jax.train import TrainConfig, init_state
from isrrescnet_jax.train.checkpoint import Checkpoints
from isrrescnet_jax.train.report import Report
from isrrescnet_jax.train.start import fresh_params

from .fuzz import exit_code

MODEL = isr.ModelConfig(features=4, depth=1, feedback_steps=1, iterations=2, scale=2)
RECIPE = TrainConfig(model=MODEL, data=DataConfig(scale=2, patch=32), steps=4)
STATE: dict[str, Any] = {}  # of this process: where whole files are, and the shapes of a state


class Payload:
    """Makes a folder where it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("ran",)


def make(folder: Path) -> None:
    """Whole files, below `folder`."""
    for kind in ("safetensors", "pth", "checkpoint"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    weights = isr.init_weights(MODEL, jax.random.key(0))
    whole = folder / "safetensors" / "w.safetensors"
    isr.save_weights(weights, whole, {"training": "none", "figures": "{}"})
    assert exit_code(convert, [str(whole), str(folder / "pth" / "zip.pth"), "--overwrite"]) == 0
    content = torch.load(folder / "pth" / "zip.pth", weights_only=True)
    old = folder / "pth" / "old.pth"
    torch.save(content, old, _use_new_zipfile_serialization=False)
    for name, new in (("code.pth", True), ("old code.pth", False)):
        more = content | {"more": Payload()}
        torch.save(more, folder / "pth" / name, _use_new_zipfile_serialization=new)
    state = init_state(RECIPE, fresh_params(RECIPE))
    with Checkpoints(folder / "checkpoint", RECIPE) as checkpoints:
        checkpoints.save(2, jax.tree.map(jax.device_get, state), {"streams": {}}, psnr=30.0)
    (folder / "checkpoint" / "metrics.jsonl").write_text('{"step": 1, "loss": 2.5}\n' * 2)


def start(folder: Path) -> None:
    """What an idle process has done: backends are there, shapes known, one of each was read."""
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # as `run_recipe` does
    STATE["files"] = folder / "files"
    fresh = jax.eval_shape(lambda: fresh_params(RECIPE))
    STATE["shapes"] = jax.eval_shape(lambda params: init_state(RECIPE, params), fresh)
    isr.load_weights(folder / "files" / "safetensors" / "w.safetensors")


def run(case: Any, data: bytes, folder: Path) -> tuple[int, Callable[[], bool]]:
    """Exit code, and whether the result is right."""
    os.chdir(folder)
    if case.kind == "checkpoint":
        shutil.copytree(STATE["files"] / "checkpoint", folder, dirs_exist_ok=True)
        (folder / case.name).write_bytes(data)
        return exit_code(_resume, [str(folder)]), lambda: True
    source = folder / f"w.{case.kind}"
    target = folder / f"out.{'pth' if case.kind == 'safetensors' else 'safetensors'}"
    source.write_bytes(data)
    return exit_code(convert, [str(source), str(target)]), lambda: _same_shapes(target)


def _resume(argv: list[str]) -> None:
    """As a run begins that finds a checkpoint, with the last words of `cli.main`."""
    workdir = argv[0]
    try:
        with Checkpoints(workdir, RECIPE) as checkpoints:
            if checkpoints.latest() is not None:
                checkpoints.restore(STATE["shapes"])
        with Report(checkpoints.folder.parent, 2, RECIPE.steps, 4):
            pass
    except (ValueError, OSError) as error:
        os.write(2, f"isrrescnet: {one_line(error)}\n".encode())
        raise SystemExit(2) from None


def _same_shapes(target: Path) -> bool:
    if target.suffix == ".pth":
        content = torch.load(target, weights_only=True)["model_state_dict"]
        return all(torch.isfinite(value).all() for value in content.values())
    found = isr.load_weights(target)
    expected = isr.init_weights(found.config, jax.random.key(0))
    return jax.tree.map(jax.numpy.shape, found) == jax.tree.map(jax.numpy.shape, expected)
