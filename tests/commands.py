"""The commands, called in this process."""

import pytest

from isrrescnet_jax import cli


def run(*argv: object) -> int:
    with pytest.raises(SystemExit) as stop:
        cli.main([str(a) for a in argv])
    return stop.value.code


def fails(capsys, *argv: object) -> str:
    """The one line on standard error of a command that must end with code 2."""
    capsys.readouterr()
    assert run(*argv) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line
