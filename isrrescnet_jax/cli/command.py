"""The command line: `isrrescnet upscale | evaluate | degrade | compare | train | info`.

Bad arguments and bad input end in one line on standard error and exit code 2; a batch goes on past
a bad file, names it at the end, and exits with 2 all the same.
"""

import atexit
import dataclasses
import functools
import gc
import os
import re
import sys
import time
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from tyro.conf import Positional, arg

from .. import __version__, images
from ..files import cache_folder

Inputs = Positional[tuple[str, ...]]


def _keep_compiled(folder: Path | None) -> None:
    """Have JAX keep every compiled program in `folder`."""
    import jax

    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return  # a read-only home costs compile time, no more
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@dataclasses.dataclass(frozen=True)
class _Model:
    """Options of the network, shared by the commands that run it."""

    weights: str | None = None
    """Shipped name (x4) or .safetensors file; the shipped ones for the scale by default."""
    ensemble: bool = False
    """Average over the 8 flips and rotations: slightly better, 8 times the work."""
    tile: int | Literal["auto", "none"] = "auto"
    """Largest side of tiles in high-resolution pixels; auto: what fits. Exact either way."""
    max_memory: str | None = None
    """Memory for one picture, such as 800M or 6G; what is free by default."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the network's features; bfloat16 is faster on GPUs and TPUs."""
    noise: float | Literal["estimate"] = "estimate"
    """Noise level of the input in grey levels, if known."""
    iterations: int | None = None
    """Number of iterations; as many as were trained by default."""
    operator: Literal["bicubic", "bilinear", "decimation", "blur"] = "bicubic"
    """How the input lost its resolution."""
    physics: Literal["reference", "exact"] | None = None
    """Kind of the operator; that which the weights were trained with by default."""
    kernel: Path | None = None
    """Blur kernel for --operator blur: a .npy file, (k, k) or (3, k, k)."""
    cache: bool = True
    """Keep compiled programs between runs (in ~/.cache/isrrescnet-jax; see `isrrescnet info`)."""
    trace: Path | None = None
    """Folder for a figure of the iterates of each picture (needs matplotlib)."""

    def upscaler(self, scale: int | None, device=None):
        """Load the weights, for `scale` or the one they were trained for; device work starts."""
        from ..physics import operators
        from ..upscaler import Upscaler
        from ..weights import load_weights

        if self.iterations is not None and self.iterations < 1:
            raise ValueError(f"--iterations must be at least 1, not {self.iterations}")
        if self.noise != "estimate" and not 0 <= self.noise < float("inf"):
            raise ValueError(f"--noise must be estimate or at least 0, not {self.noise}")
        if (self.operator == "blur") != (self.kernel is not None):
            raise ValueError("--operator blur and --kernel FILE go together")
        if self.cache:
            _keep_compiled(cache_folder())
        weights = load_weights(self.weights or f"x{scale or 4}")
        scale = scale or weights.config.scale or 4
        reference = None if self.physics is None else self.physics == "reference"
        if self.kernel is not None:
            operator = operators.Blur(scale, _kernel(self.kernel), reference=reference)
        else:
            operator = getattr(operators, self.operator.capitalize())(scale, reference=reference)
        return Upscaler(
            weights,
            scale,
            operator,
            noise=self.noise,
            iterations=self.iterations,
            dtype=self.dtype,
            ensemble=self.ensemble,
            tile=None if self.tile == "none" else self.tile,
            max_memory=_bytes(self.max_memory),
            device=device,
        )


