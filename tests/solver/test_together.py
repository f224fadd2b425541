import numpy as np
import pytest
from conftest import exact, photo
from hypothesis import given, settings
from hypothesis import strategies as st
from solver.test_canvas import OPERATORS, Own

import isrrescnet_jax as isr
from isrrescnet_jax.solver.canvas import Canvas
from isrrescnet_jax.solver.together import bucket, iterate_each, most, together


def pictures(*sizes):
    return [photo(h, w, seed=i)[0].astype(np.float32) for i, (h, w) in enumerate(sizes)]


def agree(canvas, images, wanted):
    found = together(canvas, images, wanted)
    expected = [canvas(image).image for image in images]
    assert [a.shape for a in found] == [a.shape for a in expected]
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=0.001)
    rounded = [np.concatenate([np.rint(a).ravel() for a in x]) for x in (found, expected)]
    assert np.mean(np.not_equal(*rounded)) <= max(1e-4, 3 / rounded[0].size)


MIXED = pictures((9, 14), (14, 9), (8, 8), (60, 11), (9, 14), (90, 70), (3, 2), (11, 60), (1, 1))


# As in the tests of canvases, all combinations are among those that are drawn below.
@pytest.mark.parametrize("operator, physics", [*zip(OPERATORS, 3 * ["exact", "own"], strict=True)])
def test_each_picture_is_what_it_is_alone(small, operator, physics):
    weights = exact(small) if physics == "exact" else small
    agree(Canvas(weights, operator), MIXED, 4)


def test_as_on_an_accelerator(small, monkeypatch):
    monkeypatch.setattr(Canvas, "strips", False)
    agree(Canvas(small, isr.Bicubic(4)), MIXED, 4)
    canvas = Canvas(small, isr.Bicubic(4))
    assert most(canvas, canvas.plan(60, 60), None) > 64


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(OPERATORS),
    st.booleans(),
    st.integers(2, 8),
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=9),
)
def test_whatever_they_are(small, operator, is_exact, wanted, sizes):
    agree(Canvas(exact(small) if is_exact else small, operator), pictures(*sizes), wanted)


def test_noise_levels_are_their_own_and_grey_is_apart(small):
    images = pictures((9, 14), (9, 14))
    noisy = images[1] + np.random.default_rng(0).normal(0, 20, images[1].shape)
    agree(Canvas(small, isr.Bicubic(2)), [images[0], noisy], 2)
    agree(Canvas(small, isr.Bicubic(2), noise=3.0, iterations=2), [images[0], noisy], 2)


def test_programs_are_for_buckets_and_powers_of_two(small):
    canvas = Canvas(small, isr.Bicubic(3), noise=2.0)
    images = pictures(*[(6 + i, 15 - i) for i in range(10)])  # of one bucket
    assert len({bucket(canvas.plan(3 * i.shape[0], 3 * i.shape[1])) for i in images}) == 1
    iterate_each.clear_cache()
    together(canvas, images, 4)
    assert iterate_each._cache_size() == 2  # two fours, and the two that are left over
    together(canvas, images[:7], 4)
    assert iterate_each._cache_size() == 2  # four and two; the last as if there were no others
    together(canvas, images[3:5], 2)
    assert iterate_each._cache_size() == 2


def test_how_many(small):
    canvas = Canvas(small, isr.Bicubic(4))
    plan = canvas.plan(100, 100)
    assert most(canvas, plan, None) == 1  # a CPU
    assert [most(canvas, plan, n) for n in (1, 2, 3, 7, 8)] == [1, 2, 2, 4, 8]
    several = Canvas(small, isr.Bicubic(4), tile=48).plan(400, 400)
    assert len(several.places) > 1 and most(canvas, several, 8) == 1
    assert most(Canvas(small, Own()), plan, 8) == 1
    tight = Canvas(small, isr.Bicubic(4), max_memory=40 * 2**20)
    assert most(tight, tight.plan(100, 100), 1000) < 64
