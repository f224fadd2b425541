"""What inference and training must move and compute on a GPU, compiled without one.

    pip install "jax[cuda13]==0.10.2"
    python -m experiments.gpu_plan [--json experiments/gpu_plan.json] [--kernels 12]

XLA compiles for a GPU that it only knows from a description, here an H100. The compiled program
says which kernels run and what each reads and writes; summed over the loops, those are the bytes
that must come from the device's memory and go there (what a kernel finds in the cache is counted
all the same). FLOPs are those of convolutions and matrix products, counted in the traced program.
The larger of two times bounds the speed: bytes at the bandwidth that a copy reaches, and FLOPs at
the published peak of the type. No GPU ran; kernels are chosen by rules, not by timing them.

A bandwidth of 3.0 TB/s (H100) and 4.3 (H200) was measured for copies, of 3.35 and 4.8 published;
peaks of dense products are 989 (bfloat16), 495 (TF32) and 67 TFLOP/s (float32) for both:
https://www.nvidia.com/en-us/data-center/h100/ and .../h200/, read in November 2026.
"""

import collections
import dataclasses
import functools
import itertools
import math
import os
import re
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")  # there is no driver to ask

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec

import isrrescnet_jax as isr
from experiments import harness, tpu_plan
from isrrescnet_jax.solver import together
from isrrescnet_jax.solver.canvas import Canvas, iterate
from isrrescnet_jax.train import TrainConfig, init_state, train_step

BANDWIDTH = {"H100": 3.0e12, "H200": 4.3e12}
PEAK = {"bfloat16": 989e12, "tf32": 495e12, "float32": 67e12}
BITS = {"pred": 8, "bf16": 16, "f16": 16} | {f"{k}{n}": n for k in "suf" for n in (8, 16, 32, 64)}

# An H100 with 80 GB as XLA's `GpuTargetConfig` describes it.
_DEVICE = {
    "threads_per_block_limit": 1024,
    "threads_per_warp": 32,
    "shared_memory_per_block": 48 << 10,
    "shared_memory_per_core": 228 << 10,
    "shared_memory_per_block_optin": 227 << 10,
    "threads_per_core_limit": 2048,
    "core_count": 132,
    "fpus_per_core": 128,
    "block_dim_limit_x": 2**31 - 1,
    "block_dim_limit_y": 2**16 - 1,
    "block_dim_limit_z": 2**16 - 1,
    "registers_per_core_limit": 2**16,
    "registers_per_block_limit": 2**16,
    "memory_bandwidth": 3_352_320_000_000,
    "l2_cache_size": 50 << 20,
    "clock_rate_ghz": 1.98,
    "device_memory_size": 84_929_347_584,
}


def target() -> str:
    """The description, in the text form of protocol buffers."""
    device = " ".join(f"{name}: {value}" for name, value in _DEVICE.items())
    return (
        f"gpu_device_info {{ {device} cuda_compute_capability {{ major: 9 }} }} "
        'platform_name: "CUDA" dnn_version_info { major: 9 minor: 12 } '
        'runtime_version { major: 13 minor: 0 } device_description_str: "NVIDIA H100 80GB HBM3"'
    )


# --- reading a program ----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Kernel:
    """What runs at a place of the program.

    Attributes:
        kind: of operation, or what a custom call calls.
        name: in the program.
        bytes: read and written in one run.
        runs: how often, by the loops around it.
    """

    kind: str
    name: str
    bytes: int
    runs: int


def size(shape: str) -> int:
    """Bytes of arrays in the notation of HLO, such as "(f32[2,3]{1,0}, bf16[])"."""
    total = 0
    for kind, dims in re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", re.sub(r"\{[^}]*\}", "", shape)):
        if kind in BITS:
            total += BITS[kind] // 8 * math.prod(int(n) for n in dims.split(",") if n)
    return total


_FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "iota")
_HEAD = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{$")
_LINE = re.compile(r"(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")


def _names(rest: str) -> list[str]:
    """Of the operands, from what follows the opening bracket."""
    return re.findall(r"%([\w.\-]+)", rest.split("), ")[0])


def _moved(shape: str, operands: list[str], fused: list[re.Match]) -> int:
    """Bytes that a kernel reads and writes.

    Of an array that a fusion only takes slices of, as of what a loop stacks, those slices; of one
    that it updates in place, what it writes.
    """
    parts = {name: (shape, kind, rest) for name, shape, kind, rest in (m.groups() for m in fused)}
    uses: dict[str, list[str]] = collections.defaultdict(list)
    for name, (_, _, rest) in parts.items():
        for place, operand in enumerate(_names(rest)):
            uses[operand].append(name if place == 0 else f"{name} otherwise")
    sizes, whole = list(map(size, operands)), size(shape)
    for name, (_, kind, rest) in parts.items():
        if kind == "parameter" and uses[name]:
            users = [parts.get(user, ("", "", "")) for user in uses[name]]
            if all(user[1] in ("dynamic-slice", "dynamic-update-slice") for user in users):
                i = int(rest.split(")")[0])
                sizes[i] = sum(size(u[0]) for u in users if u[1] == "dynamic-slice")
        if kind == "dynamic-update-slice":
            update = parts.get(_names(rest)[1], ("",))[0]
            whole -= size(parts[name][0]) - size(update)
    return sum(sizes) + max(whole, 0)


def kernels(hlo: str) -> list[Kernel]:
    """All that a compiled program runs, from its text; loops are those of known length."""
    bodies: dict[str, list[re.Match]] = {}
    entry = current = ""
    for line in hlo.splitlines():
        if head := _HEAD.match(line):
            current = head[2]
            bodies[current] = []
            entry = current if head[1] else entry
        elif match := _LINE.match(line.strip()):
            bodies[current].append(match)

    def called(text: str, by: str) -> str:
        found = re.search(rf"{by}=%?([\w.\-]+)", text)
        assert found is not None, text
        return found[1]

    def run(computation: str, times: int) -> list[Kernel]:
        shapes: dict[str, str] = {}
        found: list[Kernel] = []
        for name, shape, kind, rest in (match.groups() for match in bodies[computation]):
            shapes[name] = shape
            if kind == "while":
                length = re.search(r'known_trip_count":\{"n":"(\d+)"', rest)
                found += run(called(rest, "body"), times * (int(length[1]) if length else 1))
            elif kind == "call":
                found += run(called(rest, "to_apply"), times)
            elif kind not in _FREE:
                operands = [shapes.get(name, "") for name in _names(rest)]
                fused = bodies[called(rest, "calls")] if kind == "fusion" else []
                moved = _moved(shape, operands, fused)
                target = re.search(r'custom_call_target="([^"]+)"', rest)
                found.append(Kernel(target[1] if target else kind, name, moved, times))
        return found

    return run(entry, 1)


# --- programs -------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is compiled."""

    iterations: tuple[int, ...] = (1, 10)
    """K."""
    dtypes: tuple[str, ...] = ("bfloat16",)
    """Of the features: bfloat16, tf32 or float32."""
    image: int = 256
    """Side of the low-resolution image of inference, at x4."""
    patch: int = 120
    """Side of the patches of training."""
    batch: int = 16
    """How many."""
    small: int = 64
    """Side of the pictures of `isrrescnet upscale`, at x4, in one iteration."""
    together: int = 8
    """How many of these at once, beside one."""
    kernels: int = 0
    """How many of the largest to list."""
    json: Path | None = None
    """File for the numbers."""


def compiled(f: Any, *args: Any) -> Any:
    """f(*args), shapes, compiled for the GPU that is not there."""
    topology = topologies.get_topology_desc(
        platform="cuda", target_config=target(), topology="1x1x1"
    )
    one = NamedSharding(topologies.make_mesh(topology, (1,), ("x",)), PartitionSpec())
    args = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=one), args)
    traced = jax.jit(f, out_shardings=one).trace(*args)
    return traced.lower(lowering_platforms=("cuda",)).compile()


class OnGPU(Canvas):
    """A canvas as it would be where there is a GPU."""

    @property
    def strips(self) -> bool:
        """Not those of a CPU."""
        return False


def pictures(plan: Plan, count: int, dtype: str) -> tuple[Any, tuple, int]:
    """The same for an iteration of `isrrescnet upscale` on one picture, or on several at once."""
    config = isr.ModelConfig(iterations=1, scale=4, physics="exact")
    weights = isr.init_weights(config, jax.random.key(0))
    features = "bfloat16" if dtype == "bfloat16" else "float32"
    canvas = OnGPU(weights, isr.Bicubic(4), dtype=features)
    laid = [canvas.lay(np.zeros((plan.small, plan.small, 3))) for _ in range(count)]
    numbers = canvas.numbers(0, laid[0].size)
    if count == 1:
        one, zeros = laid[0], np.zeros(laid[0].shape, np.float32)
        f, args = iterate, (*one[1:4], (zeros, zeros), one.sigma, numbers)
    else:
        tree, arrays = together.stacked(laid)
        f = functools.partial(together.iterate_each, tree)
        args = (*arrays, numbers)
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(np.shape(a), jnp.result_type(a)), args)
    return f, shapes, count * (4 * plan.small) ** 2


