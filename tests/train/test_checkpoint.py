"""What resumes which run, and that of version 0.1."""

import dataclasses
import shutil
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from conftest import GOLDEN, photo
from PIL import Image

from isrrescnet_jax import ModelConfig, load_weights
from isrrescnet_jax.data import DataConfig
from isrrescnet_jax.train import Recipe, TrainConfig, init_state
from isrrescnet_jax.train.checkpoint import Checkpoints, absolute, differences, with_defaults
from isrrescnet_jax.train.loop import train


def test_a_bucket_is_not_taken_for_a_local_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(absolute("gs://bucket/run")) == "gs://bucket/run"
    assert Path(absolute("run")) == tmp_path / "run"
    assert Path(absolute(tmp_path / "run")) == tmp_path / "run"


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 2}}, {}),
        ({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}}, {"b.c": (2, 3)}),
        ({"a": 1}, {"b": 2}, {"a": (1, None), "b": (None, 2)}),
    ],
)
def test_differences_are_named(old, new, changed):
    assert differences(old, new) == changed


def test_fields_that_are_missing_have_their_defaults():
    defaults = {"a": 1, "b": {"c": 2, "d": 3}, "e": {}}
    expected = {"a": 1, "b": {"c": 5, "d": 3}, "e": {}, "z": 9}
    assert with_defaults({"b": {"c": 5}, "z": 9}, defaults) == expected


PARAMS = {"alpha": np.zeros(2, np.float32), "network": {"v": np.ones((1, 1, 2, 3), np.float32)}}
BASE = TrainConfig()


QUIET = {"log_every": 7, "validate_every": 9, "checkpoint_every": 11, "keep": 1}
QUIET |= {"validation": "elsewhere"}


def gentle(config):
    return optax.sgd(config.learning_rate)


def host_state(recipe):
    return jax.device_get(init_state(recipe, PARAMS))


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (Recipe(BASE), Recipe(dataclasses.replace(BASE, seed=3)), ["seed was 0, is 3"]),
        (
            Recipe(BASE),
            Recipe(dataclasses.replace(BASE, optimizer="adam")),
            ["optimizer was muon, is adam", "the optimizer's state is another: 0.count was None"],
        ),
        (Recipe(BASE), Recipe(dataclasses.replace(BASE, **QUIET, seed=3)), ["run.*: seed was 0"]),
        (
            Recipe(BASE),
            Recipe(dataclasses.replace(BASE, steps=9)),
            ["steps .* is 9 .they may only"],
        ),
        # Text counts where there are values, and only there.
        (Recipe(BASE, text="a"), Recipe(BASE, text="b"), None),
        (Recipe(BASE, gentle, text="a"), Recipe(BASE, gentle, text="a"), None),
        (Recipe(BASE, gentle, text="a"), Recipe(BASE, gentle, text="b"), ["another text"]),
        (
            Recipe(BASE, text="a"),
            Recipe(BASE, gentle, text="a"),
            ["another text", "state is another: .* is None .and . more"],
        ),
        # Without text, as in a script of one's own, the structure is all that tells.
        (Recipe(BASE, optax.sgd(1.0)), Recipe(BASE, optax.sgd(2.0)), None),
        (
            Recipe(BASE, optax.sgd(1.0)),
            Recipe(BASE, optax.sgd(1.0, momentum=0.9)),
            [r"another: 0.0.trace.alpha was None, is \(2,\) float32 .and 1 more"],
        ),
    ],
)
def test_only_the_same_recipe_resumes(tmp_path, before, after, words):
    state = host_state(before)
    with Checkpoints(tmp_path, before) as checkpoints:
        checkpoints.save(2, state, {"streams": {"4 128": {"next_index": 2}}})
    with Checkpoints(tmp_path, after) as checkpoints:
        if words is None:
            found, data, changed = checkpoints.restore(host_state(after))
            assert changed == []
            jax.tree.map(np.testing.assert_array_equal, found, state)
            assert data == {"streams": {"4 128": {"next_index": 2}}}
            return
        with pytest.raises(ValueError, match=".*".join(words)) as error:
            checkpoints.restore(host_state(after))
    assert "\n" not in str(error.value)


def test_what_decides_neither_batches_nor_gradients_may_change(tmp_path):
    old = TrainConfig(data=DataConfig(memory=1.0))
    state = host_state(old)
    with Checkpoints(tmp_path, old) as checkpoints:
        checkpoints.save(2, state, {})
    more = dataclasses.replace(old, **QUIET, steps=400_000, data=DataConfig(cache="c"))
    with Checkpoints(tmp_path, more) as checkpoints:
        found, _, changed = checkpoints.restore(host_state(more))
        jax.tree.map(np.testing.assert_array_equal, found, state)
        assert changed == [
            "checkpoint_every was 1000, is 11",
            "data.cache was None, is c",
            "data.memory was 1.0, is 8.0",
            "keep was 3, is 1",
            "log_every was 100, is 7",
            "steps was 300000, is 400000: from here on, the learning rate is that of a run of so "
            "many steps",
            "validate_every was 5000, is 9",
            "validation was None, is elsewhere",
        ]
        # The checkpoint is now that of the new configuration.
        checkpoints.save(3, state, {})
    with Checkpoints(tmp_path, more) as checkpoints:
        assert checkpoints.restore(host_state(more))[2] == []


def test_a_run_of_version_0_1_goes_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("images").mkdir()
    for i, image in enumerate(photo(48, 40, n=3)):
        Image.fromarray(image).save(f"images/{i}.png")
    shutil.copytree(GOLDEN / "checkpoint_0.1" / "3", "run/checkpoints/3")
    config = TrainConfig(
        model=ModelConfig(features=4, depth=1, feedback_steps=1, iterations=2, scale=2),
        data=DataConfig(scale=2, hr="images", patch=32, batch=2, repeats=8),
        steps=6,
        optimizer="amsgrad",
        learning_rate=3e-3,
        schedule="stepped",
        warmup_steps=2,
        curriculum=((0, 1), (4, 2)),
        log_every=1,
        checkpoint_every=3,
        keep=2,
    )
    other = dataclasses.replace(config, optimizer="sgd", log_every=5)
    with pytest.raises(ValueError, match="configuration: optimizer was amsgrad, is sgd. Continue"):
        train(other, "run")
    ours = train(config, "run")
    theirs = load_weights(GOLDEN / "checkpoint_0.1" / "weights.safetensors")
    assert ours.config == theirs.config

    def close(a, b):
        np.testing.assert_allclose(a, b, atol=1e-5)

    jax.tree.map(close, ours.params, theirs.params)
