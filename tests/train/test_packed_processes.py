"""Four processes train from the shards of a bucket, then two go on, then one."""

import json

import numpy as np
import pytest
from conftest import photo
from processes import cluster, finish, start
from training_images import save

from isrrescnet_jax import load_weights, remote
from isrrescnet_jax.data import DataConfig, packing
from isrrescnet_jax.tensors import flatten

RECIPE = """
from isrrescnet_jax import ModelConfig
from isrrescnet_jax.data import DataConfig
from isrrescnet_jax.train import TrainConfig

config = TrainConfig(
    model=ModelConfig(features=4, depth=1, feedback_steps=1, iterations=1, scale=2),
    data=DataConfig(scale=2, patch=32, batch=8, repeats=2),
    backward="full",
    optimizer="sgd",
    learning_rate=1e-4,
    schedule="constant",
    ema_decay=0.0,
    log_every=1,
)
"""


@pytest.fixture
def packed(bucket, tmp_path) -> str:
    """Twelve pictures in eight shards, 48 crops; an epoch is 12 steps."""
    for k, image in enumerate(photo(64, 64, n=12)):
        save(image // (1 + k % 4), tmp_path / "photos" / f"{k}.png")
    config = DataConfig(scale=2, patch=32)
    plan = packing.plan([str(tmp_path / "photos")], config=config, crop=40, shards=8)
    packing.pack(plan, f"{bucket}/{tmp_path.name}")
    (tmp_path / "recipe.py").write_text(RECIPE)
    return f"{bucket}/{tmp_path.name}"


def run(data, folder, workdir, steps, count):
    """So many processes, up to this step; what they said."""
    words = [str(folder / "recipe.py"), "--data", data, "--workdir", str(folder / workdir)]
    words += ["--steps", str(steps)]
    who = cluster(count) if count > 1 else [()]
    return [start([*words, *options], 1, folder / "compiled") for options in who]


def losses(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines}


@pytest.mark.slow
def test_another_number_of_processes_goes_on_in_the_same_order(packed, tmp_path):
    for steps, count in ((5, 4), (10, 2), (14, 1)):
        finish(*run(packed, tmp_path, "several", steps, count))
    finish(*run(packed, tmp_path, "one", 14, 1))
    several, one = losses(tmp_path / "several"), losses(tmp_path / "one")
    assert list(several) == list(one) == list(range(1, 15))
    np.testing.assert_allclose([*several.values()], [*one.values()], rtol=1e-4)
    assert np.std([*one.values()]) > 0.1  # of other batches the loss is another
    a, b = (
        flatten(load_weights(tmp_path / name / "weights.safetensors").params)
        for name in ("several", "one")
    )
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=1e-3, atol=1e-6)


@pytest.mark.slow
def test_a_spoiled_shard_ends_all_processes_with_its_name(packed, tmp_path):
    names = sorted(remote.sizes(packed))
    for name in names:
        content = remote.read(remote.join(packed, name))
        spoiled = content[:200] + bytes([content[200] ^ 1]) + content[201:]
        remote.write(f"{packed}-spoiled/{name}", spoiled if name == names[3] else content)
    processes = run(f"{packed}-spoiled", tmp_path, "w", 12, 4)
    outputs = [process.communicate(timeout=250)[0] for process in processes]
    codes = [process.returncode for process in processes]
    said = [line for output in outputs for line in output.splitlines() if "checksum" in line]
    assert said == [
        f"isrrescnet: {packed}-spoiled/{names[3]}: its checksum does not match: "
        "copy it again, or pack again"
    ]
    assert not any("Traceback" in output for output in outputs)
    assert sorted(codes) == [2, 3, 3, 3]
