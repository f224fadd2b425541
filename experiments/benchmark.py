"""Ours against PyTorch: inference and training, on a CPU or a GPU, alternated in one run.

    python -m experiments.benchmark inference --sizes 64 128 --iterations 1 10
    python -m experiments.benchmark training --sizes 64 120 --iterations 1 --batch 8

The official network with fresh weights, images of noise (for which it does the same work), and the
same number of threads. PyTorch is `convert.torch_model`. A training step is forward, L1 on the last
iterate, backward through all iterations, and AMSGrad. Every variant lives in a process of its own,
so that the peak memory is its own, and runs only when it is its turn; speed is the ratio of medians
to the fastest PyTorch in the table. A table is printed for every size and K, and each line of it as
soon as the turns are over.

Variants are a framework, how it is used, and the type of the features: ours/default/float32,
ours/checkpointed/bfloat16 (training), ours/devices2/float32 (training on two virtual devices),
ours/tiled/float32 (inference), torch/eager/float32, torch/channels_last/bfloat16 (autocast),
torch/compile/tf32 (GPU).
"""

import contextlib
import dataclasses
import functools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from tyro.conf import Positional

from . import harness

Call = Callable[[], object]  # one picture or one step, waited for
Peak = Callable[[], int | None]  # bytes of the device's memory, where it is its own
MFLOP = 3.0  # per high-resolution pixel and iteration, forward, nearly all in the 3x3 convolutions


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """What is measured."""

    task: Positional[Literal["inference", "training"]]
    """What is done."""
    sizes: tuple[int, ...] = (64,)
    """Sides: of the low-resolution image, or of the high-resolution patches."""
    iterations: tuple[int, ...] = (10,)
    """K."""
    batch: int = 8
    """Patches of a training step."""
    scale: int = 4
    """Factor."""
    rounds: int = 5
    """How often all variants take turns; the median counts."""
    repeat: int = 1
    """Calls in a turn, after one that is not timed if there are several; their median counts."""
    variants: tuple[str, ...] = ()
    """See above; by default those that suit the task and the device."""
    together: bool = False
    """Prepare (compile) all variants at once; needs the memory of all."""
    json: Path | None = None
    """File for the numbers."""

    def model(self, iterations: int) -> Any:
        """The configuration of the network."""
        from isrrescnet_jax import ModelConfig

        return ModelConfig(scale=self.scale, iterations=iterations)

    def images(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """LR and HR, (n, h, w, 3)."""
        n, low = (1, size) if self.task == "inference" else (self.batch, size // self.scale)
        rng = np.random.default_rng(0)
        shapes = [(n, side, side, 3) for side in (low, low * self.scale)]
        lr, hr = (rng.integers(0, 256, shape).astype(np.float32) for shape in shapes)
        return lr, hr


# --- ours -----------------------------------------------------------------------------------------


def _device_peak() -> int | None:
    import jax

    return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def our_inference(
    benchmark: Benchmark, size: int, iterations: int, how: str, dtype: str
) -> tuple[Call, Peak]:
    """`Upscaler`; in TF32, which it does not offer, `reconstruct`."""
    import jax

    import isrrescnet_jax as isr
    from isrrescnet_jax.upscaler import Upscaler

    weights = isr.init_weights(benchmark.model(iterations), jax.random.key(0))
    lr = benchmark.images(size)[0]
    if dtype == "tf32":
        program = jax.jit(functools.partial(isr.reconstruct, precision="default"))
        return lambda: np.asarray(program(weights, lr).image), _device_peak
    tile = 256 if how == "tiled" else "auto"
    upscaler = Upscaler(weights, dtype=None if dtype == "float32" else dtype, tile=tile)
    return lambda: upscaler(lr[0]), _device_peak


def our_training(
    benchmark: Benchmark, size: int, iterations: int, how: str, dtype: str
) -> tuple[Call, Peak]:
    """`train_step`, as `isrrescnet train` runs it."""
    devices = 2 if how == "devices2" else 1
    flags = f"--xla_force_host_platform_device_count={devices}"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}"
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    import jax

    from isrrescnet_jax import init_weights
    from isrrescnet_jax.data import DataConfig
    from isrrescnet_jax.train import TrainConfig, init_state, train_step
    from isrrescnet_jax.train.parallel import AXIS, ShardMap

    config = TrainConfig(
        model=benchmark.model(iterations),
        data=DataConfig(scale=benchmark.scale, patch=size),
        backward="checkpointed" if how == "checkpointed" else "full",
        optimizer="amsgrad",
        learning_rate=3e-3,
        schedule="stepped",
        dtype="bfloat16" if dtype == "bfloat16" else "float32",
        precision="highest" if dtype == "float32" else "default",
    )
    share = ShardMap(jax.devices()[:devices])
    batch = share.shard(dict(zip(("lr", "hr"), benchmark.images(size), strict=True)))
    program = share.compile(functools.partial(train_step, recipe=config, axis_name=AXIS))
    state = init_state(config, init_weights(config.model, jax.random.key(0)).params)
    state = [share.replicate(state)]

    def step() -> None:
        state[0], metrics = program(state[0], batch)
        jax.block_until_ready(metrics)

    return step, _device_peak


# --- PyTorch --------------------------------------------------------------------------------------


def in_torch(
    benchmark: Benchmark, size: int, iterations: int, how: str, dtype: str
) -> tuple[Call, Peak]:
    """Either task, with our own PyTorch implementation."""
    import torch

    from convert.torch_model import ISRResCNet

    torch.set_num_threads(harness.cores())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = dtype != "float32"
    model = ISRResCNet(iterations=iterations).to(device)
    layout = torch.channels_last if how == "channels_last" else torch.contiguous_format
    model.to(memory_format=layout)  # pyright: ignore[reportCallIssue] (stubs)
    if how == "compile":
        model.model.compile()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3, amsgrad=True)
    lr, hr = (
        torch.tensor(x, device=device).permute(0, 3, 1, 2).contiguous(memory_format=layout)
        for x in benchmark.images(size)
    )

    def forward() -> Any:
        with torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
            return model(lr, benchmark.scale)["iterates"][-1].float()

    def infer() -> None:
        with torch.inference_mode():
            forward().cpu().numpy()

    def step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.l1_loss(forward(), hr).backward()
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    def peak() -> int | None:
        if device == "cpu":
            return None
        torch.cuda.empty_cache()  # room for the others
        return torch.cuda.max_memory_allocated()

    return (infer if benchmark.task == "inference" else step), peak


