"""Each study in its quick form: what it found, and that it leaves its numbers and a figure."""

import json
from pathlib import Path

import pytest

from experiments.studies import beyond, common, kernel, priors, steps, training, ways

STUDIES = (ways, beyond, kernel, steps, training)


def run(study, folder):
    name = study.__name__.rpartition(".")[2]
    options = common.Options(quick=True, out=folder)
    found = common.run(name, study.measure, study.draw, options)
    written = json.loads((folder / f"{name}_quick.json").read_text())
    assert written["rows"] == found and "jax" in written["environment"]
    assert 5_000 < (folder / f"{name}_quick.png").stat().st_size < 150_000
    return found


def test_truncation_leaves_out_less_and_less_and_jacobian_free_gradients_descend(tmp_path):
    pytest.importorskip("lineax")
    found = run(ways, tmp_path)
    by_way = {row["way"]: row for row in found["ways"]}
    assert by_way["Truncated(K, K)"]["error"] < 1e-12 < by_way["Truncated(K, 1)"]["error"]
    first, last = found["bias"]["truncated"]
    assert first > last > 0
    # That of the Neumann series is the same, but for how far 40 iterations are from the end.
    assert found["bias"]["neumann"] == pytest.approx([first, last], rel=0.1)
    assert found["bias"]["fitted rate"] < 1 and found["bias"]["spectral radius"] < 1
    assert all(row["cosine"] > 0 for row in found["jacobian-free"])


def test_the_trained_prior_gets_worse_beyond_its_iterations_and_the_convex_one_does_not(tmp_path):
    found = run(beyond, tmp_path)["ways"]
    trained, convex = (found[name]["psnr"] for name in ("trained, last pair", "contractive"))
    assert max(trained) == pytest.approx(trained[beyond.TRAINED], abs=0.5)
    assert trained[-1] < trained[beyond.TRAINED] - 1
    assert convex[-1] == pytest.approx(max(convex), abs=0.01)
    assert found["contractive"]["residual"][-1] < found["trained, last pair"]["residual"][-1] / 5


def test_a_kernel_is_found_through_the_solver(tmp_path):
    pytest.importorskip("lineax")
    found = run(kernel, tmp_path)
    for name, way in found["ways"].items():
        assert way["errors"][-1] < 0.65 * way["errors"][0], name
        assert way["psnr"] > found["psnr of the start"] + 3, name


def test_acceleration_saves_most_iterations(tmp_path):
    found = run(steps, tmp_path)["quadratic"]
    unit, best = found["steps"]
    (momentum,), (relaxed,), (anderson,) = (
        found[name] for name in ("momenta", "relaxed", "anderson")
    )
    assert best["iterations"] < unit["iterations"] <= unit["theory"]["iterations"]
    assert best["rate"] == pytest.approx(best["theory"]["rate"], abs=1e-3)
    assert relaxed["iterations"] < unit["iterations"]
    assert max(momentum["iterations"], anderson["iterations"]) < unit["iterations"] / 4


def test_both_kinds_of_training_learn(tmp_path):
    pytest.importorskip("lineax")
    for run_of in run(training, tmp_path)["runs"]:
        first, last = run_of["curve"][0], run_of["curve"][-1]
        assert last["psnr"] > first["psnr"] + 0.2 and last["steps"] > 0, run_of["way"]


def test_the_norm_of_a_convolution():
    import jax
    import numpy as np

    kernel = 3 * jax.random.normal(jax.random.key(3), (3, 3, 8, 8))
    matrices = np.fft.fft2(np.asarray(kernel), (64, 64), axes=(0, 1))
    exact = np.linalg.norm(matrices, ord=2, axis=(2, 3)).max()
    assert priors.norm(kernel) == pytest.approx(exact, rel=0.05)


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.__name__.rpartition(".")[2])
def test_committed_figures_are_those_of_the_committed_numbers(study, tmp_path):
    path = Path(study.__file__).with_suffix(".json")
    study.draw(json.loads(path.read_text())["rows"], tmp_path / "figure.png")
    assert path.with_suffix(".png").stat().st_size < 150_000
    text = (path.parent / "README.md").read_text()
    assert f"({path.stem}.png)" in text and f"experiments.studies.{path.stem}" in text
