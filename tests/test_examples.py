"""The examples in the docstrings of solver, physics and analysis run and give what they say."""

import doctest
import importlib

import numpy as np
import pytest

MODULES = [
    "analysis",
    "physics.checks",
    "physics.imaging",
    "physics.noise",
    "physics.operator",
    "solver.acceleration",
    "solver.backward",
    "solver.constraint",
    "solver.implicit",
    "solver.state",
    "solver.unroll",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    if name == "solver.implicit":
        pytest.importorskip("lineax")
    module = importlib.import_module(f"isrrescnet_jax.{name}")
    with np.printoptions(legacy=False):
        failed, tried = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert tried and not failed
