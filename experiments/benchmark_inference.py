"""Our inference against PyTorch's: time, compile time and peak memory, alternated in one run.

    python experiments/benchmark_inference.py [--size 64 --scale 4 --rounds 7]

The official configuration (depth 5, 4 feedback steps, K = 10) on one image, with the same weights,
image and number of threads. PyTorch is `convert.torch_model`, eager and with `torch.compile`. Each
variant lives in a process of its own, so that the peak memory is its own, and runs only when it is
its turn. Speed is the ratio of the medians. "programs" are those that XLA compiles for the first
image, small ones on the way included. A product of two large matrices takes turns too, as the
measure of what the processor can do. Prints a Markdown table.
"""

import dataclasses
import datetime
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from importlib.metadata import version

import numpy as np
import tyro

COMPILED = "backend_compile_duration"
VARIANTS = ("jax", "jax_tiled", "jax_bfloat16", "torch", "torch_channels_last", "torch_compile")


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """What is measured."""

    size: int = 64
    """Side of the low-resolution image in pixels."""
    scale: int = 4
    """Factor."""
    rounds: int = 7
    """How often each variant runs, in turns; the median counts."""
    variants: tuple[str, ...] = ("jax", "torch", "torch_compile")
    """Some of jax, jax_tiled, jax_bfloat16, torch, torch_channels_last, torch_compile."""
    worker: str | None = None
    """For internal use: the variant that this process runs."""


def jax_runner(config: Benchmark, variant: str):
    """A function that upscales the image once and waits for the result."""
    import jax

    import isrrescnet_jax as isr
    from isrrescnet_jax.upscaler import Upscaler

    weights = isr.init_weights(isr.ModelConfig(scale=config.scale), jax.random.key(0))
    dtype = "bfloat16" if variant == "jax_bfloat16" else None
    tile = 256 if variant == "jax_tiled" else None
    return Upscaler(weights, dtype=dtype, tile=tile)


def matmul_runner():
    """A function that multiplies two matrices of 2048 x 2048 with JAX."""
    import jax

    a = jax.random.normal(jax.random.key(0), (2048, 2048))
    product = jax.jit(lambda a: jax.numpy.dot(a, a, precision="highest"))
    return lambda image: product(a).block_until_ready()


def torch_runner(config: Benchmark, variant: str):
    """The same in PyTorch."""
    import jax
    import torch

    import isrrescnet_jax as isr
    from convert import to_torch, torch_model

    weights = isr.init_weights(isr.ModelConfig(scale=config.scale), jax.random.key(0))
    model = torch_model.from_state(to_torch(weights.params)).eval()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    if variant == "torch_channels_last":
        model = model.to(memory_format=torch.channels_last)
    if variant == "torch_compile":
        model.model.compile()

    def run(image):
        lr = torch.from_numpy(image.transpose(2, 0, 1)[None].copy())
        with torch.inference_mode():
            return model(lr, config.scale)["iterates"][-1].numpy()

    return run


def work(config: Benchmark) -> None:
    """Run the variant once for each line on standard input; report seconds, then the rest."""
    compiled = []
    if config.worker == "matmul":
        run = matmul_runner()
    elif config.worker.startswith("jax"):
        import jax

        run = jax_runner(config, config.worker)
        jax.monitoring.register_event_duration_secs_listener(
            lambda event, *_, **__: compiled.append(event) if event.endswith(COMPILED) else None
        )
    else:
        run = torch_runner(config, config.worker)
    shape = (config.size, config.size, 3)
    image = np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)
    for line in sys.stdin:
        if line.strip() != "run":
            break
        start = time.perf_counter()
        run(image)
        print(time.perf_counter() - start, flush=True)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"memory": memory, "programs": len(compiled)}), flush=True)


def main(config: Benchmark) -> None:
    """Start the workers, let them take turns, print the table."""
    if config.worker:
        work(config)
        return
    shared = [f"--size={config.size}", f"--scale={config.scale}"]
    workers = {
        variant: subprocess.Popen(
            [sys.executable, __file__, *shared, f"--worker={variant}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for variant in (*config.variants, "matmul")
    }

    def ask(variant: str, what: str):
        workers[variant].stdin.write(what + "\n")
        workers[variant].stdin.flush()
        return json.loads(workers[variant].stdout.readline())

    first = {variant: ask(variant, "run") for variant in workers}
    seconds: dict[str, list[float]] = {variant: [] for variant in workers}
    for _ in range(config.rounds):
        for variant in workers:
            seconds[variant].append(ask(variant, "run"))
    rest = {variant: ask(variant, "end") for variant in workers}
    median = {variant: statistics.median(times) for variant, times in seconds.items()}
    base = median.get("torch")
    pixels = (config.size * config.scale) ** 2
    print(f"{config.size}x{config.size} at x{config.scale}, K = 10, {config.rounds} rounds;")
    print(
        f"{processor()}, {len(os.sched_getaffinity(0))} cores, "
        f"Python {platform.python_version()}, jax {version('jax')}, torch {version('torch')}, "
        f"{datetime.date.today()}"
    )
    print("\n| variant | seconds (range) | speed | compile, s | programs | peak memory, MB |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for variant in config.variants:
        times = seconds[variant]
        ratio = f"{base / median[variant]:.2f}" if base else ""
        spread = f"{median[variant]:.2f} ({min(times):.2f} to {max(times):.2f})"
        compiling = max(first[variant] - median[variant], 0)
        programs = rest[variant]["programs"] or ""
        memory = rest[variant]["memory"]
        print(f"| {variant} | {spread} | {ratio} | {compiling:.1f} | {programs} | {memory:.0f} |")
    # 30 MFLOP per high-resolution pixel, nearly all of them in the 3x3 convolutions.
    peak = 2 * 2048**3 / median["matmul"] / 1e9
    print(f"\nmatrix product: {peak:.0f} GFLOP/s")
    for variant in config.variants:
        rate = 30e-3 * pixels / median[variant]
        print(f"{variant}: {rate:.0f} GFLOP/s of plain arithmetic, {rate / peak:.0%} of that")


def processor() -> str:
    """Its name, where the system tells."""
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
        return names[0]
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main(tyro.cli(Benchmark))
