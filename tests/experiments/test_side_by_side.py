"""Ours beside others: the same gradients, lines that are code, and what is not installed."""

import importlib.util

import numpy as np
import pytest

from experiments import side_by_side
from experiments.side_by_side_problem import Problem


def found(problem, row):
    """The gradient that a row computes."""
    call, vectors = row.make(problem, **row.options)
    return vectors(call())


def test_plain_loops_have_the_gradient_of_ours(x64):
    problem = Problem(iterations=2, size=9)
    rows = {row.name: row for row in side_by_side.UNROLLED}
    ours = found(problem, rows["ours, Full()"])
    assert [g.dtype for g in ours] == ["float64"] * 7 and len(ours[1]) == 9 * 3 * 32
    for name in ("plain JAX, jit", "plain JAX, jit, scan of checkpoint"):
        assert side_by_side.disagreement(found(problem, rows[name]), ours) < 1e-10, name


def test_disagreement_is_that_of_the_worst_array():
    reference = [np.ones(4), np.full(4, 1e-3)]
    changed = [reference[0], reference[1] * 1.5]
    assert side_by_side.disagreement(changed, reference) == pytest.approx(0.5)


SOURCE = '''
"""A module."""

import os


@decorated(
    1
)
def one(x):
    """Its words.

    On more lines.
    """

    # said
    y = """text

    of three lines"""
    return x + y


class Two:
    """Words."""

    def method(self):
        """Words."""
        return os
'''


def test_lines_are_those_of_code():
    assert side_by_side.count_lines(SOURCE, ["Two"]) == 3
    assert side_by_side.count_lines(SOURCE, ["one"]) == 8
    assert side_by_side.count_lines(SOURCE, ["one", "Two"]) == 11
    with pytest.raises(KeyError, match="three"):
        side_by_side.count_lines(SOURCE, ["three"])


def test_all_rows_have_lines():
    rows = [*side_by_side.UNROLLED, *side_by_side.IMPLICIT, *side_by_side.JACOBIAN_FREE]
    assert all(row.lines() > 10 for row in rows)


def test_what_is_not_installed_is_one_line(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    rows, line = side_by_side.left_out(side_by_side.UNROLLED)
    assert [row.name.split(",")[0] for row in rows] == ["ours"] * 2 + ["plain JAX"] * 4
    assert "deepinv" in line and "\n" not in line
