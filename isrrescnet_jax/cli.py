"""The command line: `isrrescnet upscale | evaluate | degrade | compare | train | info`.

Bad arguments and bad input end in one line on standard error and exit code 2; a batch goes on past
a bad file, names it at the end, and exits with 2 all the same.
"""

import dataclasses
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional, arg

from . import __version__, images

Inputs = Positional[tuple[str, ...]]


def cache_folder() -> Path | None:
    """Where compiled programs are kept between runs; None when that is turned off.

    `$ISRRESCNET_CACHE` if set (empty: off), else `isrrescnet-jax` in `$XDG_CACHE_HOME` or ~/.cache.
    """
    chosen = os.environ.get("ISRRESCNET_CACHE")
    if chosen is not None:
        return Path(chosen) if chosen else None
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "isrrescnet-jax"


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

    scale: Annotated[Literal[2, 3, 4] | None, arg(help_behavior_hint="(default: 4)")] = None
    """Factor by which height and width grow; that of --weights where these are given."""
    weights: str | None = None
    """Shipped name (x4) or .safetensors file; the shipped ones for the scale by default."""
    ensemble: bool = False
    """Average over the 8 flips and rotations: slightly better, 8 times the work."""
    tile: int | Literal["auto", "none"] = "auto"
    """Side of tiles in high-resolution pixels; auto: only for large pictures. Exact either way."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the network's features; bfloat16 is faster on GPUs and TPUs."""
    noise: float | Literal["estimate"] = "estimate"
    """Noise level of the input in grey levels, if known."""
    iterations: int | None = None
    """Number of iterations; as many as were trained by default."""
    operator: Literal["bicubic", "bilinear", "decimation", "blur"] = "bicubic"
    """How the input lost its resolution."""
    kernel: Path | None = None
    """Blur kernel for --operator blur: a .npy file, (k, k) or (3, k, k)."""
    cache: bool = True
    """Keep compiled programs between runs (in ~/.cache/isrrescnet-jax; see `isrrescnet info`)."""

    def upscaler(self):
        """Load the weights; device work starts here."""
        import numpy as np

        from . import operators
        from .upscale import Upscaler
        from .weights import load_weights

        if self.iterations is not None and self.iterations < 1:
            raise ValueError(f"--iterations must be at least 1, not {self.iterations}")
        if self.noise != "estimate" and not self.noise >= 0:
            raise ValueError(f"--noise must be estimate or at least 0, not {self.noise}")
        if (self.operator == "blur") != (self.kernel is not None):
            raise ValueError("--operator blur and --kernel FILE go together")
        if self.cache:
            _keep_compiled(cache_folder())
        weights = load_weights(self.weights or f"x{self.scale or 4}")
        scale = self.scale or weights.config.scale or 4
        if self.kernel is not None:
            try:
                kernel = np.load(self.kernel, allow_pickle=False).astype(np.float32)
            except (OSError, ValueError) as error:
                raise ValueError(f"{self.kernel}: not a readable .npy file: {error}") from None
            operator = operators.Blur(scale, kernel)
        else:
            name = self.operator.capitalize()
            operator = getattr(operators, name)(scale)
        tile = None if self.tile == "none" else self.tile
        return Upscaler(
            weights, scale, operator, self.noise, self.iterations, self.dtype, self.ensemble, tile
        )


