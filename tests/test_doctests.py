"""Every public name has an example, and all examples in docstrings are true."""

import doctest
import importlib
import pkgutil

import numpy as np
import pytest

import isrrescnet_jax as isr

MODULES = [m.name for m in pkgutil.walk_packages(isr.__path__, "isrrescnet_jax.")]
FINDER = doctest.DocTestFinder(exclude_empty=True)


@pytest.mark.parametrize("name", [m for m in MODULES if not m.endswith("__main__")])
def test_examples(name):
    if name.endswith("solver.implicit"):
        pytest.importorskip("lineax")
    with np.printoptions(legacy=False):
        assert not doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)[0]


@pytest.mark.parametrize("name", isr.__all__)
def test_public_names_have_an_example(name):
    (test,) = doctest.DocTestFinder(recurse=False).find(getattr(isr, name), name)
    assert test.examples
