"""Our inference against PyTorch's: time, compile time and peak memory, alternated in one run.

    python -m experiments.benchmark_inference [--size 64 --scale 4 --rounds 7]

The official configuration (depth 5, 4 feedback steps, K = 10) on one image, with the same weights,
image and number of threads. PyTorch is `convert.torch_model`, eager and with `torch.compile`. Each
variant lives in a process of its own, so that the peak memory is its own, and runs only when it is
its turn. Speed is the ratio of the medians. "programs" are those that XLA compiles for the first
image, small ones on the way included. A product of two large matrices takes turns too, as the
measure of what the processor can do.
"""

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tyro

from . import harness

Runner = Callable[[], int]  # upscales once, waits, and returns the programs compiled for that


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """What is measured."""

    size: int = 64
    """Side of the low-resolution image in pixels."""
    scale: int = 4
    """Factor."""
    iterations: int = 10
    """K."""
    rounds: int = 7
    """How often each variant runs, in turns; the median counts."""
    variants: tuple[str, ...] = ("jax", "torch", "torch_compile")
    """Some of jax, jax_tiled, jax_bfloat16, torch, torch_channels_last, torch_compile."""
    json: Path | None = None
    """File for the numbers."""

    def image(self) -> np.ndarray:
        """(h, w, 3); noise, for which the network does the same work."""
        shape = (self.size, self.size, 3)
        return np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)


def jax_runner(config: Benchmark, variant: str) -> Runner:
    """Ours; or, for `matmul`, the product of two matrices of 2048 x 2048."""
    import jax

    import isrrescnet_jax as isr
    from isrrescnet_jax.upscaler import Upscaler

    if variant == "matmul":
        a = jax.random.normal(jax.random.key(0), (2048, 2048))
        product = jax.jit(lambda a: jax.numpy.dot(a, a, precision="highest"))

        def run() -> object:
            return product(a).block_until_ready()
    else:
        model = isr.ModelConfig(scale=config.scale, iterations=config.iterations)
        weights = isr.init_weights(model, jax.random.key(0))
        dtype = "bfloat16" if variant == "jax_bfloat16" else None
        upscaler = Upscaler(weights, dtype=dtype, tile=256 if variant == "jax_tiled" else "auto")
        image = config.image()

        def run() -> object:
            return upscaler(image)

    def counted() -> int:
        with harness.compiled_programs() as found:
            run()
        return len(found)

    return counted


def torch_runner(config: Benchmark, variant: str) -> Runner:
    """The same in PyTorch."""
    import jax
    import torch

    import isrrescnet_jax as isr
    from convert import to_torch, torch_model

    shape = isr.ModelConfig(scale=config.scale, iterations=config.iterations)
    weights = isr.init_weights(shape, jax.random.key(0))
    model = torch_model.from_state(to_torch(weights.params)).eval()
    torch.set_num_threads(harness.cores())
    if variant == "torch_channels_last":
        model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] (stubs)
    if variant == "torch_compile":
        model.model.compile()
    lr = torch.from_numpy(config.image().transpose(2, 0, 1)[None].copy())

    def run() -> int:
        with torch.inference_mode():
            model(lr, config.scale)["iterates"][-1].numpy()
        return 0

    return run


def main(config: Benchmark) -> None:
    """Start the workers, let them take turns, print the table."""
    print(harness.environment("jax", "torch"), config, sep="\n", flush=True)
    with contextlib.ExitStack() as stack:
        workers = {
            variant: stack.enter_context(
                harness.Worker(
                    torch_runner if variant.startswith("torch") else jax_runner, config, variant
                )
            )
            for variant in (*config.variants, "matmul")
        }
        first: dict[str, tuple[int, float]] = {}
        for variant, worker in workers.items():
            first[variant] = worker(), worker.seconds
        seconds: dict[str, list[float]] = {variant: [] for variant in workers}
        for _ in range(config.rounds):
            for variant, worker in workers.items():
                worker()
                seconds[variant].append(worker.seconds)
        peaks = {variant: worker.peak() / 1e6 for variant, worker in workers.items()}
    median = {variant: harness.median(times) for variant, times in seconds.items()}
    base = median.get("torch")
    table = harness.Table("", "seconds (range)", "speed", "compile, s", "programs", "peak, MB")
    rows = []
    for variant in config.variants:
        programs, start = first[variant]
        compiling = max(start - median[variant], 0)
        ratio = f"{base / median[variant]:.2f}" if base else ""
        times = harness.spread(seconds[variant])
        table.row(
            variant, times, ratio, f"{compiling:.1f}", programs or "", f"{peaks[variant]:.0f}"
        )
        row = {"variant": variant, "seconds": seconds[variant], "compile": compiling}
        rows.append(row | {"programs": programs, "peak_megabytes": peaks[variant]})
    # 3 MFLOP per high-resolution pixel and iteration, nearly all in the 3x3 convolutions.
    work = 3e-3 * config.iterations * (config.size * config.scale) ** 2
    peak = 2 * 2048**3 / median["matmul"] / 1e9
    print(f"\nproduct of matrices: {peak:.0f} GFLOP/s")
    for variant in config.variants:
        rate = work / median[variant]
        print(f"{variant}: {rate:.0f} GFLOP/s of plain arithmetic, {rate / peak:.0%} of that")
    harness.write_json(config.json, rows, "jax", "torch")


if __name__ == "__main__":
    main(tyro.cli(Benchmark))
