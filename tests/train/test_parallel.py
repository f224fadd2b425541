"""Many devices and many processes give what one device gives; all on the CPU, all for real."""

import json
import os
import signal
import socket
import time

import jax
import numpy as np
import processes
import pytest
from conftest import photo
from PIL import Image
from processes import finish

from isrrescnet_jax import load_weights
from isrrescnet_jax.tensors import flatten
from isrrescnet_jax.train import learning_rate, parallel, recipe
from isrrescnet_jax.train.loop import train

RECIPE = """
from isrrescnet_jax import ModelConfig
from isrrescnet_jax.data import DataConfig
from isrrescnet_jax.train import TrainConfig

config = TrainConfig(
    model=ModelConfig(features=4, depth=1, feedback_steps=1, iterations=1, scale=2),
    data=DataConfig(scale=2, patch=32, batch=8, repeats=8),
    steps=5,
    backward="full",
    optimizer="sgd",
    learning_rate=1e-4,
    ema_decay=0.0,
    log_every=1,
)
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parallel")
    (folder / "images").mkdir()
    for i, image in enumerate(photo(48, 40, n=5)):
        Image.fromarray(image).save(folder / "images" / f"{i}.png")
    (folder / "recipe.py").write_text(RECIPE)
    return folder


def arguments(files, workdir, *options):
    paths = ("--data", str(files / "images"), "--data.cache", str(files / "cache"))
    return [str(files / "recipe.py"), *paths, "--workdir", str(workdir), *options]


def start(files, workdir, devices, *options):
    return processes.start(arguments(files, workdir, *options), devices, files / "compiled")


def two_processes(files, workdir, *options):
    """Both processes of a run over loopback, with two devices each."""
    return [start(files, workdir, 2, *options, *who) for who in processes.cluster(2)]


def worst_difference(workdir, expected):
    """The largest relative L2 distance of any tensor.

    Biases start at zero, so theirs is that of the sums of their gradients. Nearly all of these
    cancels out, and what order they are summed in shows in the fifth digit.
    """
    a, b = (flatten(load_weights(w / "weights.safetensors").params) for w in (workdir, expected))
    return max(np.linalg.norm(a[k] - b[k]) / np.linalg.norm(b[k]) for k in a if b[k].any())


@pytest.fixture(scope="module")
def one_device(files):
    assert train(recipe.parse(arguments(files, files / "one"))[1], files / "one") is not None
    return files / "one"


def test_eight_devices(files, one_device, tmp_path):
    finish(start(files, tmp_path, 8))
    assert worst_difference(tmp_path, one_device) < 2e-4


@pytest.mark.slow
def test_shard_map(files, one_device, tmp_path):
    finish(start(files, tmp_path, 8, "--strategy", "shard_map"))
    assert worst_difference(tmp_path, one_device) < 2e-4


@pytest.mark.parametrize("strategy", ["pmap", pytest.param("shard_map", marks=pytest.mark.slow)])
def test_two_processes_with_two_devices_each(files, one_device, tmp_path, strategy):
    outputs = finish(*two_processes(files, tmp_path, "--strategy", strategy))
    assert worst_difference(tmp_path, one_device) < 2e-4
    assert "step 5/5" in outputs[0] and "step" not in outputs[1]
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 6))
    assert not list(tmp_path.glob("lock-*"))
    # Both go on, and further than was said at first.
    outputs = finish(*two_processes(files, tmp_path, "--strategy", strategy, "--steps", "6"))
    assert "steps was 5, is 6: from here on" in outputs[0] and "steps" not in outputs[1]
    last = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    longer = learning_rate(recipe.parse(arguments(files, "w", "--steps", "6"))[1].config)
    assert (last["step"], last["learning_rate"]) == (6, pytest.approx(float(longer(5))))


def test_disks_that_are_not_shared_are_found_out(files, tmp_path):
    folder = tmp_path
    both = [
        start(files, folder / f"disk{i}", 2, *who) for i, who in enumerate(processes.cluster(2))
    ]
    outputs = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [2, 2]
    for output in outputs:
        lines = [line for line in output.splitlines() if line.startswith("isrrescnet")]
        assert len(lines) == 1 and "Traceback" not in output
        assert f"does not see in {folder / 'disk1'} what process 0 on " in lines[0]
        assert f"wrote in {folder / 'disk0'}: give a --workdir that all hosts share" in lines[0]


def test_one_that_never_comes_is_not_waited_for(files, tmp_path):
    cluster = ("--coordinator", "localhost:1", "--processes", "2", "--process-id", "1")
    process = start(files, tmp_path, 1, *cluster, "--wait", "2")
    output = process.communicate(timeout=100)[0]
    expected = "isrrescnet: no process 0 came at localhost:1 in 2 s: start all, or raise --wait\n"
    assert (process.returncode, output) == (2, expected)


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_the_others_say_which_process_was_lost(files, tmp_path, killed):
    many = ("--steps", "3000", "--validate-every", "100000", "--checkpoint-every", "2")
    both = two_processes(files, tmp_path, *many, "--lost-after", "5")
    lines = tmp_path / "metrics.jsonl"
    while not (lines.exists() and len(lines.read_text().splitlines()) >= 6):
        assert all(process.poll() is None for process in both), finish(*both)
        time.sleep(0.05)
    os.kill(json.loads((tmp_path / f"lock-{killed}.json").read_text())["pid"], signal.SIGKILL)
    began = time.monotonic()
    outputs = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [3, 3]
    assert time.monotonic() - began < 30
    said = [line for line in outputs[1 - killed].splitlines() if "isrrescnet" in line]
    assert len(said) == 1 and "Traceback" not in outputs[1 - killed]
    assert f"process {killed} on " in said[0] and "is lost, at step " in said[0]
    assert f"last checkpoint: {tmp_path}/checkpoints/" in said[0]
    assert "of SIGKILL" in outputs[killed]


@pytest.mark.slow
def test_adam_reaches(files, tmp_path):
    # Its first steps are g / |g|: where a gradient is rounding noise they take its sign.
    for name, devices in (("one", 1), ("eight", 8)):
        finish(start(files, tmp_path / name, devices, "--optimizer", "amsgrad"))
    assert worst_difference(tmp_path / "eight", tmp_path / "one") < 1e-2


@pytest.mark.slow
def test_preemption_of_one_process_stops_both_at_one_step_and_one_device_goes_on(
    files, one_device, tmp_path
):
    many = ("--steps", "3000", "--validate-every", "100000", "--checkpoint-every", "100000")
    both = two_processes(files, tmp_path, *many)
    lines = tmp_path / "metrics.jsonl"
    while not (lines.exists() and len(lines.read_text().splitlines()) >= 3):
        assert all(process.poll() is None for process in both), finish(*both)
        time.sleep(0.05)
    both[1].send_signal(signal.SIGTERM)
    outputs = finish(*both)
    assert "stopped and saved" in outputs[0]
    (saved,) = [int(p.name) for p in (tmp_path / "checkpoints").iterdir()]
    assert 3 <= saved < 3000
    # Another number of processes and devices takes over.
    alone = start(files, tmp_path, 1, *many)
    while len(lines.read_text().splitlines()) < saved + 3:
        assert alone.poll() is None, finish(alone)
        time.sleep(0.05)
    alone.send_signal(signal.SIGTERM)
    finish(alone)
    steps = [json.loads(line)["step"] for line in lines.read_text().splitlines()]
    assert steps == list(range(1, len(steps) + 1))


@pytest.mark.parametrize("strategy", [parallel.Pmap, parallel.ShardMap])
def test_a_state_goes_in_as_it_comes_out(strategy):
    # Otherwise the step would be compiled twice.
    devices = strategy()
    state = devices.replicate({"a": np.arange(3.0, dtype=np.float32)})
    step = devices.compile(lambda state, batch: ({"a": state["a"] + 1}, {"m": batch.mean()}))
    before = state["a"].sharding
    state, _ = step(state, devices.shard(np.ones((8, 2), np.float32)))
    assert state["a"].sharding == before
    np.testing.assert_array_equal(devices.gather(state)["a"], [1, 2, 3])


def test_a_batch_that_cannot_be_split_is_an_error():
    devices = jax.local_device_count()
    with pytest.raises(ValueError, match="cannot be split over"):
        parallel._parts({"lr": np.zeros((devices + 1, 2))}, devices + 2)


def test_half_a_cluster_is_an_error():
    with pytest.raises(ValueError, match="coordinator, processes and process_id"):
        parallel.initialize(coordinator="localhost:1234")


@pytest.mark.parametrize(
    ("coordinator", "process_id", "words"),
    [
        ("localhost", 0, "coordinator must be HOST:PORT, such as localhost:1234, not localhost"),
        ("localhost:", 1, "HOST:PORT"),
        (":1234", 1, "HOST:PORT"),
        ("localhost:99999", 1, "HOST:PORT"),
        ("localhost:1234", 2, "process_id 2 is not among 0 to 1"),
        ("localhost:1234", -1, "process_id -1 is not among 0 to 1"),
    ],
)
def test_coordinators_that_cannot_be(coordinator, process_id, words):
    with pytest.raises(ValueError, match=words):
        parallel.initialize(coordinator, 2, process_id)


@pytest.mark.parametrize("host", ["127.0.0.1", ""])
def test_a_port_that_is_taken_is_an_error_of_process_0(host, monkeypatch):
    joined = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *args, **_: joined.append(args))
    with socket.create_server((host, 0)) as server:
        address = f"localhost:{server.getsockname()[1]}"
        with pytest.raises(ValueError, match=f"coordinator {address}: Address already in use"):
            parallel.initialize(address, 2, 0)
        parallel.initialize(address, 2, 1)  # for which it is to be taken
    parallel.initialize(address, 2, 0)
    assert [process for _, _, process in joined] == [1, 0]
