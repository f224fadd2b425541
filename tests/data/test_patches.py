import collections

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from training_images import blocks, labelled

from isrrescnet_jax.data import random_patch


@given(
    scale=st.sampled_from([2, 3, 4]),
    h=st.integers(5, 12),
    w=st.integers(5, 12),
    augment=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=50)
def test_patches_are_aligned(scale, h, w, augment, seed):
    lr = labelled(7, h, w)
    rng = np.random.default_rng(seed)
    pair = {"lr": lr, "hr": blocks(lr, scale)}
    patch = random_patch(pair, rng, patch=5 * scale, scale=scale, augment=augment)
    assert patch["lr"].shape == (5, 5, 3)
    np.testing.assert_array_equal(patch["hr"], blocks(patch["lr"], scale))
    if not augment:
        _, i, j = patch["lr"][0, 0]
        np.testing.assert_array_equal(patch["lr"], lr[i : i + 5, j : j + 5])


def test_every_place_and_every_variant_is_drawn():
    lr = labelled(0, 6, 7)
    pair = {"lr": lr, "hr": blocks(lr, 2)}
    rng = np.random.default_rng(0)
    draw = lambda augment: random_patch(pair, rng, patch=8, scale=2, augment=augment)["lr"]  # noqa: E731
    corners = collections.Counter(tuple(draw(False)[0, 0, 1:].tolist()) for _ in range(600))
    assert set(corners) == {(i, j) for i in range(3) for j in range(4)}
    assert min(corners.values()) > 20  # 50 expected, 7 standard deviation
    everywhere = [draw(True).tobytes() for _ in range(2000)]
    assert len(set(everywhere)) == 3 * 4 * 8
