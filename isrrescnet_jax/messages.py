"""What went wrong, in one line."""

import contextlib
import importlib
import io
import re
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

# Which extra of the package brings a module; all others belong to "train".
EXTRAS = {
    "flatbuffers": "export",
    "fsspec": "buckets",
    "gradio": "demo",
    "huggingface_hub": "hub",
    "matplotlib": "figures",
    "pandas": "ray",
    "pyarrow": "ray",
    "ray": "ray",
}


# What a terminal obeys, or shows in another order: control characters and those of direction.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """With escapes for what would change more of a terminal than its own place, as in names.

    >>> printable("two\\nlines, \\x1b[31mred")
    'two\\\\nlines, \\\\x1b[31mred'
    """
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def say(line: str, file: Any) -> None:
    """Print one line to a text stream, with escapes (see `printable`), at once."""
    print(printable(line), file=file, flush=True)


def one_line(error: BaseException, about: object = None) -> str:
    """The message of an error on one line, which names what it is about."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    named = about is None or " ".join(str(about).split()) in text
    return printable(text if named else f"{about}: {text}")


def counted(number: int, thing: str) -> str:
    """The two, in English.

    >>> counted(1, "iteration"), counted(10, "iteration")
    ('1 iteration', '10 iterations')
    """
    return f"{number} {thing}" + "s" * (number != 1)


def needed(module: str) -> ModuleType:
    """A module of an extra; where it is not installed, the error says what to install."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(not_installed(error.name), name=error.name) from None


def not_installed(module: str | None) -> str:
    """What to do about it.

    >>> not_installed("matplotlib")
    "matplotlib is not installed: pip install 'isrrescnet-jax[figures]'"
    """
    extra = EXTRAS.get(module or "", "train")
    return f"{module} is not installed: pip install 'isrrescnet-jax[{extra}]'"


@contextlib.contextmanager
def unboxed() -> Iterator[None]:
    """Around `tyro.cli`: what it says of a wrong command line, as a ValueError of one line."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            yield
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ValueError(_content(said.getvalue())) from None
    if sys.stderr is not None:
        sys.stderr.write(said.getvalue())


def _content(box: str) -> str:
    """The text in a box of lines, without its title, and without the help of what it proposes.

    >>> _content("╭─ Wrong ───────╮\\n│ step must     │\\n│ be positive   │\\n╰───────────────╯")
    'step must be positive (see --help)'
    """
    parts: list[list[str]] = [[]]
    for line in box.splitlines():
        text = line.strip("│╭╮╰╯ ")
        if text.endswith(
            ("──", "---")
        ):  # the title, or a rule; of ASCII where that is all there is
            parts.append([])
        elif text:
            parts[-1].append(text)
    said = []
    for part in parts[1:]:  # the first has the title, if anything
        if part and part[0].startswith("Perhaps you meant"):
            said.append(" ".join(part[:2]))
        elif part and not part[0].startswith("For full help"):
            said.append(" ".join(part))
    return f"{_CHOICES.sub(_in_order, '; '.join(said))} (see --help)"


_CHOICES = re.compile(r"(?<=Expected one of \()[^)]*")


def _in_order(choices: re.Match) -> str:
    """Tyro's list, which with a None, that nobody can give, has another order each time.

    >>> _CHOICES.sub(_in_order, "Expected one of ('4', 'None', '2').")
    "Expected one of ('2', '4')."
    """
    names = choices[0].split(", ")
    return ", ".join(sorted({*names} - {"'None'"}) if "'None'" in names else names)
