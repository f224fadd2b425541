"""Our training step against PyTorch's: time and memory, alternated in one run.

    python -m experiments.benchmark_training [--batch 4 --patch 96 --rounds 5]

Both make the same step with the same K on one batch: forward, L1 on the last iterate, backward
through all iterations, AMSGrad. PyTorch is `convert.torch_model` under plain autograd. On a GPU,
TF32, bfloat16 and `torch.compile` run as well. Every variant lives in a process of its own, so that
the peak memory is its own, and runs only when it is its turn.
"""

import dataclasses
import datetime
import functools
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from importlib.metadata import version

import numpy as np
import tyro


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
        worker: for internal use, the variant that this process measures.
    """

    batch: int = 4
    patch: int = 96
    scale: int = 4
    iterations: int = 10
    steps: int = 3
    rounds: int = 3
    variants: tuple[str, ...] = ()
    together: bool = False
    worker: str | None = None

    def images(self) -> tuple[np.ndarray, np.ndarray]:
        """A batch (n, h, w, 3), LR and HR; noise, for which the network does the same work."""
        rng = np.random.default_rng(0)
        low = self.patch // self.scale
        return (
            rng.integers(0, 256, (self.batch, low, low, 3), dtype=np.uint8),
            rng.integers(0, 256, (self.batch, self.patch, self.patch, 3), dtype=np.uint8),
        )


def jax_step(benchmark: Benchmark, backward: str, dtype: str, devices: int = 1):
    """(a function that makes one step and waits for it, peak bytes of device memory or None)."""
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
        data=DataConfig(scale=benchmark.scale),
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

    def step():
        state[0], metrics = program(state[0], batch)
        jax.block_until_ready(metrics)

    def peak():
        return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")

    return step, peak


def torch_step(benchmark: Benchmark, how: str, dtype: str):
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

    def step():
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
            image = model(lr, benchmark.scale)["iterates"][-1]
        torch.nn.functional.l1_loss(image.float(), hr).backward()
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    def peak():
        return torch.cuda.max_memory_allocated() if device == "cuda" else None

    return step, peak


def work(benchmark: Benchmark, variant: str) -> None:
    """Make a few steps for each line on standard input and report seconds and peak bytes."""
    framework, how, *dtype = variant.split("_")
    two_devices = functools.partial(jax_step, devices=2)
    make = {"jax": jax_step, "jax2": two_devices, "torch": torch_step}[framework]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    step, peak = make(benchmark, how, dtype[0] if dtype else "float32")
    for _ in range(2):
        step()
    print(json.dumps("ready"), flush=True)
    for _ in sys.stdin:
        times = []
        for _ in range(1 + benchmark.steps):
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
        used = peak() or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
        if framework == "torch":
            import torch

            torch.cuda.empty_cache()  # room for the others
        print(json.dumps({"seconds": statistics.median(times[1:]), "bytes": used}), flush=True)


def main(benchmark: Benchmark) -> None:
    """Print a table."""
    if benchmark.worker:
        work(benchmark, benchmark.worker)
        return
    command = [sys.executable, "-m", "experiments.benchmark_training", *sys.argv[1:]]
    workers = {}

    def read(variant: str):
        line = workers[variant].stdout.readline()
        return json.loads(line) if line else None

    variants = benchmark.variants or default_variants()
    for variant in variants:
        workers[variant] = subprocess.Popen(
            [*command, "--worker", variant],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if not benchmark.together:
            read(variant)
    for variant in variants if benchmark.together else ():
        print(variant, read(variant), flush=True)
    found: dict[str, list[dict[str, float]]] = {variant: [] for variant in variants}
    for _ in range(benchmark.rounds):
        for variant in variants:
            if workers[variant].poll() is not None:
                continue  # it has said why: too little memory, for instance
            workers[variant].stdin.write("go\n")
            workers[variant].stdin.flush()
            if result := read(variant):
                found[variant].append(result)
            print(variant, result, flush=True)
    for worker in workers.values():
        worker.stdin.close()
    versions = ", ".join(f"{name} {version(name)}" for name in ("jax", "torch"))
    print(f"\n{benchmark}\n{machine()}, {versions}, {datetime.date.today()}\n")
    print("| step | ms, median (least to most) | peak memory, MiB |")
    print("| --- | ---: | ---: |")
    for variant, results in found.items():
        if not results:
            continue
        times = sorted(1e3 * result["seconds"] for result in results)
        memory = max(result["bytes"] for result in results) / 2**20
        middle = statistics.median(times)
        print(f"| {variant} | {middle:.0f} ({times[0]:.0f} to {times[-1]:.0f}) | {memory:.0f} |")


def machine() -> str:
    """What it ran on."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{os.cpu_count()} cores"


def default_variants() -> tuple[str, ...]:
    """Those that suit the device."""
    import torch

    plain = ("jax_full", "jax_checkpointed", "torch_autograd")
    if not torch.cuda.is_available():
        return ("jax_full", "jax_checkpointed", "jax2_full", "jax2_checkpointed", "torch_autograd")
    variants = [f"{name}{dtype}" for dtype in ("", "_tf32", "_bfloat16") for name in plain]
    return (*variants, "torch_compile_tf32", "torch_compile_bfloat16")


if __name__ == "__main__":
    main(tyro.cli(Benchmark))
