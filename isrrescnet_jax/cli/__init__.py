"""The command line.

`isrrescnet upscale | evaluate | degrade | compare | export | demo | pack | train | info`

Bad arguments and bad input end in one line on standard error and exit code 2; a batch goes on past
a bad file, names it at the end, and exits with 2 all the same.
"""

import atexit
import contextlib
import gc
import io
import signal
import sys
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

from .. import __version__
from ..messages import not_installed, one_line, say, unboxed
from .startup import open_streams, uncollected

__all__ = ["main"]

# How a command that was interrupted goes on.
_GOES_ON = {
    "upscale": "; --skip-existing continues",
    "degrade": "; --skip-existing continues",
    "train": "; the same command continues",
}


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Entry point of `isrrescnet`; without arguments it shows its help."""
    atexit.register(gc.freeze)
    open_streams()
    argv = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    for stream in (sys.stdout, sys.stderr):  # names that their encoding does not know
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show
            for library in ("PIL", "tifffile"):  # of damage that is an error or does not matter
                warnings.filterwarnings("ignore", module=rf"{library}\b")
            if argv == ["--version"]:
                print(__version__)
                sys.exit(0)
            _check_empty(argv)
            sys.exit(_command(argv).run())
    except (ValueError, OSError) as error:
        say(f"isrrescnet: {one_line(error)}", sys.stderr)
        sys.exit(2)
    except MemoryError:
        say("isrrescnet: memory ran out: cut pictures into parts, or give more", sys.stderr)
        sys.exit(2)
    except ModuleNotFoundError as error:
        say(f"isrrescnet: {not_installed(error.name)}", sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        with contextlib.suppress(ValueError):  # not in the main thread
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second one ends what still is written
        print(file=sys.stderr)
        goes_on = _GOES_ON.get(argv[0], "")
        if goes_on and "--ray" in argv:
            goes_on = _GOES_ON["train"]
        say(f"isrrescnet: interrupted{goes_on}", sys.stderr)
        sys.exit(130)


def _check_empty(argv: list[str]) -> None:
    """Raise ValueError for an empty word, which would be the name of the current folder."""
    for i, word in enumerate(argv):
        option = argv[max(0, i - 1)] if word == "" else word[:-1]
        nothing = word == "" or (word.startswith("--") and word.endswith("="))
        if nothing and option not in ("--suffix", "--data.cache"):
            raise ValueError(f"nothing is given after {option}: is a variable not set?")


def _command(argv: list[str]) -> Any:
    """The command that these arguments mean, with its options; it has `run() -> exit code`."""
    with uncollected():
        from typing import Annotated

        import tyro
        from tyro.conf import subcommand

        from .compare import Compare
        from .degrade import Degrade
        from .demo import Demo
        from .evaluate import Evaluate
        from .export import Export
        from .info import Info
        from .pack import Pack
        from .train import Train
        from .upscale import Upscale

        if argv[0] == "train":  # the recipe has a word in which options there are
            return Train(tuple(argv[1:]))
        with unboxed():
            return tyro.cli(
                Annotated[Upscale, subcommand("upscale")]
                | Annotated[Evaluate, subcommand("evaluate")]
                | Annotated[Degrade, subcommand("degrade")]
                | Annotated[Compare, subcommand("compare")]
                | Annotated[Export, subcommand("export")]
                | Annotated[Demo, subcommand("demo")]
                | Annotated[Pack, subcommand("pack")]
                | Annotated[Train, subcommand("train")]
                | Annotated[Info, subcommand("info")],
                args=argv,
                prog="isrrescnet",
                description="Single-image super-resolution with ISRResCNet.",
            )


def _show(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any
) -> None:
    """A warning, in one line and without the line of code."""
    say(f"isrrescnet: {' '.join(str(message).split())}", sys.stderr)
