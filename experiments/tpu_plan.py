"""What a training step would need and cost on TPU slices, compiled without a TPU.

    pip install "libtpu==0.0.42.*"
    python -m experiments.tpu_plan [--recipe experiments/paper.py] [--slices v5e:2x2 v5p:2x2x1 ...]
        [--batches 8 32] [--backwards truncated full ...] [--json experiments/tpu_plan.json]

The ahead-of-time compiler of libtpu compiles the real step (`--strategy shard_map`), with its
all-reduce, for each slice. That takes minutes for each, on one core, nearly all of it in register
allocation and scheduling, and hardly longer for many chips, whose program is almost the same. So
the default is the smallest slice and 256 chips of every type.

HBM and the bytes all-reduced are facts of the compiled program; FLOPs are those of convolutions and
matrix products, counted in the traced step. The step time is an *estimate*: the cycles that the
compiler expects of every operation, times the iterations of the loop it is in, then the all-reduce
at the rate of all links of the chip (small slices use fewer), not overlapped and without latency.
Nothing accounts for input or for waiting for the slowest host. No TPU ran.

`compile_step` does the same for devices that are there, such as the virtual ones of a CPU.

Rates and numbers of units are those of Google's pages, read in November 2026:
https://docs.cloud.google.com/tpu/docs/v5e, .../v6e and .../v5p-training.
"""

import dataclasses
import functools
import itertools
import json
import math
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# The compiler would look for the metadata server of a cloud machine, and refuse to run twice at a
# time, as if it used a chip.
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")

import jax
import jax.extend.core
import jax.numpy as jnp
import tyro
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec

from experiments import harness
from isrrescnet_jax.train import Recipe, init_state, train_step
from isrrescnet_jax.train.parallel import AXIS, ShardMap
from isrrescnet_jax.train.recipe import load_recipe
from isrrescnet_jax.train.start import fresh_params

SLICES = ("v5e:2x2", "v5e:16x16", "v6e:2x2", "v6e:16x16", "v5p:2x2x1", "v5p:4x8x8")


@dataclasses.dataclass(frozen=True)
class Chip:
    """Figures of one chip.

    Attributes:
        hbm: bytes that the compiler lets a program use (published: 16 GB, 32 GB, 95 GB).
        peak: FLOP per second in bfloat16, published.
        products: multiply-adds per cycle of all matrix units together.
        links: bytes per second, one way, over all links to other chips; half of the published
            bidirectional bandwidth.
    """

    hbm: float
    peak: float
    products: int
    links: float

    @property
    def clock(self) -> float:
        """Cycles per second, as peak and units imply: 1.50, 1.75 and 1.75 GHz."""
        return self.peak / (2 * self.products)


CHIPS = {
    "v5e": Chip(15.75 * 2**30, 197e12, 4 * 128**2, 200e9),
    # Two units of 256 x 256: the compiler expects more than one product per cycle of each cell.
    "v6e": Chip(31.25 * 2**30, 918e12, 4 * 256**2, 400e9),
    # Two cores of four units, which work as one device.
    "v5p": Chip(95.74 * 2**30, 459e12, 8 * 128**2, 600e9),
}


@dataclasses.dataclass(frozen=True)
class Step:
    """A training step, compiled for many devices.

    Attributes:
        chips: how many.
        memory: bytes of one chip's memory that the program needs.
        flops: of convolutions and products, per chip and step.
        reduced: bytes that every chip hands to the all-reduce.
        text: the program.
    """

    chips: int
    memory: int
    flops: float
    reduced: int
    text: str = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True)
class Plan:
    """One slice, per-chip batch and way back.

    Attributes:
        slice: name of the slice.
        chips: how many it has.
        batch: images per chip.
        backward: how gradients go through the iterations (`TrainConfig.backward`).
        hbm: bytes of one chip's memory that the program needs.
        flops: of convolutions and products, per chip and step.
        cycles: that the compiler expects, per chip and step.
        reduced: bytes that every chip hands to the all-reduce.
    """

    slice: str
    chips: int
    batch: int
    backward: str
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
    def share_of_peak(self) -> float:
        """Estimate, without the all-reduce."""
        return self.flops / self.compute_seconds / self.chip.peak

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
            kernel = _shape(equation.invars[1])
            outputs = kernel[params["dimension_numbers"].rhs_spec[0]]
            total += 2 * math.prod(_shape(equation.outvars[0])) * math.prod(kernel) / outputs
        elif name.startswith("isr_"):  # our convolutions: image, kernel and result in some order
            shapes = [_shape(variable) for variable in (*equation.invars, *equation.outvars)]
            small = min(shapes, key=lambda shape: shape[0] * shape[1])  # the kernel
            positions = min(math.prod(shape[:-1]) for shape in shapes if shape != small)
            total += 2 * positions * math.prod(small)
        elif name == "dot_general":
            (contracted, _), _ = params["dimension_numbers"]
            left = _shape(equation.invars[0])
            depth = math.prod(left[axis] for axis in contracted)
            total += 2 * math.prod(_shape(equation.outvars[0])) * depth
        elif name == "cond":  # the platforms' ways to do the same: first that of CPUs
            total += count_flops(params["branches"][-1].jaxpr)
        else:
            inner = jax.tree.leaves(params, is_leaf=_is_jaxpr)
            inner = [getattr(j, "jaxpr", j) for j in inner if _is_jaxpr(j)]
            total += params.get("length", 1) * sum(map(count_flops, inner))
    return total


