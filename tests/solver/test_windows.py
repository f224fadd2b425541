import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from isrrescnet_jax.solver.windows import SIDES, plan, window_side, window_starts

HALO = 44
sides = st.integers(2, 1200)


@given(sides, sides, st.sampled_from([4, 32, 100, 512, None]))
def test_plans_cover_the_image_with_the_halo(height, width, tile):
    p = plan(height, width, HALO, tile)
    rows = {(part[0], own[0]) for part, own in p.places}
    columns = {(part[1], own[1]) for part, own in p.places}
    assert p.side <= max(window_side(tile or max(height, width), HALO), *SIDES[:1]) or tile is None
    for length, part, own, starts in (
        (height, p.part[0], p.tile[0], rows),
        (width, p.part[1], p.tile[1], columns),
    ):
        covered = np.zeros(length, bool)
        for first, start in starts:
            covered[start : start + own] = True
            assert 0 <= first <= first + part <= length <= p.canvas and part + 4 <= p.side
            assert first <= max(start - HALO, 0)
            assert first + part >= min(start + own + HALO, length)
        assert covered.all()


@given(st.integers(64, 1024), st.integers(64, 1024))
def test_the_work_is_bounded(height, width):
    p = plan(height, width, HALO, None)
    longer, shorter = max(height, width), min(height, width)
    assert len(p.places) * p.side**2 <= 1.5**2 * (longer + 4) * max(shorter + 4, longer / 2 + 4)


def test_sizes_share_windows_and_canvases():
    lengths = range(256, 1025, 16)
    shapes = {(p.side, p.canvas) for h in lengths for w in lengths for p in [plan(h, w, 44, None)]}
    assert len(shapes) <= 5
    shapes = {(p.side, p.canvas) for h in lengths for w in lengths for p in [plan(h, w, 44, 256)]}
    assert len(shapes) <= 4


def test_window_starts_of_short_axes():
    length, starts, tiles = window_starts(10, 20, 3)
    assert (length, list(starts), list(tiles)) == (10, [0], [0])
