import json
from pathlib import Path

import jax
import numpy as np
import pytest
from commands import fails, run
from conftest import photo

import isrrescnet_jax as isr

pytest.importorskip("flatbuffers")


def test_a_program_from_weights(here, weights, small, capsys):
    command = ["export", "-w", weights, "-o", "new/x2.stablehlo", "--platforms", "cpu"]
    assert run(*command, "--iterations", 1) == 0
    assert capsys.readouterr().out.startswith("new/x2.stablehlo: x2, ")
    data = Path("new/x2.stablehlo").read_bytes()
    program = jax.export.deserialize(bytearray(data))
    image = photo(8, 9)[0].astype(np.float32)
    expected = isr.upscale(image, weights=small, iterations=1)
    np.testing.assert_allclose(program.call(image[None])[0], expected, atol=2e-3)
    about = json.loads(program.fun_name)
    assert about["weights"].startswith("small ") and str(here) not in program.fun_name
    assert (about["scale"], about["iterations"]) == (2, 1)

    assert "already there" in fails(capsys, *command)
    assert Path("new/x2.stablehlo").read_bytes() == data
    assert run(*command, "--overwrite") == 0
    assert Path("new/x2.stablehlo").read_bytes() != data


@pytest.mark.parametrize(
    "options, said",
    [
        (["--iterations", 0], "--iterations must be at least 1"),
        (["--noise", -1], "--noise must be"),
        (["--scale", 5], "scale"),
        (["--platforms", "gpu"], "platforms"),
        (["-w", "x9"], "no weights named 'x9'"),
        (["-w", "none.safetensors"], "no such weights file"),
    ],
)
def test_what_is_wrong_in_one_line(here, capsys, options, said):
    assert said in fails(capsys, "export", "-o", "x4.stablehlo", *options)
    assert not Path("x4.stablehlo").exists()


def test_the_out_file_is_needed_and_no_folder(here, capsys):
    assert "out" in fails(capsys, "export")
    Path("folder").mkdir()
    assert "folder" in fails(capsys, "export", "-o", "folder")