def _shape(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape


def _is_jaxpr(value: Any) -> bool:
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
    lines: list[str] = []
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


def compile_step(recipe: Recipe, devices: Sequence[Any], batch: int) -> Step:
    """Compile the step for these devices, which need not be there.

    Args:
        recipe: what is trained.
        devices: of `jax.devices()` or of a topology.
        batch: images for each.
    """
    config, count = recipe.config, len(devices)
    across = ShardMap(devices)
    shape = (batch * count, config.data.patch, config.data.patch, 3)
    low = config.data.patch // config.data.scale
    state = jax.eval_shape(lambda: init_state(recipe, fresh_params(config)))

    def placed(tree, spec):
        sharding = NamedSharding(across.mesh, spec)
        return jax.tree.map(
            lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), tree
        )

    images = {
        "lr": jax.ShapeDtypeStruct((shape[0], low, low, 3), jnp.uint8),
        "hr": jax.ShapeDtypeStruct(shape, jnp.uint8),
    }
    step = functools.partial(train_step, recipe=recipe, axis_name=AXIS)
    traced = across.compile(step).trace(
        placed(state, PartitionSpec()), placed(images, PartitionSpec(AXIS))
    )
    program = traced.lower().compile()
    memory, text = program.memory_analysis(), program.as_text()
    assert memory is not None and text is not None
    # Arguments and results share their memory where they are donated.
    needed = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    needed += memory.output_size_in_bytes - memory.alias_size_in_bytes
    return Step(count, needed, float(count_flops(traced.jaxpr.jaxpr)), all_reduced(text), text)


def plan(recipe: Recipe, name: str, batch: int) -> Plan:
    """Compile the step for a slice and read off what the compiler says."""
    topology = topologies.get_topology_desc(platform="tpu", topology_name=name)
    step = compile_step(recipe, topology.devices, batch)
    return Plan(
        slice=name,
        chips=step.chips,
        batch=batch,
        backward=recipe.config.backward,
        hbm=step.memory,
        flops=step.flops,
        cycles=estimated_cycles(step.text),
        reduced=step.reduced,
    )


def with_backward(recipe: Recipe, backward: Any) -> Recipe:
    """The recipe with gradients that go through the iterations in another way."""
    return dataclasses.replace(recipe, config=dataclasses.replace(recipe.config, backward=backward))


def keep(path: Path | None, plan: Plan) -> None:
    """Put a row into the JSON, in the place of the one for the same program."""
    if path is not None:
        rows = json.loads(path.read_text())["rows"] if path.exists() else []
        new = dataclasses.asdict(plan)
        same = ("slice", "batch", "backward")
        rows = [row for row in rows if any(row[name] != new[name] for name in same)]
        harness.write_json(path, [*rows, new], "jax", "libtpu")


def table(plans: list[Plan]) -> str:
    """Markdown; estimates are in italics."""
    lines = [
        "| slice | chips | images per chip | way back | HBM per chip, GiB (of) "
        "| TFLOP per chip and step | *step, s (share of peak)* "
        "| all-reduced, MB (*ms*) | *scaling efficiency* |",
        "| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for p in plans:
        seconds = p.compute_seconds + p.reduce_seconds
        efficiency = f"{100 * p.efficiency:.1f} %" if p.efficiency < 0.999 else "> 99.9 %"
        lines.append(
            f"| {p.slice} | {p.chips} | {p.batch} | {p.backward} "
            f"| {p.hbm / 2**30:.2f} ({p.chip.hbm / 2**30:.2f}) | {p.flops / 1e12:.1f} "
            f"| {seconds:.2f} ({100 * p.share_of_peak:.1f} %) "
            f"| {p.reduced / 1e6:.2f} ({1e3 * p.reduce_seconds:.3f}) | {efficiency} |"
        )
    return "\n".join(lines)


def main(
    recipe: str = "experiments/paper.py",
    slices: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME")] = SLICES,
    batches: tuple[int, ...] = (8,),
    backwards: tuple[str, ...] = (),
    dtype: str = "bfloat16",
    json: Path | None = None,
) -> None:
    """Print the table.

    Args:
        recipe: what is trained.
        slices: TYPE:SHAPE as the compiler knows them, such as v5e:4x8 or v5p:2x2x4.
        batches: images per chip.
        backwards: ways back through the iterations; that of the recipe if none is named.
        dtype: of the features.
        json: file for the numbers; rows of other programs stay there.
    """
    for name in slices:
        if name.split(":")[0] not in CHIPS:
            raise SystemExit(f"{name}: no figures for this type, only for {', '.join(CHIPS)}")
    loaded = load_recipe(recipe)
    loaded = dataclasses.replace(loaded, config=dataclasses.replace(loaded.config, dtype=dtype))
    plans = []
    for name, batch, backward in itertools.product(
        slices, batches, backwards or (loaded.config.backward,)
    ):
        start = time.monotonic()
        try:
            plans.append(plan(with_backward(loaded, backward), name, batch))
        except jax.errors.JaxRuntimeError as error:  # no such slice, or too little memory
            print(f"{name}, {batch} images per chip, {backward}: {error}", flush=True)
        else:
            print(plans[-1], f"compiled in {time.monotonic() - start:.0f} s", flush=True)
            keep(json, plans[-1])
    print(f"\n{table(plans)}")


if __name__ == "__main__":
    tyro.cli(main)