# --- turns ----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Turn:
    """What a turn gave: seconds of a call, of the first one, programs, bytes on the device."""

    seconds: float
    first: float
    programs: int
    device: int | None


def make(benchmark: Benchmark, size: int, iterations: int, variant: str) -> Callable[[], Turn]:
    """A function that takes a turn; the first call, which compiles, is behind it."""
    framework, how, dtype = variant.split("/")
    ours = our_inference if benchmark.task == "inference" else our_training
    prepare = ours if framework == "ours" else in_torch
    call, peak = prepare(benchmark, size, iterations, how, dtype)
    start = time.perf_counter()
    if framework == "ours":
        with harness.compiled_programs() as found:
            call()
    else:
        found = []
        call()
    first = time.perf_counter() - start
    call()

    def turn() -> Turn:
        times = []
        for _ in range(benchmark.repeat + (benchmark.repeat > 1)):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        return Turn(harness.median(times[-benchmark.repeat :]), first, len(found), peak())

    return turn


def measure(benchmark: Benchmark, size: int, iterations: int, variants: tuple[str, ...]) -> Any:
    """A table; its rows as dictionaries."""
    found: dict[str, list[Turn]] = {variant: [] for variant in variants}
    memory: dict[str, int] = {}
    with contextlib.ExitStack() as stack:
        workers: dict[str, harness.Worker] = {}
        for name in variants:
            worker = harness.Worker(make, benchmark, size, iterations, name)
            workers[name] = stack.enter_context(worker)
            if not benchmark.together:
                worker.wait()
        for _ in range(benchmark.rounds):
            for name, worker in list(workers.items()):
                try:
                    found[name].append(worker())
                    memory[name] = found[name][-1].device or worker.growth()
                except Exception as error:  # too little memory, for instance: the others go on
                    print(f"{name}: {(str(error).splitlines() or [''])[0]}", flush=True)
                    del workers[name]
    seconds = {name: [turn.seconds for turn in turns] for name, turns in found.items() if turns}
    medians = {name: harness.median(times) for name, times in seconds.items()}
    peers = [time for name, time in medians.items() if name.startswith("torch")]
    side = size * benchmark.scale if benchmark.task == "inference" else size
    passes, count = (1, 1) if benchmark.task == "inference" else (3, benchmark.batch)
    work = 1e6 * MFLOP * passes * iterations * count * side**2
    print(f"\n{benchmark.task}, {count} x {side}^2 pixels, K = {iterations}")
    table = harness.Table(
        "variant", "seconds (range)", "speed", "peak, MB", "first call, s", "programs", "GFLOP/s"
    )
    rows = []
    for name, times in seconds.items():
        turn = found[name][0]
        speed = f"{min(peers) / medians[name]:.2f}" if peers else ""
        rate = work / medians[name] / 1e9
        table.row(
            name.replace("/", ", "),
            harness.spread(times, 4 if medians[name] < 0.1 else 2),
            speed,
            f"{memory[name] / 1e6:.0f}",
            f"{turn.first:.1f}",
            turn.programs or "",
            f"{rate:.0f}",
        )
        row = {"task": benchmark.task, "variant": name, "side": side, "images": count}
        row |= {"iterations": iterations, "seconds": times, "peak_bytes": memory[name]}
        rows.append(row | {"first_call": turn.first, "programs": turn.programs})
    return rows


def default_variants(task: str) -> tuple[str, tuple[str, ...]]:
    """The device, and the variants that suit it."""
    import torch

    ours = ("default", "checkpointed") if task == "training" else ("default",)
    gpu = torch.cuda.is_available()
    dtypes = ("float32", "tf32", "bfloat16") if gpu else ("float32", "bfloat16")
    names = [f"ours/{how}/{dtype}" for dtype in dtypes for how in ours]
    names += [
        f"torch/{how}/{dtype}" for dtype in dtypes for how in ("eager", "channels_last", "compile")
    ]
    return torch.cuda.get_device_name() if gpu else "CPU", tuple(names)


def main(benchmark: Benchmark) -> None:
    """Print a table for every size and number of iterations."""
    device, variants = default_variants(benchmark.task)
    variants = benchmark.variants or variants
    print(harness.environment("jax", "torch"), device, benchmark, sep="\n", flush=True)
    rows = []
    for iterations in benchmark.iterations:
        for size in benchmark.sizes:
            rows += measure(benchmark, size, iterations, variants)
            harness.write_json(benchmark.json, rows, "jax", "torch")


if __name__ == "__main__":
    main(tyro.cli(Benchmark, description=__doc__))
