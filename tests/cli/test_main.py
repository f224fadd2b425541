import gc
import subprocess
import sys
import warnings

import pytest
from commands import fails, run

import isrrescnet_jax as isr


def test_unknown_arguments_exit_2(here, capsys):
    assert run("upscale", "photos", "--scale", "5") == 2
    assert run("upscal") == 2


COMMANDS = ["upscale", "evaluate", "degrade", "compare", "export", "demo", "pack", "train", "info"]


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_the_help_names_every_command(capsys, arguments):
    assert run(*arguments) == 0
    captured = capsys.readouterr()
    assert all(f"{name} " in captured.out for name in COMMANDS) and not captured.err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help(capsys, name):
    assert run(name, "--help") == 0
    assert f"usage: isrrescnet {name}" in capsys.readouterr().out


@pytest.mark.parametrize("module", ["isrrescnet_jax", "isrrescnet_jax.cli"])
def test_the_package_can_be_run(module):
    command = [sys.executable, "-m", module]
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == isr.__version__
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "upscale" in done.stdout and not done.stderr


@pytest.mark.parametrize("collecting", [True, False])
def test_the_collector_and_warnings_are_left_as_they_were(capsys, collecting):
    shown = warnings.showwarning
    (gc.enable if collecting else gc.disable)()
    try:
        for arguments in (["--help"], ["degrade", "nowhere"], ["--version"]):
            run(*arguments)
            assert gc.isenabled() == collecting and warnings.showwarning is shown
    finally:
        gc.enable()


def test_info_shows_the_shipped_weights(here, capsys):
    assert run("info") == 0
    out = capsys.readouterr().out
    assert "jax" in out and "not kept" in out
    assert all(f"weights {name}" in out for name in isr.shipped_weights())


def test_train_without_a_recipe_is_one_line(here, capsys):
    assert "none.py" in fails(capsys, "train", "none.py", "--workdir", "w")


def test_nothing_touches_a_device_on_import():
    code = (
        "import isrrescnet_jax, isrrescnet_jax.cli, sys\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge._backends\n"
        "heavy = {'torch', 'matplotlib', 'grain', 'tensorflow_datasets', 'pyarrow', 'fsspec'}\n"
        "assert not heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["upscale", "x.png", "--scle", "3"], "Unrecognized options: --scle, 3; Perhaps you meant"),
        (["upscale", "x.png", "--scale", "7"], "invalid choice '7' for argument '-s/--scale'"),
        (["foo"], "Unrecognized options: foo"),
        (
            ["train", "experiments/smoke.py", "--workdir", "w", "--model.step", "0"],
            "step must be a positive number, not 0",
        ),
        (["train", "--model.physics", "real"], "Expected one of ('reference', 'exact')"),
    ],
)
def test_a_wrong_command_line_is_one_line(capsys, argv, words):
    line = fails(capsys, *argv)
    assert words in line and line.endswith("(see --help)")