def _bytes(text: str | None) -> int | None:
    """800M, 6G, 1.5GiB or a number of bytes."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", text.strip().lower())
    if not match or not float(match[1]):
        raise ValueError(f"--max-memory must be like 800M or 6G, not {text}")
    return int(float(match[1]) * 1024 ** " kmgt".index(match[2] or " "))


def _kernel(path: Path):
    try:
        return np.load(path, allow_pickle=False).astype(np.float32)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: not a readable .npy file: {error}") from None


@dataclasses.dataclass(frozen=True)
class _Files:
    """Options of the commands that write one picture for each one they read."""

    inputs: Inputs = ()
    """Files, folders or patterns."""
    format: Literal["png", "jpg", "webp", "tiff", "bmp"] = "png"
    """File format of the results."""
    overwrite: bool = False
    """Replace results that exist."""
    skip_existing: bool = False
    """Pass over pictures whose result exists: continues an interrupted run."""
    shard: str = "1/1"
    """I/N: do every N-th picture, from the I-th, and leave the others to other machines."""

    def plan(self, out: Path) -> list[tuple[Path, Path]]:
        """Pairs of input and output; says how many."""
        if not self.inputs:
            raise ValueError("name at least one picture, folder or pattern (see --help)")
        if self.overwrite and self.skip_existing:
            raise ValueError("--overwrite and --skip-existing exclude each other")
        existing = "overwrite" if self.overwrite else "skip" if self.skip_existing else "refuse"
        part = re.fullmatch(r"(\d+)/(\d+)", self.shard)
        if not part or not 1 <= int(part[1]) <= int(part[2]):
            raise ValueError(f"--shard must be I/N with I from 1 to N, not {self.shard}")
        sources = images.find(self.inputs)[int(part[1]) - 1 :: int(part[2])]
        plan = images.plan_outputs(sources, out, f".{self.format}", existing)
        skipped = len(sources) - len(plan)
        print(
            f"{len(plan)} picture{'s' * (len(plan) != 1)} to do"
            + (f", {skipped} already there" if skipped else ""),
            flush=True,
        )
        return plan


@dataclasses.dataclass(frozen=True)
class Upscale(_Model, _Files):
    """Upscale pictures: files, folders, patterns; PNG, JPEG, WebP, TIFF or BMP."""

    scale: Annotated[Literal[2, 3, 4] | None, arg(help_behavior_hint="(default: 4)")] = None
    """Factor by which height and width grow; that of --weights where these are given."""
    out: Path = Path("sr_results")
    """Folder for the results, named <stem>.png."""

    def run(self) -> int:
        """Upscale every picture; 0, or 2 if one failed."""
        plan = self.plan(self.out)
        if not plan:
            return 0
        import jax

        from .overlap import overlapped

        devices = jax.local_devices()[: len(plan)]
        upscalers = [self.upscaler(self.scale, device) for device in devices]
        scale = upscalers[0].scale

        def read(job: tuple[Path, Path]) -> images.Picture:
            source, target = job
            picture = images.read(source)
            height, width = picture.color.shape[:2]
            # Before the work rather than after it.
            empty = np.broadcast_to(np.float32(0), (height * scale, width * scale, 1))
            images.check_writable(dataclasses.replace(picture, color=empty), target)
            return picture

        def compute(upscaler, picture):
            solution = upscaler.trace(picture.color) if self.trace else None
            return upscale_picture(upscaler, picture), solution

        def write(job: tuple[Path, Path], result) -> str:
            (source, target), (picture, solution) = job, result
            images.write(picture, target)
            if self.trace:
                from ..evaluation.figures import trace_figure

                trace_figure(solution, self.trace / f"{source.stem}_iterates.png")
            height, width = picture.color.shape[:2]
            return f"{source} {width // scale}x{height // scale} -> {target}"

        computes = [functools.partial(compute, upscaler) for upscaler in upscalers]
        return _report(plan, overlapped(plan, read, computes, write), self.out)


@dataclasses.dataclass(frozen=True)
class Degrade(_Files):
    """Make low-resolution pictures as the benchmarks have them (MATLAB's bicubic imresize)."""

    scale: Literal[2, 3, 4] = 4
    """Factor by which height and width shrink; pictures are cut to multiples of it first."""
    out: Path | None = None
    """Folder for the results, named <stem>.png."""
    border: Literal["symmetric", "replicate"] = "symmetric"
    """Beyond its edge a picture is mirrored, or its edge pixels are repeated."""
    kernel: Path | None = None
    """Blur before reducing: a .npy file, (k, k) with odd k."""
    noise: float = 0.0
    """Standard deviation of Gaussian noise added at the end, in grey levels."""
    seed: int = 0
    """Of the noise, which also depends on the picture's file name."""

    def run(self) -> int:
        """Reduce every picture; 0, or 2 if one failed."""
        from ..evaluation.degrade import degrade
        from .overlap import overlapped

        if self.out is None:
            raise ValueError("name a folder for the results: --out DIR")
        plan = self.plan(self.out)
        kernel = None if self.kernel is None else _kernel(self.kernel)

        def read(job: tuple[Path, Path]):
            picture = images.read(job[0])
            if picture.alpha is not None:
                raise ValueError("pictures with transparency cannot be degraded")
            return (
                self.seed + zlib.crc32(job[0].name.encode()),
                images.to_uint8(picture.color),
                picture.icc,
            )

        def compute(value):
            seed, hr, icc = value
            lr = degrade(hr, self.scale, self.border, kernel, self.noise, seed)
            return hr.shape, images.Picture(lr.astype(np.float32), icc=icc)

        def write(job: tuple[Path, Path], result) -> str:
            shape, picture = result
            images.write(picture, job[1])
            return f"{job[0]} {shape[1]}x{shape[0]} -> {job[1]}"

        return _report(plan, overlapped(plan, read, [compute], write), self.out) if plan else 0


@dataclasses.dataclass(frozen=True)
class Evaluate(_Model):
    """Measure PSNR and SSIM on folders of pictures, beside bicubic interpolation."""

    hr: tuple[Path, ...] = ()
    """Folders of high-resolution pictures, one for each data set and scale."""
    lr: tuple[Path, ...] = ()
    """Their low-resolution counterparts, in the same order; made by `degrade` where not given."""
    scale: tuple[int, ...] = (4,)
    """One for all folders, or one for each."""
    border: Literal["symmetric", "replicate"] = "symmetric"
    """Of `degrade`."""
    times: bool = True
    """Print seconds per picture, all that differs between two runs."""
    warm_up: bool = False
    """Run every picture twice, so that the times leave out compilation."""
    json: Path | None = None
    """Write every number to this file."""
    csv: Path | None = None
    """Write a table with a line for each picture."""
    markdown: Path | None = None
    """Write a summary with the paper's numbers, and a table for each data set."""

    def run(self) -> int:
        """Measure and print; 0, or 2 if a picture could not be measured."""
        from ..evaluation import evaluate

        if not self.hr:
            raise ValueError("name a folder of high-resolution pictures: --hr DIR")
        label = self.weights or "shipped"
        label = Path(label).stem + ("+" if self.ensemble else "")
        reports = []
        for benchmark in evaluate.benchmarks(self.hr, self.lr, self.scale, self.border):
            print(f"{benchmark.name} x{benchmark.scale}: {benchmark.hr}", flush=True)
            upscaler = self.upscaler(benchmark.scale)

            def each(row, pictures, benchmark=benchmark, upscaler=upscaler):
                score = row.model["paper"]
                seconds = f"  {row.seconds:.2f} s" if self.times else ""
                print(f"  {row.image}  {score.psnr:.2f} dB{seconds}", flush=True)
                if self.trace:
                    from ..evaluation.figures import trace_figure

                    name = f"{benchmark.name}_x{benchmark.scale}_{row.image}_iterates.png"
                    solution = upscaler.trace(pictures["lr"])
                    trace_figure(solution, self.trace / name, hr=pictures["hr"])

            reports.append(evaluate.evaluate(benchmark, upscaler, warm_up=self.warm_up, each=each))
        for report in reports:
            print("\n" + evaluate.text(report, label, self.times))
        if self.json:
            evaluate.save(evaluate.as_json(reports, label, self.times), self.json)
        if self.csv:
            evaluate.save(evaluate.as_csv(reports, self.times), self.csv)
        if self.markdown:
            evaluate.save(evaluate.markdown(reports, label, self.times), self.markdown)
        return 2 if any(report.problems for report in reports) else 0


@dataclasses.dataclass(frozen=True)
class Compare:
    """Draw two pictures side by side, a part of each enlarged, as papers do."""

    a: Positional[Path]
    """The picture on the left."""
    b: Positional[Path]
    """The picture on the right; the smaller of the two is enlarged."""
    out: Path
    """The figure: .png, .pdf or .svg."""
    truth: Path | None = None
    """The high-resolution picture, for the PSNR in the captions."""
    crop: tuple[int, int, int, int] | None = None
    """x y width height of the part that is enlarged, in the larger picture; chosen by default."""
    overwrite: bool = False
    """Replace the figure if it exists."""

    def run(self) -> int:
        """Draw it."""
        from ..evaluation.figures import compare

        if self.out.exists() and not self.overwrite:
            raise ValueError(f"{self.out}: already there; use --overwrite")
        if self.out.resolve() in {p.resolve() for p in (self.a, self.b, self.truth) if p}:
            raise ValueError(f"{self.out}: would overwrite an input")
        a, b = (images.to_uint8(images.read(path).color) for path in (self.a, self.b))
        truth = None if self.truth is None else images.to_uint8(images.read(self.truth).color)
        titles = (self.a.stem, self.b.stem)
        compare(a, b, self.out, truth=truth, titles=titles, crop=self.crop)
        print(self.out)
        return 0


def upscale_picture(upscaler, picture: images.Picture) -> images.Picture:
    """A picture upscaled, with its transparency, bit depth and colour profile."""
    from ..upscaler import upscale_alpha

    alpha = picture.alpha
    return dataclasses.replace(
        picture,
        color=upscaler(picture.color),
        alpha=None if alpha is None else upscale_alpha(alpha, upscaler.scale),
    )


def _report(plan, finished, out: Path) -> int:
    """Show how far the plan is and what went wrong; `finished` as from `batch.overlapped`."""
    from tqdm import tqdm

    failures = []
    start = time.perf_counter()
    with tqdm(finished, total=len(plan), unit="picture", disable=None) as bar:
        for (source, _), done, seconds in bar:
            try:
                line = done.result()
            # JAX raises RuntimeError where memory runs out.
            except (OSError, ValueError, MemoryError, RuntimeError) as error:
                failures.append(_one_line(error, source))
                bar.set_postfix_str(f"{len(failures)} failed")
            else:
                tqdm.write(f"{line}  {seconds:.2f} s")
                sys.stdout.flush()
    done = len(plan) - len(failures)
    print(f"{done} of {len(plan)} written to {out}{os.sep} in {time.perf_counter() - start:.1f} s")
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 2 if failures else 0


@dataclasses.dataclass(frozen=True)
class Train:
    """Train from a recipe: `isrrescnet train RECIPE.py --help` shows its fields."""

    def run(self) -> int:
        """Never called: `main` hands the rest of the command line to the recipe."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Info:
    """Show versions, devices, shipped weights and the cache folder."""

    def run(self) -> int:
        """Print them."""
        import flax
        import jax

        from ..weights import load_weights_and_metadata, shipped_weights

        print(f"isrrescnet-jax {__version__}, jax {jax.__version__}, flax {flax.__version__}")
        print(f"Python {sys.version.split()[0]}")
        print("devices:", ", ".join(f"{d.platform} {d.device_kind}" for d in jax.devices()))
        print("compiled programs:", cache_folder() or "not kept")
        for name, path in shipped_weights().items():
            weights, metadata = load_weights_and_metadata(name)
            config = weights.config
            print(
                f"weights {name}: depth {config.depth}, {config.feedback_steps} feedback steps, "
                f"{config.iterations} iterations, {config.physics} physics, "
                f"{path.stat().st_size / 1e6:.1f} MB"
            )
            for key, value in metadata.items():
                print(f"    {key}: {value}")
        return 0


def _one_line(error: BaseException, source: object = None) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return text if source is None or str(source) in text else f"{source}: {text}"


def _show(message, category, filename, lineno, file=None, line=None) -> None:
    """A warning, in one line and without the line of code."""
    print(f"isrrescnet: {' '.join(str(message).split())}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of `isrrescnet`."""
    # What JAX imported lives until the end. Collections that look through all of it cost tenths of
    # a second while tracing, and half a second at exit.
    gc.freeze()
    atexit.register(gc.freeze)
    warnings.showwarning = _show
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        if argv[:1] == ["train"]:
            from ..train import run_recipe

            sys.exit(run_recipe(argv[1:]))
        if argv[:1] == ["--version"]:
            print(__version__)
            sys.exit(0)
        command = tyro.cli(
            Annotated[Upscale, tyro.conf.subcommand("upscale")]
            | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
            | Annotated[Degrade, tyro.conf.subcommand("degrade")]
            | Annotated[Compare, tyro.conf.subcommand("compare")]
            | Annotated[Train, tyro.conf.subcommand("train")]
            | Annotated[Info, tyro.conf.subcommand("info")],
            args=argv,
            prog="isrrescnet",
            description="Single-image super-resolution with ISRResCNet.",
        )
        sys.exit(command.run())
    except (ValueError, OSError) as error:
        print(f"isrrescnet: {_one_line(error)}", file=sys.stderr)
        sys.exit(2)
    except ModuleNotFoundError as error:
        extra = "figures" if error.name == "matplotlib" else "train"
        needs = f"{error.name} is not installed: pip install 'isrrescnet-jax[{extra}]'"
        print(f"isrrescnet: {needs}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\nisrrescnet: interrupted; --skip-existing continues", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
