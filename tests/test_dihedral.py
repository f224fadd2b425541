import numpy as np
import pytest

from isrrescnet_jax import dihedral


def test_the_variants_are_the_symmetry_group_of_the_square():
    square = np.arange(9).reshape(3, 3)
    expected = {np.rot90(x, k).tobytes() for x in (square, square.T) for k in range(4)}
    assert {dihedral.turn(square, v).tobytes() for v in dihedral.VARIANTS} == expected


@pytest.mark.parametrize("variant", dihedral.VARIANTS)
def test_turning_back_undoes_it(variant):
    image = np.random.default_rng(0).normal(size=(3, 5, 2))
    turned = dihedral.turn(image, variant)
    assert turned.shape == ((5, 3, 2) if variant & 4 else (3, 5, 2))
    np.testing.assert_array_equal(dihedral.turn_back(turned, variant), image)


def test_the_numbers_are_what_training_relies_on():
    image = np.arange(6).reshape(2, 3)
    np.testing.assert_array_equal(dihedral.turn(image, 1), image[::-1])
    np.testing.assert_array_equal(dihedral.turn(image, 2), image[:, ::-1])
    np.testing.assert_array_equal(dihedral.turn(image, 4), image.T)
    np.testing.assert_array_equal(dihedral.turn(image, 7), image[::-1, ::-1].T)
