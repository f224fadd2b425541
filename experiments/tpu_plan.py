"""What a training step would need and cost on TPU slices, compiled without a TPU.

    pip install "libtpu==0.0.42.*"
    python experiments/tpu_plan.py [--recipe experiments/x4.py] [--slices v5e:2x2 v5p:2x2x1 ...]

The ahead-of-time compiler of libtpu compiles the real step, with its all-reduce, for each slice.
HBM and the bytes all-reduced are facts of the compiled program; FLOPs are those of convolutions and
matrix products, counted in the traced step. The step time is an *estimate*: the cycles that the
compiler expects of every operation, times the iterations of the loop it is in, then the all-reduce
at the rate of the chip's links, not overlapped. No TPU ran.
"""

import dataclasses
import functools
import math
import os
import re
from typing import Annotated

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# The compiler would look for the metadata server of a cloud machine.
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import tyro
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec

from isrrescnet_jax.train import TrainConfig, init_state, train_step
from isrrescnet_jax.train.loop import fresh_weights
from isrrescnet_jax.train.parallel import AXIS, ShardMap
from isrrescnet_jax.train.recipe import load_recipe

SLICES = (
    *("v5e:2x2", "v5e:4x4", "v5e:8x8", "v5e:16x16"),
    *("v6e:2x2", "v6e:4x4", "v6e:8x8", "v6e:16x16"),
    *("v5p:2x2x1", "v5p:2x2x4", "v5p:4x4x4", "v5p:4x8x8"),
)


@dataclasses.dataclass(frozen=True)
class Chip:
    """Figures of one chip, as Google publishes them (Cloud TPU documentation).

    Attributes:
        hbm: bytes of memory.
        links: bytes per second over all links to other chips together.
        clock: cycles per second, from the published peak rate and the size of the matrix units.
    """

    hbm: float
    links: float
    clock: float


CHIPS = {
    "v5e": Chip(16 * 2**30, 200e9, 1.5e9),
    "v6e": Chip(32 * 2**30, 448e9, 1.75e9),
    "v5p": Chip(95 * 2**30, 600e9, 1.75e9),
}


@dataclasses.dataclass(frozen=True)
class Plan:
    """One slice and per-chip batch.

    Attributes:
        slice: name of the slice.
        chips: how many it has.
        batch: images per chip.
        hbm: bytes of one chip's memory that the program needs.
        flops: of convolutions and products, per chip and step.
        cycles: that the compiler expects, per chip and step.
        reduced: bytes that every chip hands to the all-reduce.
    """

    slice: str
    chips: int
    batch: int
    hbm: int
    flops: float
    cycles: int
    reduced: int

    @property
    def chip(self) -> Chip:
        return CHIPS[self.slice.split(":")[0]]

    @property
    def compute_seconds(self) -> float:
        """Estimate, without the all-reduce."""
        return self.cycles / self.chip.clock

    @property
    def reduce_seconds(self) -> float:
        """Estimate of a ring all-reduce: 2 (n - 1) / n of the bytes over the links."""
        return 2 * (self.chips - 1) / self.chips * self.reduced / self.chip.links

    @property
    def efficiency(self) -> float:
        """Estimate: step time without, by step time with the all-reduce."""
        return self.compute_seconds / (self.compute_seconds + self.reduce_seconds)


# --- reading programs -----------------------------------------------------------------------------


def count_flops(jaxpr: jax.extend.core.Jaxpr) -> float:
    """2 x multiply-adds of the convolutions and products of a traced function, loops unrolled.

    (XLA's own count takes the body of a loop once.)
    """
    total = 0.0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            outputs = kernel[params["dimension_numbers"].rhs_spec[0]]
            total += 2 * equation.outvars[0].aval.size * np.prod(kernel) / outputs
        elif name == "dot_general":
            (contracted, _), _ = params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            depth = np.prod([left[axis] for axis in contracted])
            total += 2 * equation.outvars[0].aval.size * depth
        elif name == "cond":  # the platforms' ways to do the same; some hold what is not used
            total += min(count_flops(branch.jaxpr) for branch in params["branches"])
        else:
            inner = jax.tree.leaves(params, is_leaf=_is_jaxpr)
            inner = [getattr(j, "jaxpr", j) for j in inner if _is_jaxpr(j)]
            total += params.get("length", 1) * sum(map(count_flops, inner))
    return total


def _is_jaxpr(value) -> bool:
    return isinstance(value, jax.extend.core.Jaxpr | jax.extend.core.ClosedJaxpr)


