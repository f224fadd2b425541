"""Our training step against PyTorch's: time and memory, alternated in one run.

    python -m experiments.benchmark_training [--batch 4 --patch 96 --rounds 5]

Both make the same step with the same K on one batch: forward, L1 on the last iterate, backward
through all iterations, AMSGrad. PyTorch is `convert.torch_model` under plain autograd. On a GPU,
TF32, bfloat16 and `torch.compile` run as well. Every variant lives in a process of its own, so that
the peak memory is its own, and runs only when it is its turn.
"""

import contextlib
import dataclasses
import functools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from . import harness

Step = Callable[[], object]  # one step, waited for
Peak = Callable[[], int | None]  # bytes of the device's memory, where it is its own


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """What is measured.

    Attributes:
        batch: images.
        patch: side of the high-resolution patches in pixels.
        scale: factor of the resolutions.
        iterations: K.
        steps: timed in each turn, after one that warms up; the median counts.
        rounds: how often all variants take turns.
        variants: jax, jax2 (two devices, virtual ones on a CPU) or torch, an underscore, and full,
            checkpointed, autograd or compile; with _bfloat16 for bfloat16 features or, on a GPU,
            _tf32 for float32 convolutions in TF32. By default those that suit the device.
        together: prepare (compile) all variants at once; needs the memory of all.
        json: file for the numbers.
    """

    batch: int = 4
    patch: int = 96
    scale: int = 4
    iterations: int = 10
    steps: int = 3
    rounds: int = 3
    variants: tuple[str, ...] = ()
    together: bool = False
    json: Path | None = None

    def images(self) -> tuple[np.ndarray, np.ndarray]:
        """A batch (n, h, w, 3), LR and HR; noise, for which the network does the same work."""
        rng = np.random.default_rng(0)
        low = self.patch // self.scale
        return (
            rng.integers(0, 256, (self.batch, low, low, 3), dtype=np.uint8),
            rng.integers(0, 256, (self.batch, self.patch, self.patch, 3), dtype=np.uint8),
        )


def jax_step(
    benchmark: Benchmark, backward: Any, dtype: str, devices: int = 1
) -> tuple[Step, Peak]:
    """Ours."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}"
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    import jax

    from isrrescnet_jax import ModelConfig, init_weights
    from isrrescnet_jax.data import DataConfig
    from isrrescnet_jax.train import TrainConfig, init_state, train_step
    from isrrescnet_jax.train.parallel import AXIS, ShardMap

    config = TrainConfig(
        model=ModelConfig(iterations=benchmark.iterations, scale=benchmark.scale),
        data=DataConfig(scale=benchmark.scale, patch=benchmark.patch),
        backward=backward,
        optimizer="amsgrad",
        learning_rate=3e-3,
        schedule="stepped",
        dtype="bfloat16" if dtype == "bfloat16" else "float32",
        precision="highest" if dtype == "float32" else "default",
    )
    share = ShardMap(jax.devices()[:devices])
    batch = share.shard(dict(zip(("lr", "hr"), benchmark.images(), strict=True)))
    program = share.compile(functools.partial(train_step, recipe=config, axis_name=AXIS))
    state = init_state(config, init_weights(config.model, jax.random.key(0)).params)
    state = [share.replicate(state)]

    def step() -> None:
        state[0], metrics = program(state[0], batch)
        jax.block_until_ready(metrics)

    def peak() -> int | None:
        return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")

    return step, peak


def torch_step(benchmark: Benchmark, how: str, dtype: str) -> tuple[Step, Peak]:
    """The same for PyTorch."""
    import torch

    from convert.torch_model import ISRResCNet

    device = "cuda" if torch.cuda.is_available() else "cpu"
    fast = dtype != "float32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = fast
    model = ISRResCNet(iterations=benchmark.iterations).to(device)
    if how == "compile":
        model.model.compile()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3, amsgrad=True)
    lr, hr = (
        torch.tensor(x, dtype=torch.float32, device=device).permute(0, 3, 1, 2).contiguous()
        for x in benchmark.images()
    )

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
            image = model(lr, benchmark.scale)["iterates"][-1]
        torch.nn.functional.l1_loss(image.float(), hr).backward()
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    def peak() -> int | None:
        if device == "cpu":
            return None
        torch.cuda.empty_cache()  # room for the others
        return torch.cuda.max_memory_allocated()

    return step, peak


def make(benchmark: Benchmark, variant: str) -> Callable[[], tuple[float, int | None]]:
    """A function that makes a few steps and gives their median seconds and the device's peak."""
    framework, how, *dtype = variant.split("_")
    two_devices = functools.partial(jax_step, devices=2)
    prepare = {"jax": jax_step, "jax2": two_devices, "torch": torch_step}[framework]
    step, peak = prepare(benchmark, how, dtype[0] if dtype else "float32")
    for _ in range(2):
        step()

    def turn() -> tuple[float, int | None]:
        times = []
        for _ in range(1 + benchmark.steps):
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
        return harness.median(times[1:]), peak()

    return turn


def main(benchmark: Benchmark) -> None:
    """Print a table."""
    device, plain = default_variants()
    variants = benchmark.variants or plain
    print(harness.environment("jax", "torch"), device, benchmark, sep="\n", flush=True)
    found: dict[str, list[tuple[float, int]]] = {variant: [] for variant in variants}
    with contextlib.ExitStack() as stack:
        workers = {}
        for variant in variants:
            workers[variant] = stack.enter_context(harness.Worker(make, benchmark, variant))
            if not benchmark.together:
                workers[variant].wait()
        for _ in range(benchmark.rounds):
            for variant, worker in list(workers.items()):
                try:
                    seconds, device_bytes = worker()
                except Exception as error:  # too little memory, for instance: the others go on
                    print(f"{variant}: {error}", flush=True)
                    del workers[variant]
                else:
                    found[variant].append((seconds, device_bytes or worker.growth()))
                    print(variant, *found[variant][-1], flush=True)
    table = harness.Table("step", "ms, median (range)", "peak memory, MiB")
    for variant, results in found.items():
        if results:
            times, peaks = zip(*results, strict=True)
            milliseconds = harness.spread([1e3 * time for time in times], 0)
            table.row(variant, milliseconds, f"{max(peaks) / 2**20:.0f}")
    harness.write_json(benchmark.json, found, "jax", "torch")


def default_variants() -> tuple[str, tuple[str, ...]]:
    """The device, and the variants that suit it."""
    import torch

    plain = ("jax_full", "jax_checkpointed", "torch_autograd")
    if not torch.cuda.is_available():
        return "cpu", (*plain[:2], "jax2_full", "jax2_checkpointed", plain[2])
    variants = [f"{name}{dtype}" for dtype in ("", "_tf32", "_bfloat16") for name in plain]
    more = ("torch_compile_tf32", "torch_compile_bfloat16")
    return torch.cuda.get_device_name(), (*variants, *more)


if __name__ == "__main__":
    main(tyro.cli(Benchmark))
