"""What the wheel says of itself and holds; `RELEASING.md` builds it."""

import re
import tomllib
from pathlib import Path

import pytest

import isrrescnet_jax as isr
from isrrescnet_jax.messages import EXTRAS

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_there_is_one_version():
    source = ROOT / PROJECT["tool"]["hatch"]["version"]["path"]
    found = re.findall(r'^__version__ = "(\d+\.\d+\.\d+)"$', source.read_text(), re.MULTILINE)
    assert found == [isr.__version__]
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.findall(r"^version: (.*)$", citation, re.MULTILINE) == found
    assert "version" not in PROJECT["project"]


def test_weights_leave_room_in_a_wheel_of_14_megabytes():
    files = [path for path in Path(isr.__path__[0]).rglob("*") if path.suffix != ".pyc"]
    assert sum(path.stat().st_size for path in files if path.is_file()) < 13e6


def test_what_errors_tell_to_install_exists():
    extras = PROJECT["project"]["optional-dependencies"]
    assert {*EXTRAS.values(), "train", "convert", "onnx"} <= extras.keys()
    for module, extra in EXTRAS.items():
        assert any(requirement.startswith(module) for requirement in extras[extra])


def test_the_source_distribution_has_what_its_tests_need():
    included = PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    for name in (
        *("tests", "convert", "experiments", "examples", "isrrescnet_jax"),
        *(".dockerignore", "Dockerfile", "cog.yaml", "predict.py"),
    ):
        assert f"/{name}" in included
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    ours = {path.name for path in ROOT.glob("*.md")} - {"README.md"}  # which always is
    assert ours <= {Path(name).name for name in included}