_BYTES = {"f32": 4, "bf16": 2, "s32": 4, "pred": 1, "u8": 1}


def all_reduced(program: str) -> int:
    """Bytes of the results of all all-reduces in the text of a compiled program."""
    total = 0
    for shapes in re.findall(r"= (.*?) all-reduce(?:-start)?\(", program):
        for kind, sides in re.findall(r"(\w+)\[([\d,]*)\]", shapes):
            if kind in _BYTES:
                total += _BYTES[kind] * math.prod(int(n) for n in sides.split(",") if n)
    return total


def estimated_cycles(program: str) -> int:
    """The compiler's estimates for all operations of a compiled program, loops unrolled."""
    bodies: dict[str, list[str]] = {}
    for line in program.splitlines():
        if opening := re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line):
            lines = bodies["ENTRY" if opening[1] else opening[2]] = []
        elif bodies:
            lines.append(line)

    @functools.cache
    def cycles(name: str) -> int:
        total = 0
        for line in bodies[name]:
            if loop := re.search(r" while\(.*condition=%([\w.\-]+), body=%([\w.\-]+)", line):
                # Loops of `scan` count up to a constant.
                limits = re.findall(r"s32\[\]\S* constant\((\d+)\)", "\n".join(bodies[loop[1]]))
                total += max(map(int, limits)) * cycles(loop[2])
            elif estimate := re.search(r'"estimated_cycles":"(\d+)"', line):
                total += int(estimate[1])
        return total

    return cycles("ENTRY")


# --- the plan -------------------------------------------------------------------------------------


def plan(config: TrainConfig, name: str, batch: int) -> Plan:
    """Compile the step for a slice and read off what the compiler says."""
    topology = topologies.get_topology_desc(platform="tpu", topology_name=name)
    devices = ShardMap(topology.devices)
    shape = (batch * len(topology.devices), config.data.patch, config.data.patch, 3)
    low = config.data.patch // config.model.scale
    state = jax.eval_shape(lambda: init_state(config, fresh_weights(config).params))

    def placed(tree, spec):
        sharding = NamedSharding(devices.mesh, spec)
        return jax.tree.map(
            lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), tree
        )

    images = {
        "lr": jax.ShapeDtypeStruct((shape[0], low, low, 3), jnp.uint8),
        "hr": jax.ShapeDtypeStruct(shape, jnp.uint8),
    }
    step = functools.partial(train_step, config=config, axis_name=AXIS)
    traced = devices.compile(step).trace(
        placed(state, PartitionSpec()), placed(images, PartitionSpec(AXIS))
    )
    program = traced.lower().compile()
    memory, text = program.memory_analysis(), program.as_text()
    # Arguments and results share their memory where they are donated.
    hbm = memory.argument_size_in_bytes + memory.temp_size_in_bytes + memory.output_size_in_bytes
    return Plan(
        slice=name,
        chips=len(topology.devices),
        batch=batch,
        hbm=hbm - memory.alias_size_in_bytes,
        flops=float(count_flops(traced.jaxpr.jaxpr)),
        cycles=estimated_cycles(text),
        reduced=all_reduced(text),
    )


def table(plans: list[Plan]) -> str:
    """Markdown."""
    lines = [
        "| slice | chips | images per chip | HBM per chip, GiB (of) | TFLOP per chip and step "
        "| step, ms (estimate) | all-reduced, MB | scaling efficiency (estimate) |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for p in plans:
        milliseconds = 1e3 * (p.compute_seconds + p.reduce_seconds)
        lines.append(
            f"| {p.slice} | {p.chips} | {p.batch} | {p.hbm / 2**30:.2f} ({p.chip.hbm / 2**30:.0f}) "
            f"| {p.flops / 1e12:.2f} | {milliseconds:.1f} | {p.reduced / 1e6:.2f} "
            f"| {100 * p.efficiency:.1f} % |"
        )
    return "\n".join(lines)


def main(
    recipe: str = "experiments/x4.py",
    slices: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME")] = SLICES,
    batches: tuple[int, ...] = (8, 32),
    dtype: str = "bfloat16",
) -> None:
    """Print the table.

    Args:
        recipe: what is trained.
        slices: names that the compiler knows.
        batches: images per chip.
        dtype: of the features.
    """
    config = dataclasses.replace(load_recipe(recipe), dtype=dtype)
    plans = []
    for name in slices:
        for batch in batches:
            plans.append(plan(config, name, batch))
            print(plans[-1], flush=True)
    print(f"\n{table(plans)}")


if __name__ == "__main__":
    tyro.cli(main)
