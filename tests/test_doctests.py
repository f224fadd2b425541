"""Every public name has an example, and it is true."""

import doctest

import pytest

import isrrescnet_jax as isr
from isrrescnet_jax.representation import short


def run(value, name):
    (test,) = doctest.DocTestFinder(recurse=False).find(value, name, globs={"short": short})
    assert test.examples, f"{name} has no example"
    report = []
    failed = doctest.DocTestRunner().run(test, out=report.append).failed
    assert not failed, "".join(report)


@pytest.mark.parametrize("name", isr.__all__)
def test_public_names(name):
    run(getattr(isr, name), name)


def test_representation():
    run(short, "short")
