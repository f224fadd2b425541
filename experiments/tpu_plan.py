"""What a training step would need and cost on TPU slices, compiled without a TPU.

    pip install "libtpu==0.0.42.*"
    python experiments/tpu_plan.py [--recipe experiments/x4.py] [--slices v5e:2x2 v5p:2x2x1 ...]

The ahead-of-time compiler of libtpu compiles the real step, `pmap` with its all-reduce, for each
slice. HBM, FLOPs and the bytes all-reduced are facts of the compiled program. The step time is an
*estimate*: the longer of arithmetic at peak rate and memory traffic at peak bandwidth, then the
all-reduce over one chip's links. No TPU ran.
"""

import dataclasses
import functools
import os
import re
from typing import Annotated

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# The compiler would look for the metadata server of a cloud machine.
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")

import jax
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
    """Peak figures of one chip, as Google publishes them (Cloud TPU documentation).

    Attributes:
        flops: bfloat16 operations per second.
        hbm: bytes of memory.
        bandwidth: bytes of memory per second.
        links: bytes per second over all links to other chips together.
    """

    flops: float
    hbm: float
    bandwidth: float
    links: float


CHIPS = {
    "v5e": Chip(197e12, 16 * 2**30, 819e9, 200e9),
    "v6e": Chip(918e12, 32 * 2**30, 1640e9, 448e9),
    "v5p": Chip(459e12, 95 * 2**30, 2765e9, 600e9),
}


@dataclasses.dataclass(frozen=True)
class Plan:
    """One slice and per-chip batch.

    Attributes:
        slice: name of the slice.
        chips: how many it has.
        batch: images per chip.
        hbm: bytes of one chip's memory that the program needs.
        flops: per chip and step, as the compiler counts them.
        traffic: bytes of memory per chip and step, likewise.
        reduced: bytes that every chip hands to the all-reduce.
    """

    slice: str
    chips: int
    batch: int
    hbm: float
    flops: float
    traffic: float
    reduced: float

    @property
    def chip(self) -> Chip:
        return CHIPS[self.slice.split(":")[0]]

    @property
    def compute_seconds(self) -> float:
        """Estimate: the longer of arithmetic and memory traffic at their peaks."""
        return max(self.flops / self.chip.flops, self.traffic / self.chip.bandwidth)

    @property
    def reduce_seconds(self) -> float:
        """Estimate of a ring all-reduce: 2 (n - 1) / n of the bytes over the links."""
        return 2 * (self.chips - 1) / self.chips * self.reduced / self.chip.links

    @property
    def efficiency(self) -> float:
        """Estimate: step time without, by step time with the all-reduce, not overlapped."""
        return self.compute_seconds / (self.compute_seconds + self.reduce_seconds)


_BYTES = {"f32": 4, "bf16": 2, "s32": 4, "pred": 1, "u8": 1}
_ALL_REDUCE = re.compile(r"= (.*?) all-reduce(?:-start)?\(")
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")


def all_reduced(program: str) -> int:
    """Bytes of the results of all all-reduces in the text of a compiled program."""
    total = 0
    for shapes in _ALL_REDUCE.findall(program):
        for kind, sides in _ARRAY.findall(shapes):
            if kind in _BYTES:
                total += _BYTES[kind] * int(np.prod([int(n) for n in sides.split(",") if n]))
    return total


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
    lowered = devices.compile(step).lower(
        placed(state, PartitionSpec()), placed(images, PartitionSpec(AXIS))
    )
    program = lowered.compile()
    memory, cost = program.memory_analysis(), program.cost_analysis()
    # Arguments and results share their memory where they are donated.
    hbm = memory.argument_size_in_bytes + memory.temp_size_in_bytes + memory.output_size_in_bytes
    hbm -= memory.alias_size_in_bytes
    reduced = all_reduced(program.as_text())
    return Plan(
        name, len(topology.devices), batch, hbm, cost["flops"], cost["bytes accessed"], reduced
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