@dataclasses.dataclass(frozen=True)
class Upscale(_Model):
    """Upscale pictures: files, folders, patterns; PNG, JPEG, WebP, TIFF or BMP."""

    inputs: Inputs = ()
    """Files, folders or patterns."""
    out: Path = Path("sr_results")
    """Folder for the results, named <stem>.png."""
    format: Literal["png", "jpg", "webp", "tiff", "bmp"] = "png"
    """File format of the results."""
    overwrite: bool = False
    """Replace results that exist."""
    skip_existing: bool = False
    """Pass over pictures whose result exists: continues an interrupted run."""
    trace: Path | None = None
    """Folder for a figure of the iterates of each picture (needs matplotlib)."""

    def run(self) -> int:
        """Upscale every picture; 0, or 2 if one failed."""
        if not self.inputs:
            raise ValueError("name at least one picture, folder or pattern (see --help)")
        if self.overwrite and self.skip_existing:
            raise ValueError("--overwrite and --skip-existing exclude each other")
        existing = "overwrite" if self.overwrite else "skip" if self.skip_existing else "refuse"
        sources = images.find(self.inputs)
        plan = images.plan_outputs(sources, self.out, f".{self.format}", existing)
        skipped = len(sources) - len(plan)
        print(f"{len(plan)} picture{'s' * (len(plan) != 1)} to upscale", end="", flush=True)
        print(f", {skipped} already there" if skipped else "", flush=True)
        if not plan:
            return 0
        upscaler = self.upscaler()

        def one(source: Path, target: Path) -> str:
            picture = images.read(source)
            result = upscale_picture(upscaler, picture)
            images.write(result, target)
            if self.trace:
                from .figures import trace_figure

                figure = self.trace / f"{source.stem}_iterates.png"
                trace_figure(upscaler.trace(picture.color), figure)
            height, width = picture.color.shape[:2]
            return f"{source} {width}x{height} -> {target}"

        return _for_each(plan, one, self.out)


def upscale_picture(upscaler, picture: images.Picture) -> images.Picture:
    """A picture upscaled, with its transparency, bit depth and colour profile."""
    from .upscale import upscale_alpha

    alpha = picture.alpha
    return dataclasses.replace(
        picture,
        color=upscaler(picture.color),
        alpha=None if alpha is None else upscale_alpha(alpha, upscaler.scale),
    )


def _for_each(plan, one, out: Path) -> int:
    """Run `one(source, target)` over the plan with a progress bar; go on past bad files."""
    from tqdm import tqdm

    failures = []
    start = time.perf_counter()
    with tqdm(plan, unit="picture", disable=None) as bar:
        for source, target in bar:
            begun = time.perf_counter()
            try:
                done = one(source, target)
            # JAX raises RuntimeError where memory runs out.
            except (OSError, ValueError, MemoryError, RuntimeError) as error:
                failures.append(_one_line(error, source))
                bar.set_postfix_str(f"{len(failures)} failed")
            else:
                tqdm.write(f"{done}  {time.perf_counter() - begun:.2f} s")
                sys.stdout.flush()
    done = len(plan) - len(failures)
    print(f"{done} of {len(plan)} written to {out}{os.sep} in {time.perf_counter() - start:.1f} s")
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 2 if failures else 0


@dataclasses.dataclass(frozen=True)
class Info:
    """Show versions, devices, shipped weights and the cache folder."""

    def run(self) -> int:
        """Print them."""
        import flax
        import jax

        from .weights import load_weights_and_metadata, shipped_weights

        print(f"isrrescnet-jax {__version__}, jax {jax.__version__}, flax {flax.__version__}")
        print(f"Python {sys.version.split()[0]}")
        print("devices:", ", ".join(f"{d.platform} {d.device_kind}" for d in jax.devices()))
        print("compiled programs:", cache_folder() or "not kept")
        for name, path in shipped_weights().items():
            weights, metadata = load_weights_and_metadata(name)
            config = weights.config
            print(
                f"weights {name}: depth {config.depth}, {config.feedback_steps} feedback steps, "
                f"{config.iterations} iterations, {path.stat().st_size / 1e6:.1f} MB"
            )
            for key, value in metadata.items():
                print(f"    {key}: {value}")
        return 0


def _one_line(error: BaseException, source: object = None) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return text if source is None or str(source) in text else f"{source}: {text}"


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of `isrrescnet`."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        if argv[:1] == ["train"]:
            from .train import run_recipe

            sys.exit(run_recipe(argv[1:]))
        if argv[:1] == ["--version"]:
            print(__version__)
            sys.exit(0)
        command = tyro.cli(
            Annotated[Upscale, tyro.conf.subcommand("upscale")]
            | Annotated[Info, tyro.conf.subcommand("info")],
            args=argv,
            prog="isrrescnet",
            description="Single-image super-resolution with ISRResCNet.",
        )
        sys.exit(command.run())
    except (ValueError, OSError) as error:
        print(f"isrrescnet: {_one_line(error)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\nisrrescnet: interrupted; --skip-existing continues", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
