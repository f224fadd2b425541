"""`predict.py`, with a stand-in for Cog, with Cog itself, and behind the server of its images."""

import base64
import contextlib
import importlib.util
import inspect
import json
import os
import pathlib
import socket
import subprocess
import sys
import time
import types
import urllib.request
from typing import get_args, get_type_hints

import numpy as np
import pytest
import yaml
from conftest import photo
from PIL import Image

import isrrescnet_jax as isr
from isrrescnet_jax import images
from isrrescnet_jax.cli.upscale import Upscale

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = yaml.safe_load((ROOT / "cog.yaml").read_text())
FILE, NAME = CONFIG["run"].split(":")

# Of Cog, what predict.py names; an input is its default.
STAND_IN = types.ModuleType("cog")
STAND_IN.BaseRunner = object
STAND_IN.Path = pathlib.Path
STAND_IN.Input = lambda default=None, **about: default

USUAL = {"scale": None, "weights": None, "iterations": None, "noise": None, "format": "png"}


def runner(cog: types.ModuleType, monkeypatch):
    """What cog.yaml names, with this module for Cog."""
    monkeypatch.setitem(sys.modules, "cog", cog)
    spec = importlib.util.spec_from_file_location("predict", ROOT / FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, NAME)()


@pytest.fixture(params=["stand-in", "Cog"])
def model(request, monkeypatch, tmp_path):
    monkeypatch.setenv("ISRRESCNET_CACHE", "")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    cog = STAND_IN if request.param == "stand-in" else pytest.importorskip("cog")
    return runner(cog, monkeypatch)


def test_the_result_is_that_of_the_library(model, tmp_path):
    image = photo(9, 12)[0]
    Image.fromarray(image).save(tmp_path / "bird.png")
    result = model.run(tmp_path / "bird.png", **USUAL | {"scale": 2})
    expected = isr.upscale(image, scale=2)
    np.testing.assert_array_equal(np.asarray(Image.open(result)), expected)
    model.run(tmp_path / "bird.png", **USUAL | {"scale": 2, "format": "bmp"})
    assert not result.parent.exists()  # the one before


def test_options_formats_and_transparency(model, tmp_path):
    picture = images.Picture(photo(9, 12)[0].astype(np.float32), np.full((9, 12), 99, np.float32))
    images.write(picture, tmp_path / "bird.webp")
    options = {"weights": "x3_k10", "iterations": 2, "noise": 2.5, "format": "tiff"}
    path = model.run(tmp_path / "bird.webp", **USUAL | options)
    result = images.read(path)
    assert path.suffix == ".tiff" and result.color.shape == (27, 36, 3)
    np.testing.assert_allclose(result.alpha, 99, atol=1)
    said = Image.open(path).tag_v2[305]  # TIFF's number for software
    assert "weights x3_k10" in said and "noise 2.5" in said and "iterations 2" in said


def test_errors_are_one_line(model, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ValueError, match="text.png: not an image") as error:
        model.run(tmp_path / "text.png", **USUAL)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="at least 0"):
        model.run(tmp_path / "text.png", **USUAL | {"noise": -1.0})


def test_inputs_are_options_of_the_command_line():
    pytest.importorskip("cog")
    spec = importlib.util.spec_from_file_location("predict", ROOT / FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    fields = inspect.signature(getattr(module, NAME).run).parameters
    assert fields["weights"].default.choices == sorted(isr.shipped_weights(), key=len)
    options = get_type_hints(Upscale)  # a Literal, or None
    for name in ("scale", "format"):
        assert fields[name].default.choices == list(get_args(get_args(options[name])[0]))
    assert {f.default.default for n, f in fields.items() if n in USUAL} == {None, "png"}


def asked(port: int, path: str, body: dict | None = None) -> dict:
    data = None if body is None else json.dumps(body).encode()
    url, header = f"http://127.0.0.1:{port}{path}", {"Content-Type": "application/json"}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, data, header), timeout=60) as answer:
        return json.load(answer)


def wait_for(server: subprocess.Popen, port: int) -> None:
    """Until it takes a picture, for a minute."""
    for _ in range(240):
        with contextlib.suppress(OSError):
            if asked(port, "/health-check")["status"] == "READY":
                return
        assert server.poll() is None
        time.sleep(0.25)
    raise AssertionError("the server does not become ready")


def test_the_server_of_cogs_images_answers(tmp_path):
    pytest.importorskip("cog")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {"PORT": str(port), "COG_PREDICT_TYPE_STUB": CONFIG["run"], "TMPDIR": str(tmp_path)}
    # It starts the first `python` there, which need not be this one.
    env["PATH"] = f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env |= {"ISRRESCNET_CACHE": "", "PYTHONPATH": str(ROOT), "COG_LOG_LEVEL": "warning"}
    command = [sys.executable, "-m", "cog.server.http", "--host", "127.0.0.1"]
    image = photo(9, 12)[0]
    Image.fromarray(image).save(tmp_path / "bird.png")
    sent = base64.b64encode((tmp_path / "bird.png").read_bytes()).decode()
    with subprocess.Popen(command, cwd=ROOT, env=os.environ | env) as server:
        try:
            wait_for(server, port)
            picture = {"image": f"data:image/png;base64,{sent}", "scale": 2}
            done = asked(port, "/predictions", {"input": picture})
            assert done["status"] == "succeeded", done
            kind, result = done["output"].split(",")
            (tmp_path / "result.png").write_bytes(base64.b64decode(result))
            assert kind == "data:image/png;base64"
            spoiled = base64.b64encode(b"no picture").decode()
            picture = {"image": f"data:image/png;base64,{spoiled}"}
            wait_for(server, port)
            done = asked(port, "/predictions", {"input": picture})
            assert done["status"] == "failed" and "not an image" in done["error"], done
        finally:
            server.terminate()
    expected = isr.upscale(image, scale=2)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "result.png")), expected)
