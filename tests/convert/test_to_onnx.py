"""The ONNX file computes what ours does. Skipped without the extra `onnx`."""

import json

import jax
import pytest

import isrrescnet_jax as isr
from convert.__main__ import main

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")
from convert import to_onnx  # noqa: E402


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    return stop.value.code


@pytest.fixture(scope="module")
def weights() -> isr.Weights:
    config = isr.ModelConfig(features=8, depth=2, feedback_steps=2, iterations=3, scale=2)
    return isr.init_weights(config, jax.random.key(0))


@pytest.fixture(scope="module")
def data(weights) -> bytes:
    return to_onnx.as_onnx(weights)


def test_onnxruntime_computes_what_ours_does(weights, data):
    assert to_onnx.disagreement(weights, data, [(8, 9), (21, 40)]) < 1e-3


def test_the_file_says_what_the_iterations_need(data):
    onnx = pytest.importorskip("onnx")
    model = onnx.load_model_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    about = {item.key: json.loads(item.value) for item in model.metadata_props}
    assert (about["scale"], about["physics"], about["step"]) == (2, "reference", 1.0)
    assert len(about["alpha"]) == len(about["w"]) == 3


def test_a_file_that_agrees_is_written_and_another_is_not(
    weights, data, tmp_path, capsys, monkeypatch
):
    isr.save_weights(weights, tmp_path / "w.safetensors")
    monkeypatch.setattr(to_onnx, "as_onnx", lambda weights: data)
    command = tmp_path / "w.safetensors", tmp_path / "w.onnx"
    monkeypatch.setattr(to_onnx, "disagreement", lambda *_: float("nan"))
    assert run(*command) == 1
    assert not command[1].exists()
    monkeypatch.setattr(to_onnx, "disagreement", lambda *_: 1e-4)
    assert run(*command) == 0
    assert command[1].read_bytes() == data
    assert "within 0.000100 grey levels" in capsys.readouterr().out
    assert run(*command) == 2
    assert "--overwrite" in capsys.readouterr().err
