"""Batches of several scales and patch sizes, and where they go on."""

import json

import numpy as np
import pytest
from conftest import photo
from PIL import Image

from isrrescnet_jax.data import DataConfig, Streams, train_batches
from isrrescnet_jax.evaluation.degrade import degrade, modcrop

IMAGES = photo(40, 48, n=3)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("streams")
    (folder / "images").mkdir()
    for i, image in enumerate(IMAGES):
        Image.fromarray(image).save(folder / "images" / f"{i}.png")
    paths = {"hr": str(folder / "images"), "cache": str(folder / "cache")}
    return DataConfig(**paths, scale=2, patch=12, batch=2, repeats=4, augment=False)


# Scale and side of the patches of each batch.
PLAN = [(2, 12), (3, 12), (2, 12), (3, 24), (2, 24), (3, 24), (2, 12), (3, 24)]


def take(streams, plan):
    return [streams.next(*pair) for pair in plan]


def assert_same(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x["lr"], y["lr"])
        np.testing.assert_array_equal(x["hr"], y["hr"])


@pytest.fixture(scope="module")
def whole(config):
    streams = Streams(config, (2, 3), (12, 24))
    batches = take(streams, PLAN)
    streams.close()
    return batches


def has(image, patch):
    """Whether a patch is somewhere in an image."""
    views = np.lib.stride_tricks.sliding_window_view(image, patch.shape)
    return bool((views == patch).all((-1, -2, -3)).any())


def test_batches_have_the_scale_and_patch_that_was_asked_for(whole):
    for batch, (scale, patch) in zip(whole, PLAN, strict=True):
        assert batch["hr"].shape == (2, patch, patch, 3)
        assert batch["lr"].shape == (2, patch // scale, patch // scale, 3)
        reduced = [degrade(modcrop(image, scale), scale) for image in IMAGES]
        assert all(any(has(image, lr) for image in reduced) for lr in batch["lr"])


def test_one_scale_and_patch_is_the_stream_it_always_was(config):
    plain, streams = train_batches(config), Streams(config)
    expected = [next(plain) for _ in range(4)]
    assert_same(take(streams, [(2, 12)] * 2), expected[:2])
    # Version 0.1 kept Grain's own state.
    streams.set_state({"next_index": 1})
    assert_same(take(streams, [(2, 12)] * 3), expected[1:])
    streams.close()
    plain.close()


@pytest.mark.parametrize("taken", [0, 1, 4, 7])
def test_a_state_continues_all_streams(whole, config, taken):
    first = Streams(config, (2, 3), (12, 24))
    take(first, PLAN[:taken])
    state = json.loads(json.dumps(first.get_state()))
    first.close()
    second = Streams(config, (2, 3), (12, 24))
    take(second, PLAN[3:6])  # used ones are set back
    second.set_state(state)
    assert_same(take(second, PLAN[taken:]), whole[taken:])
    second.close()


def test_processes_share_every_stream(whole, config):
    halves = [Streams(config, (2, 3), (12, 24), process_index=i, process_count=2) for i in (0, 1)]
    for batch, pair in zip(whole, PLAN, strict=True):
        for i, half in enumerate(halves):
            np.testing.assert_array_equal(half.next(*pair)["hr"], batch["hr"][i::2])
    for half in halves:
        half.close()


def test_the_largest_patch_must_fit_before_the_first_step(config):
    with pytest.raises(ValueError, match="48x40 pixels, smaller than a patch of 42x42"):
        Streams(config, (2, 3), (12, 42))
