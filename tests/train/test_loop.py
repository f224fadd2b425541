"""Whole runs of a tiny network: what they leave behind, and what interrupts them."""

import contextlib
import dataclasses
import itertools
import json
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from conftest import photo
from jax.experimental.compilation_cache import compilation_cache
from PIL import Image
from small_recipe import RECIPE

from isrrescnet_jax import load_weights
from isrrescnet_jax.train import Recipe, TrainConfig, loop, recipe
from isrrescnet_jax.train.loop import train
from isrrescnet_jax.train.start import initial_params
from isrrescnet_jax.weights import load_weights_and_metadata

STEPS = 12


# Compiled programs are kept: every run here, in this process or another, needs the same ones.
COMPILED = {
    "jax_persistent_cache_min_compile_time_secs": 0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with images, a recipe and caches."""
    folder = tmp_path_factory.mktemp("train")
    COMPILED["jax_compilation_cache_dir"] = str(folder / "compiled")
    before = {name: getattr(jax.config, name) for name in COMPILED}
    for name, value in COMPILED.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()  # which was in use, or not, since the first compilation
    for name, count in (("images", 5), ("validation", 2)):
        (folder / name).mkdir()
        for i, image in enumerate(photo(48, 40, n=count)):
            Image.fromarray(image).save(folder / name / f"{i}.png")
    (folder / "recipe.py").write_text(RECIPE)
    yield folder
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture(scope="module")
def config(files) -> TrainConfig:
    base = recipe.load_recipe(str(files / "recipe.py")).config
    data = dataclasses.replace(base.data, hr=str(files / "images"), cache=str(files / "cache"))
    return dataclasses.replace(base, data=data, validation=str(files / "validation"))


@pytest.fixture(scope="module")
def uninterrupted(files, config):
    """A workdir in which a run went through."""
    train(config, files / "uninterrupted")
    return files / "uninterrupted"


def assert_same_weights(workdir, expected):
    a, b = (load_weights(w / "weights.safetensors").params for w in (workdir, expected))
    jax.tree.map(np.testing.assert_array_equal, a, b)


def steps_saved(workdir):
    return sorted(int(p.name) for p in (workdir / "checkpoints").glob("*") if p.name.isdigit())


def board(workdir):
    """(name, kind) of everything in the TensorBoard event files, read by their specification."""
    from tensorboardX.proto.event_pb2 import Event

    found = set()
    for path in (workdir / "tensorboard").iterdir():
        data = path.read_bytes()
        while data:  # length (8), its checksum (4), event, its checksum (4)
            end = 12 + struct.unpack("<Q", data[:8])[0]
            for value in Event.FromString(data[12:end]).summary.value:
                found.add((value.tag, value.WhichOneof("value")))
            data = data[end + 4 :]
    return found


@contextlib.contextmanager
def at_step(step, action):
    """Run `action` when the batch of this step, counted from 1 in this run, has been taken."""
    count = itertools.count(1)
    original = loop.Streams.next

    def hooked(*args):
        batch = original(*args)
        if next(count) == step:
            action()
        return batch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Streams, "next", hooked)
        yield


def stopped_at_step(step):
    """The next run is asked to stop in this step, counted from 1 in this run."""
    return at_step(step, lambda: os.kill(os.getpid(), signal.SIGTERM))


def test_what_a_run_leaves_behind(uninterrupted, config):
    weights, metadata = load_weights_and_metadata(uninterrupted / "weights.safetensors")
    assert weights.config == config.model
    assert json.loads(metadata["training"])["learning_rate"] == config.learning_rate
    assert json.loads(metadata["figures"])["step"] == STEPS
    assert json.loads((uninterrupted / "config.json").read_text())["data"]["patch"] == 32

    lines = [json.loads(s) for s in (uninterrupted / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, STEPS + 1))
    for line in lines:
        if "loss" in line:
            ratio = config.data.patch**2 / 1e6  # every patch has as many pixels
            expected = line["images_per_second"] * ratio
            np.testing.assert_allclose(line["megapixels_per_second"], expected)
            assert 0 <= line["share_waiting_for_data"] <= 1
            assert "model_flop_utilisation" not in line  # of a CPU no peak is known
            assert (line["images"], line["images_left_out"]) == (5, 0)
    scores = {line["step"]: line["validation_psnr"] for line in lines if "validation_psnr" in line}
    assert list(scores) == [5, 10, 12]
    best = max(scores, key=scores.get)
    assert steps_saved(uninterrupted) == sorted({10, 12, best})
    assert {name for name, _ in board(uninterrupted)} >= {"loss", "psnr", "validation_psnr"}
    assert ("lr_sr_hr/0", "image") in board(uninterrupted)


def test_some_steps_are_traced(tmp_path, config):
    train(dataclasses.replace(config, steps=6), tmp_path, profile=2)
    traces = [path.name for path in (tmp_path / "profile").rglob("*") if path.is_file()]
    assert any("perfetto" in name for name in traces) and any("xplane" in name for name in traces)


def test_validation_is_the_psnr_of_the_written_weights(uninterrupted, config):
    from isrrescnet_jax.evaluation import evaluate
    from isrrescnet_jax.upscaler import Upscaler

    upscaler = Upscaler(load_weights(uninterrupted / "weights.safetensors"))
    folder = evaluate.Benchmark(hr=evaluate.Path(config.validation), lr=None, scale=2)
    measured = evaluate.evaluate(folder, upscaler).mean.model["standard"].psnr
    last = json.loads((uninterrupted / "metrics.jsonl").read_text().splitlines()[-1])
    np.testing.assert_allclose(last["validation_psnr"], measured, atol=1e-6)


def test_a_run_that_is_asked_to_stop_saves_and_resumes_to_the_bit(tmp_path, uninterrupted, config):
    with stopped_at_step(7):
        assert train(config, tmp_path) is None
    assert steps_saved(tmp_path)[-1] == 7
    assert train(config, tmp_path) is not None
    assert_same_weights(tmp_path, uninterrupted)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == len((uninterrupted / "metrics.jsonl").read_text().splitlines())


class Crash(Exception):
    """What a killed process does not get to see; tests do without the process."""


def crash():
    raise Crash


def timeless(workdir):
    """The lines of metrics, without speeds."""
    lines = [json.loads(s) for s in (workdir / "metrics.jsonl").read_text().splitlines()]
    names = ("images_per_second", "megapixels_per_second", "share_waiting_for_data")
    return [{k: v for k, v in line.items() if k not in names} for line in lines]


def test_lines_are_means_over_the_same_steps_after_a_crash(tmp_path, config):
    rare = dataclasses.replace(config, steps=6, log_every=5, checkpoint_every=3, validation=None)
    train(rare, tmp_path / "whole")
    with at_step(5, crash), pytest.raises(Crash):
        train(rare, tmp_path / "parts")
    assert steps_saved(tmp_path / "parts") == [3]
    train(rare, tmp_path / "parts")
    assert [line["step"] for line in timeless(tmp_path / "parts")] == [3, 5, 6]
    assert timeless(tmp_path / "parts") == timeless(tmp_path / "whole")


def test_the_clock_on_the_wall_may_jump(tmp_path, uninterrupted, config, monkeypatch):
    """Back a day or ahead a year whenever it is looked at; in training and before it goes on."""
    jumps = itertools.cycle((-86_400, 365 * 86_400))
    wall, wall_ns, there = time.time, time.time_ns, tmp_path / "lock-0.json"
    monkeypatch.setattr(time, "time", lambda: wall() + next(jumps))
    monkeypatch.setattr(time, "time_ns", lambda: wall_ns() + next(jumps) * 10**9)
    with at_step(7, crash), pytest.raises(Crash):
        train(config, tmp_path)
    assert not there.exists()
    gone = {"pid": os.getpid(), "birth": "another boot 1", "token": "", "started": "2999-01-01"}
    there.write_text(json.dumps(gone | {"host": socket.gethostname()}))
    train(config, tmp_path)
    assert not there.exists()
    assert_same_weights(tmp_path, uninterrupted)
    assert timeless(tmp_path) == timeless(uninterrupted)
    for line in map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines()):
        assert 0 < line.get("images_per_second", 1) < 1e5
        assert 0 <= line.get("share_waiting_for_data", 0) <= 1


def test_what_changes_within_a_run_resumes_to_the_bit(tmp_path, config):
    """Muon, two scales, exact physics; all curricula change after the first step.

    The run is stopped before they do, and once more right after.
    """
    model = dataclasses.replace(config.model, features=4, feedback_steps=2)
    varied = TrainConfig(
        model=dataclasses.replace(model, physics="exact", step=2.0),
        data=dataclasses.replace(config.data, patch=12),
        scales=(2, 3),
        steps=4,
        backward="truncated",
        k1=1,
        k2=1,
        curriculum=((0, 1), (1, 2)),
        feedback_curriculum=((0, 1), (1, 2)),
        patch_curriculum=((1, 24),),
        window_curriculum=((1, 2),),
        log_every=1,
        validation=config.validation,
        validate_every=100,
    )
    whole = train(varied, tmp_path / "whole")
    assert whole.config == varied.model
    for saved in (1, 2):
        with stopped_at_step(1):
            assert train(varied, tmp_path / "parts") is None
        assert steps_saved(tmp_path / "parts")[-1] == saved
    train(varied, tmp_path / "parts")
    assert_same_weights(tmp_path / "parts", tmp_path / "whole")

    lines = (tmp_path / "parts" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4, 4]
    assert {"update_ratio_v", "update_ratio_g", "update_ratio_other"} < json.loads(lines[0]).keys()
    scores = json.loads(lines[-1])
    mean = (scores["validation_psnr_x2"] + scores["validation_psnr_x3"]) / 2
    assert scores["validation_psnr"] == pytest.approx(mean, abs=1e-9)
    shown = {name for name, _ in board(tmp_path / "whole")}
    assert {"lr_sr_hr_x2/0", "lr_sr_hr_x3/1"} <= shown


def test_more_steps_and_other_intervals_end_with_the_same_weights(
    tmp_path, uninterrupted, config, capsys
):
    other = {"steps": 7, "log_every": 3, "validate_every": 4, "checkpoint_every": 6, "keep": 1}
    train(dataclasses.replace(config, **other, validation=None), tmp_path)
    assert (tmp_path / "weights.safetensors").exists()
    capsys.readouterr()
    train(config, tmp_path)
    assert_same_weights(tmp_path, uninterrupted)
    assert {"steps was 7, is 12", "log_every was 3, is 1"} < set(
        capsys.readouterr().out.split("\n")
    )
    with pytest.raises(ValueError, match="steps was 12, is 7 .they may only grow.[.] Continue"):
        train(dataclasses.replace(config, steps=7), tmp_path)


def test_a_finished_run_has_nothing_left_to_do(uninterrupted, config):
    train(config, uninterrupted)
    assert steps_saved(uninterrupted)[-1] == STEPS


def test_another_configuration_is_refused_by_the_names_of_its_fields(uninterrupted, config):
    model = dataclasses.replace(config.model, features=4)
    changed = dataclasses.replace(config, model=model, seed=3)
    with pytest.raises(ValueError, match=r"model.features was 8, is 4; seed was 0, is 3"):
        train(changed, uninterrupted)


def dimmed(g, z, sigma, alpha):
    return g * z


def dimming(weights):
    """A prior that is compiled in no time."""
    return jax.tree_util.Partial(dimmed, weights.params["network"]["decoder"]["g"][0])


def test_divergence_stops_the_run_and_names_the_last_good_checkpoint(tmp_path, config):
    # From the tenth step on the learning rate is infinite.
    diverging = dataclasses.replace(
        config, milestones=(8, 9), milestone_factor=1e38, checkpoint_every=4, validate_every=100
    )
    with pytest.raises(FloatingPointError, match=r"not finite in step \d+ \(last one: .*/8\)"):
        train(Recipe(diverging, prior=dimming), tmp_path)
    assert steps_saved(tmp_path)[-1] == 8


def test_a_run_can_begin_with_the_average_of_another(tmp_path, uninterrupted, config):
    expected = load_weights(uninterrupted / "weights.safetensors").params
    found = initial_params(dataclasses.replace(config, init=str(uninterrupted)))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    with pytest.raises(ValueError, match="no checkpoint of a run in this folder"):
        initial_params(dataclasses.replace(config, init=str(tmp_path)))


def test_a_workdir_that_cannot_be_written_is_an_error(tmp_path, config):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        train(config, tmp_path / "file")


def test_a_full_disk_does_not_damage_the_last_checkpoint(tmp_path, uninterrupted, config):
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, unlimited[1]))  # noqa: E731
    try:
        with at_step(7, limit), pytest.raises(OSError) as error:
            train(config, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert "cannot write" in str(error.value) and "\n" not in str(error.value)
    last = steps_saved(tmp_path)[-1]
    assert 4 <= last <= 8
    train(config, tmp_path)
    assert_same_weights(tmp_path, uninterrupted)


# --- the command line, in processes that are killed ---------------------------------------------


def command(files, workdir, *options):
    return [
        *(sys.executable, "-m", "isrrescnet_jax.cli", "train", str(files / "recipe.py")),
        *("--data", str(files / "images"), "--data.cache", str(files / "cache")),
        *("--validation", str(files / "validation"), "--workdir", str(workdir), *options),
    ]


def start(files, workdir, *options):
    environment = os.environ | {name.upper(): str(value) for name, value in COMPILED.items()}
    environment |= {"JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        command(files, workdir, *options),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def kill_when(process, condition):
    while process.poll() is None and not condition():
        time.sleep(0.002)
    process.kill()
    process.communicate()


def finish(process):
    output, _ = process.communicate(timeout=280)
    assert process.returncode == 0, output


def test_a_killed_process_continues_to_the_bit(tmp_path, files, uninterrupted):
    saved = tmp_path / "checkpoints" / "4"
    kill_when(start(files, tmp_path), saved.exists)
    assert not (tmp_path / "weights.safetensors").exists()
    finish(start(files, tmp_path))
    assert_same_weights(tmp_path, uninterrupted)
