import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isrrescnet_jax.prior.window import MARGIN, strip_rows
from isrrescnet_jax.solver.windows import WINDOWS, offers, plan, starts

HALO = 44
sides = st.integers(2, 1200)
kinds = st.sampled_from([4, 32, 100, 512, "auto", None])


def planned(height, width, tile, halo=HALO, turn=True):
    return plan(height, width, halo, offers(halo, tile)[0], turn)


@given(sides, sides, kinds, st.integers(0, 120), st.booleans())
def test_plans_cover_the_image_with_the_halo(height, width, tile, halo, turn):
    p = planned(height, width, tile, halo, turn)
    assert turn or not p.turned
    lengths = (width, height) if p.turned else (height, width)
    best = np.full(lengths, -1)
    for i, ((top, left), (y, x)) in enumerate(p.places):  # as `Windows.residual` writes them
        best[y : top + p.part[0], x : left + p.part[1]] = i
    for i, place in enumerate(p.places):
        for axis, (first, length) in enumerate(zip(place[0], lengths, strict=True)):
            mine = np.flatnonzero(np.any(best == i, axis=1 - axis))
            end = first + p.part[axis]
            assert first >= 0 and end <= length <= p.canvas[axis]
            assert p.part[axis] + 2 * MARGIN <= p.window[axis]
            assert len(mine) and first <= max(mine.min() - halo, 0)
            assert end >= min(mine.max() + 1 + halo, length)
    assert (best >= 0).all()


def work(lengths, strips):
    """Pixels in windows, by those in images."""
    pairs = [(h, w) for h in lengths for w in lengths]
    total = 0
    for pair in pairs:
        p = plan(*pair, HALO, offers(HALO, "auto")[0], True, strips)
        strip = strip_rows(*p.window) if strips else p.window[0]
        total += len(p.places) * -(-p.part[0] // strip) * strip * p.window[1]
    return total / np.prod(pairs, 1).sum()


def test_the_work_is_bounded():
    for strips, small, large in ((True, 1.26, 1.23), (False, 1.58, 1.7)):
        assert work(range(64, 257, 8), strips) <= small
        assert work(range(256, 1025, 32), strips) <= large


@pytest.mark.parametrize(
    ("smallest", "largest", "tile"), [(256, 1024, "auto"), (64, 256, "auto"), (256, 1024, 256)]
)
def test_sizes_share_windows_and_canvases(smallest, largest, tile):
    for seed in range(4):
        sizes = np.random.default_rng(seed).integers(smallest + 8, largest + 1, (50, 2))
        plans = [planned(*size, tile) for size in sizes.tolist()]
        assert len({(p.window, p.canvas, len(p.places) > 16) for p in plans}) <= 4


@pytest.mark.parametrize("side", [64, 128, 256, 512])
def test_liked_sizes_have_windows_of_their_own(side):
    for tile in ("auto", None):
        p = planned(side, side, tile)
        assert p.window == (side + 4, side + 4) and len(p.places) == 1


def test_an_upright_image_is_laid_on_its_side_if_that_is_allowed():
    lying, upright = planned(300, 500, "auto"), planned(500, 300, "auto")
    assert upright.turned and not lying.turned and upright.window == lying.window
    assert not planned(500, 300, "auto", turn=False).turned


def test_less_memory_is_offered_smaller_windows():
    found = offers(HALO, "auto")
    assert len(found) > 4
    areas = [min(np.prod(window) for window in offered[-2:]) for offered in found]
    assert areas == sorted(areas, reverse=True)
    assert all(plan(5000, 5000, HALO, offered) is not None for offered in found)
    assert offers(HALO, None) == (WINDOWS,)
    wide = offers(100, "auto")
    assert all(plan(5000, 5000, 100, offered) is not None for offered in wide)


def test_starts():
    assert [list(a) for a in starts(10, 20, 3)] == [[0], [0]]
    assert [list(a) for a in starts(20, 10, 3)] == [[0, 4, 8, 10], [0, 7, 11, 15]]
