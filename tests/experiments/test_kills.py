"""That the campaign of kills notices what it is there for, and a few kills of it."""

import json
import shutil
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import pytest

import isrrescnet_jax as isr
from experiments import kills
from experiments.kills_compare import differences, unfinished


@pytest.fixture
def pair(tmp_path, small):
    """Two workdirs that differ in speeds alone."""
    for name, speed in (("a", 1.0), ("b", 2.0)):
        folder = tmp_path / name
        line = {"step": 2, "loss": 0.5, "images_per_second": speed}
        isr.save_weights(small, folder / "weights.safetensors", {"figures": json.dumps(line)})
        (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
        step = folder / "checkpoints" / "2"
        with ocp.PyTreeCheckpointer() as writer:
            writer.save(step / "state", {"w": np.zeros(3, np.float32), "step": np.int32(2)})
        (step / "data").mkdir()
        (step / "data" / "metadata").write_text('{"next_index": 2}')
    return tmp_path / "a", tmp_path / "b"


def replace(path, old, new):
    data = path.read_bytes()
    assert data.count(old) == 1
    path.write_bytes(data.replace(old, new))


def test_all_that_differs_is_noticed_but_for_speeds(pair):
    a, b = pair
    assert differences(a, b) == [] == unfinished(b)

    replace(b / "metrics.jsonl", b"0.5", b"0.6")
    assert differences(a, b) == ["metrics: line 1"]
    shutil.copy(a / "metrics.jsonl", b)

    data = bytearray((b / "weights.safetensors").read_bytes())
    data[-1] ^= 1
    (b / "weights.safetensors").write_bytes(data)
    assert differences(a, b) == ["weights: tensors"]
    shutil.copy(a / "weights.safetensors", b)

    replace(b / "checkpoints" / "2" / "data" / "metadata", b"2", b"3")
    assert differences(a, b) == ["checkpoints: 2 data"]
    shutil.copytree(a / "checkpoints" / "2", b / "checkpoints" / "2", dirs_exist_ok=True)

    zeros = -np.zeros(3, np.float32)
    with ocp.PyTreeCheckpointer() as writer:
        tree = {"w": zeros, "step": np.int32(2)}
        writer.save(b / "checkpoints" / "2" / "state", tree, force=True)
    assert differences(a, b) == ["checkpoints: 2['w']"]

    (b / "checkpoints" / "2" / "state" / "manifest.ocdbt").unlink()  # as if half removed
    assert "checkpoints: 2" in differences(a, b)
    (b / "checkpoints" / "4.orbax-checkpoint-tmp").mkdir()
    (b / ".metrics.jsonl").touch()
    assert {path.name for path in unfinished(b)} == {".metrics.jsonl", "4.orbax-checkpoint-tmp"}


@pytest.mark.slow
def test_three_kills(tmp_path):
    out = tmp_path / "kills.json"
    campaign = kills.Campaign(("often",), kills=3, steps=60, work=tmp_path / "work", out=out)
    assert kills.main(campaign) == 0
    (row,) = json.loads(out.read_text())["rows"]
    assert row["kills"] == 3 and row["identical"] and row["starts"] >= 4


def test_the_committed_campaign_is_a_hundred_kills_without_a_trace():
    rows = json.loads(Path(kills.__file__).with_name("kills.json").read_text())["rows"]
    assert [row["name"] for row in rows] == list(kills.RUNS)
    assert sum(row["kills"] for row in rows) >= 100
    assert all(row["identical"] and row["left behind"] == [] for row in rows)
    assert sum(row["inside a checkpoint"] for row in rows) >= 25
    assert sum(row["before the first step"] for row in rows) <= 40
    assert sum(row["kills"] for row in rows if row["run"]["processes"] == 2) >= 20