def program(plan: Plan, task: str, iterations: int, dtype: str) -> tuple[Any, tuple, int]:
    """A function, its arguments in shapes, and the high-resolution pixels that it makes."""
    model = isr.ModelConfig(iterations=iterations, scale=4, physics="exact")
    precision = "highest" if dtype == "float32" else "default"
    features = "bfloat16" if dtype == "bfloat16" else "float32"
    weights = jax.eval_shape(lambda: isr.init_weights(model, jax.random.key(0)))
    if task == "inference":
        lr = jax.ShapeDtypeStruct((1, plan.image, plan.image, 3), jnp.float32)

        def infer(weights, lr):
            return isr.reconstruct(weights, lr, dtype=features, precision=precision).image

        return infer, (weights, lr), 16 * plan.image**2
    config = TrainConfig(
        model=model, backward="full", optimizer="muon", dtype=features, precision=precision
    )
    state = jax.eval_shape(lambda params: init_state(config, params), weights.params)
    sides = {"lr": plan.patch // 4, "hr": plan.patch}
    batch = {
        name: jax.ShapeDtypeStruct((plan.batch, side, side, 3), jnp.uint8)
        for name, side in sides.items()
    }
    return (
        lambda state, batch: train_step(state, batch, recipe=config),
        (state, batch),
        plan.batch * plan.patch**2,
    )


def measure(plan: Plan, task: str, iterations: int, dtype: str, count: int = 1) -> dict[str, Any]:
    """A row of the table."""
    if task == "upscale":
        f, args, pixels = pictures(plan, count, dtype)
    else:
        f, args, pixels = program(plan, task, iterations, dtype)
    found = kernels(compiled(f, *args).as_text())
    flops = tpu_plan.count_flops(jax.make_jaxpr(f)(*args).jaxpr)
    moved = sum(kernel.bytes * kernel.runs for kernel in found)
    largest: collections.Counter[tuple[str, str]] = collections.Counter()
    for kernel in found:
        largest[kernel.kind, re.sub(r"[.\d]+$", "", kernel.name)] += kernel.bytes * kernel.runs
    row = {"task": task, "iterations": iterations, "dtype": dtype, "pixels": pixels}
    row |= {"pictures": count}
    row |= {"kernels": sum(k.runs for k in found), "bytes_per_pixel": moved / pixels}
    row |= {"flops_per_pixel": flops / pixels}
    for card, bandwidth in BANDWIDTH.items():
        seconds = max(moved / bandwidth, flops / PEAK[dtype])
        row[f"megapixels_per_second_{card}"] = pixels / seconds / 1e6
    row["largest"] = {
        f"{kind} {name}": total / pixels for (kind, name), total in largest.most_common(12)
    }
    return row


def main(plan: Plan) -> None:
    """Print a table."""
    print(harness.environment("jax"))
    table = harness.Table(
        "program", "kernels", "kB/pixel", "kFLOP/pixel", *(f"Mpixel/s, {c}" for c in BANDWIDTH)
    )
    rows = []
    tasks = [(task, k, 1) for task in ("inference", "training") for k in plan.iterations]
    tasks += [("upscale", 1, count) for count in (1, plan.together)]
    for (task, k, count), dtype in itertools.product(tasks, plan.dtypes):
        row = measure(plan, task, k, dtype, count)
        rows.append(row)
        table.row(
            f"{task}, K = {k}, {dtype}" + f", {count} at once" * (task == "upscale"),
            row["kernels"],
            f"{row['bytes_per_pixel'] / 1e3:.1f}",
            f"{row['flops_per_pixel'] / 1e3:.0f}",
            *(f"{row[f'megapixels_per_second_{card}']:.1f}" for card in BANDWIDTH),
        )
    for row in rows if plan.kernels else ():
        print(f"\n{row['task']}, K = {row['iterations']}: bytes a pixel of the largest")
        for name, value in list(row["largest"].items())[: plan.kernels]:
            print(f"{value:10.0f}  {name}")
    harness.write_json(plan.json, rows, "jax")


if __name__ == "__main__":
    main(tyro.cli(Plan, description=__doc__))
