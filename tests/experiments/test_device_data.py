"""Training pairs made on the device are those that the commands make."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import photo
from PIL import Image

from experiments import device_data
from isrrescnet_jax.evaluation.degrade import degrade


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    for i, (h, w) in enumerate([(60, 48), (20, 90), (48, 70)]):
        Image.fromarray(photo(h, w, seed=i)[0]).save(folder / f"{i}.png")
    return device_data.load(folder, 16)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_pair_is_what_degrade_makes_of_the_whole(scale):
    side = 24 + 2 * device_data.margin(scale)
    whole = photo(side + 5 * scale, side + 3 * scale)[0]
    patch = whole[2 * scale : 2 * scale + side, scale : scale + side]
    lr, hr = device_data.pair(jnp.float32(patch[None]), scale)
    m = device_data.margin(scale)
    np.testing.assert_array_equal(hr[0], patch[m:-m, m:-m])
    rows, columns = slice(4, 4 + 24 // scale), slice(3, 3 + 24 // scale)
    np.testing.assert_array_equal(lr[0], degrade(whole, scale)[rows, columns])


def test_patches_are_pieces_of_photographs_that_are_large_enough(photographs):
    drawn = np.asarray(device_data.patches(photographs, jax.random.key(0), 40, 30))
    pixels, found = np.asarray(photographs.pixels), set()
    for patch in drawn:
        variants = [np.rot90(p, k) for p in (patch, patch[::-1]) for k in range(4)]
        places = [
            i
            for i in (0, 2)  # the other one is only 20 pixels high
            if any(contains(pixels, photographs, i, variant) for variant in variants)
        ]
        assert len(places) == 1
        found.update(places)
    assert found == {0, 2}


def contains(pixels, photographs, i, patch):
    """Whether photograph i has this patch somewhere."""
    h, w, start = (int(a[i]) for a in (photographs.height, photographs.width, photographs.start))
    image = pixels[start : start + h * w].reshape(h, w, 3)
    windows = np.lib.stride_tricks.sliding_window_view(image, patch.shape[:2], (0, 1))
    corner = np.all(windows[:, :, :, 0, 0] == patch[0, 0], axis=-1)
    return any(
        np.array_equal(windows[r, c].transpose(1, 2, 0), patch) for r, c in np.argwhere(corner)
    )
