import dataclasses
import json
import os
from unittest import mock

import jax
import jax.numpy as jnp
from jax import lax

from isrrescnet_jax.prior import network

with mock.patch.dict(os.environ):  # where it hides accelerators, for itself alone
    from experiments import tpu_plan


def test_flops_are_those_of_other_platforms_with_loops_unrolled():
    # Wide enough that a CPU would take half of the products.
    x, kernel = jnp.zeros((2, 8, 8, 32)), jnp.zeros((3, 3, 32, 32))
    once = 2 * 2 * 8 * 8 * 9 * 32 * 32

    def flops(f, *args):
        return tpu_plan.count_flops(jax.make_jaxpr(f)(*args).jaxpr)

    def conv(x, kernel):
        return network.conv(x, kernel, 1)

    def loop(x, kernel):
        return lax.scan(lambda x, _: (conv(x, kernel), None), x, length=5)[0]

    assert flops(conv, x, kernel) == once
    assert flops(loop, x, kernel) == 5 * once
    # Back through it: once for the input and once for the kernel.
    assert flops(jax.grad(lambda *a: conv(*a).sum(), (0, 1)), x, kernel) == 3 * once


PROGRAM = """
%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %fusion.1 = f32[8] fusion(%x), backend_config={"estimated_cycles":"7"}
}
%condition (p: (s32[], f32[8])) -> pred[] {
  %constant.1 = s32[] constant(5)
}
ENTRY %main (x: f32[8]) -> f32[8] {
  %while.1 = (s32[], f32[8]) while(%t), condition=%condition, body=%body
  %fusion.2 = f32[8] fusion(%y), backend_config={"estimated_cycles":"100"}
  %all-reduce.1 = (f32[4,2]{1,0}, bf16[3]) all-reduce(%a, %b), channel_id=1
}
"""


def test_programs_are_read_with_their_loops_and_sums():
    assert tpu_plan.estimated_cycles(PROGRAM) == 5 * 7 + 100
    assert tpu_plan.all_reduced(PROGRAM) == 4 * 8 + 2 * 3


def test_rows_are_kept_beside_those_of_other_programs(tmp_path, monkeypatch):
    monkeypatch.setattr(tpu_plan.harness, "version", lambda name: "1")  # libtpu is not needed here
    path = tmp_path / "plan.json"
    first = tpu_plan.Plan("v5e:2x2", 4, 8, "full", 100, 1e12, 10, 4)
    other = dataclasses.replace(first, backward="checkpointed", hbm=50)
    for plan in (first, other, dataclasses.replace(first, hbm=99)):
        tpu_plan.keep(path, plan)
    rows = [tpu_plan.Plan(**row) for row in json.loads(path.read_text())["rows"]]
    assert [(row.backward, row.hbm) for row in rows] == [("checkpointed", 50), ("full", 99)]
    assert "| checkpointed |" in tpu_plan.table(rows)
