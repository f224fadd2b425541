import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from conftest import exact, photo
from PIL import Image

import isrrescnet_jax as isr
from isrrescnet_jax import cli, images


@pytest.fixture(scope="module")
def weights(small, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    isr.save_weights(small, path)
    return str(path)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty working folder with two photographs in photos/, and a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ISRRESCNET_CACHE", "")
    Path("photos").mkdir()
    for i, name in enumerate(("bird.png", "castle.bmp")):
        Image.fromarray(photo(9, 12, seed=i)[0]).save(Path("photos") / name)
    return tmp_path


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


def test_upscale_writes_what_the_library_computes(here, weights, small, capsys):
    assert run("upscale", "photos", "--weights", weights) == 0
    out = capsys.readouterr().out
    assert "2 pictures to do" in out and "2 of 2 written to sr_results" in out
    assert sorted(p.name for p in Path("sr_results").iterdir()) == ["bird.png", "castle.png"]
    expected = isr.upscale(np.asarray(Image.open("photos/bird.png")), weights=small)
    np.testing.assert_array_equal(np.asarray(Image.open("sr_results/bird.png")), expected)


def test_options_of_the_network(here, weights, small):
    np.save("kernel.npy", np.full((3, 3), 1 / 9))
    options = ["--weights", weights, "--overwrite", "--noise", "5", "--iterations", "2"]
    options += ["--operator", "blur", "--kernel", "kernel.npy", "--tile", "16", "--ensemble"]
    assert run("upscale", "photos/*.bmp", *options, "--out", "o", "--format", "tiff") == 0
    blur = isr.Blur(2, np.full((3, 3), 1 / 9, np.float32))
    image = np.asarray(Image.open("photos/castle.bmp"))
    plan = {"noise": 5.0, "iterations": 2, "operator": blur, "ensemble": True}
    expected = isr.upscale(image, weights=small, **plan)
    got = images.read("o/castle.tiff").color
    assert np.abs(got - expected).max() <= 1 and (got != expected).mean() < 1e-2


@pytest.mark.filterwarnings("default")
def test_physics_is_that_of_the_weights_unless_given(here, weights, small, capsys):
    isr.save_weights(exact(small, step=2.0), "exact.safetensors")
    image = np.asarray(Image.open("photos/bird.png"))

    def result(file, *options):
        capsys.readouterr()
        arguments = ["photos/bird.png", "--weights", file, "--out", "o", "--overwrite"]
        assert run("upscale", *arguments, *options) == 0
        return np.asarray(Image.open("o/bird.png")), capsys.readouterr().err

    for file, given, physics in (
        (weights, small, "reference"),
        ("exact.safetensors", exact(small, step=2.0), "exact"),
    ):
        expected = isr.upscale(image, weights=given)
        for options in ((), ("--physics", physics)):
            got, err = result(file, *options)
            np.testing.assert_array_equal(got, expected)
            assert not err
        other = "exact" if physics == "reference" else "reference"
        got, err = result(file, "--physics", other)
        assert (got != expected).mean() > 0.1
        assert f"trained with {physics} physics" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("fields", "words"),
    [({"physics": "quantum"}, "physics must be"), ({"step": 0.0}, "step must be"),
     ({"step": "long"}, "step must be")],
)  # fmt: skip
def test_weights_of_unknown_physics_are_one_line(here, weights, capsys, fields, words):
    with safetensors.safe_open(weights, framework="numpy") as file:
        metadata = file.metadata()
        flat = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    metadata["config"] = json.dumps(json.loads(metadata["config"]) | fields)
    safetensors.numpy.save_file(flat, "bad.safetensors", metadata)
    line = fails(capsys, "upscale", "photos/bird.png", "--weights", "bad.safetensors")
    assert words in line and "bad.safetensors" in line


def test_shards_share_a_folder(here, weights, capsys):
    for i in range(3):
        Image.fromarray(photo(5, 6, seed=i)[0]).save(f"photos/{i}.png")
    seen = []
    for part in ("1/2", "2/2"):
        assert run("upscale", "photos", "--weights", weights, "--shard", part, "--out", part) == 0
        seen.append({p.name for p in Path(part).iterdir()})
    assert [len(names) for names in seen] == [3, 2] and len(seen[0] | seen[1]) == 5
    for bad in ("0/2", "3/2", "2", "a/b"):
        assert "--shard" in fails(capsys, "upscale", "photos", "--shard", bad)


def test_memory_limits(here, weights, capsys):
    options = ["upscale", "photos/bird.png", "--weights", weights, "--max-memory"]
    assert run(*options, "64M") == 0
    assert "not enough" in fails(capsys, *options, "20k", "--overwrite")
    for bad in ("lots", "0", "-1", "5X"):
        assert "--max-memory" in fails(capsys, *options[:-1], f"--max-memory={bad}", "--overwrite")


def test_several_devices_share_a_folder(here, weights):
    # Devices are set before JAX starts, hence in a process of its own.
    command = [sys.executable, "-m", "isrrescnet_jax.cli", "upscale", "photos"]
    env = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    for out, extra in (("one", None), ("two", env)):
        done = subprocess.run([*command, "--weights", weights, "--out", out], env=extra)
        assert done.returncode == 0
    for name in ("bird.png", "castle.png"):
        one, two = (np.asarray(Image.open(f"{out}/{name}")) for out in ("one", "two"))
        np.testing.assert_array_equal(one, two)


def test_depth_alpha_and_profile_survive(here, weights):
    color = photo(8, 8)[0].astype(np.float32) + 0.5
    alpha = np.full((8, 8), 128.0, np.float32)
    images.write(images.Picture(color, alpha, 16, b"profile" * 40), "deep.png")
    assert run("upscale", "deep.png", "--weights", weights) == 0
    result = images.read("sr_results/deep.png")
    assert result.bits == 16 and result.icc == b"profile" * 40
    np.testing.assert_allclose(result.alpha, 128, atol=0.01)
    assert np.any(result.color != np.rint(result.color))


def test_bad_files_do_not_stop_a_batch(here, weights, capsys):
    Path("photos/animal.png").write_text("not a picture")
    assert run("upscale", "photos", "--weights", weights) == 2
    captured = capsys.readouterr()
    assert "2 of 3 written" in captured.out
    (line,) = captured.err.strip().splitlines()
    assert line.startswith("failed: photos/animal.png: not an image")
    assert len(list(Path("sr_results").iterdir())) == 2


def test_existing_results(here, weights, capsys):
    Path("sr_results").mkdir()
    Path("sr_results/bird.png").write_text("mine")
    arguments = ["upscale", "photos", "--weights", weights]
    assert "already there" in fails(capsys, *arguments)
    assert not Path("sr_results/castle.png").exists()
    assert run(*arguments, "--skip-existing") == 0
    assert "1 picture to do, 1 already there" in capsys.readouterr().out
    assert Path("sr_results/bird.png").read_text() == "mine"
    assert run(*arguments, "--overwrite") == 0
    assert Image.open("sr_results/bird.png").size == (24, 18)
    assert "exclude" in fails(capsys, *arguments, "--overwrite", "--skip-existing")


def test_results_are_refused_that_would_collide_or_be_impossible(here, weights, capsys):
    Image.open("photos/bird.png").save("photos/bird.jpg")
    assert "would both become" in fails(capsys, "upscale", "photos", "--weights", weights)
    assert "overwrite an input" in fails(
        capsys, "upscale", "photos/bird.png", "--weights", weights, "--out", "photos", "--overwrite"
    )
    Image.fromarray(np.zeros((8, 8, 4), np.uint8)).save("clear.png")
    line = fails(capsys, "upscale", "clear.png", "--weights", weights, "--format", "jpg")
    assert "cannot hold transparency" in line
    assert not Path("sr_results").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.png"], "no such file"),
        ([], "name at least one picture"),
        (["photos", "--weights", "x9"], "shipped"),
        (["photos", "--weights", "none.safetensors"], "no such weights file"),
        (["photos", "--iterations", "0"], "at least 1"),
        (["photos", "--noise", "-1"], "at least 0"),
        (["photos", "--noise", "nan"], "at least 0"),
        (["photos", "--operator", "blur"], "--kernel"),
        (["photos", "--operator", "blur", "--kernel", "photos/bird.png"], "not a readable .npy"),
    ],
)
def test_bad_arguments_are_one_line_and_exit_2(here, capsys, arguments, message):
    assert message in fails(capsys, "upscale", *arguments)
    assert not Path("sr_results").exists()


def test_a_scale_without_weights_says_which_exist(here, capsys):
    missing = {"2", "3", "4"} - {name[1:] for name in isr.shipped_weights()}
    for scale in missing:
        line = fails(capsys, "upscale", "photos", "--scale", scale)
        assert all(name in line for name in isr.shipped_weights())


def test_unknown_arguments_exit_2(here, capsys):
    assert run("upscale", "photos", "--scale", "5") == 2
    assert run("upscal") == 2


def test_compiled_programs_are_kept(here, weights):
    # In processes of their own: the cache folder is a setting of the whole process.
    def files():
        return {p.name for p in Path("cache").rglob("*") if p.is_file() and "atime" not in p.name}

    code = "from isrrescnet_jax.cli import main; main()"
    base = [sys.executable, "-c", code, "upscale", "photos/bird.png", "--weights", weights]
    environment = {"ISRRESCNET_CACHE": "cache", "PATH": "", "HOME": str(here)}
    environment["PYTHONPATH"] = str(Path(isr.__file__).parent.parent)
    subprocess.run([*base, "--no-cache"], check=True, env=environment, capture_output=True)
    assert not Path("cache").exists()
    subprocess.run([*base, "--overwrite"], check=True, env=environment, capture_output=True)
    kept = files()
    assert kept
    subprocess.run([*base, "--overwrite"], check=True, env=environment, capture_output=True)
    assert files() == kept


def test_degrade_evaluate_and_compare(here, weights, capsys):
    Path("hr").mkdir()
    for i in range(2):
        Image.fromarray(photo(36, 42, seed=i)[0]).save(f"hr/{i}.png")
    assert run("degrade", "hr", "--scale", "2", "--out", "lr") == 0
    assert Image.open("lr/0.png").size == (21, 18)
    capsys.readouterr()
    options = ["--hr", "hr", "--scale", "2", "--weights", weights, "--no-times"]
    assert run("evaluate", *options, "--json", "a.json", "--markdown", "a.md") == 0
    made = capsys.readouterr().out
    assert run("evaluate", *options, "--json", "again.json") == 0
    assert Path("again.json").read_bytes() == Path("a.json").read_bytes()
    assert capsys.readouterr().out == made
    assert "mean" in made and "paper (no crop)" in made
    assert run("evaluate", *options, "--lr", "lr", "--json", "b.json", "--csv", "b.csv") == 0
    strip = lambda p: [s for s in Path(p).read_text().splitlines() if '"lr"' not in s]  # noqa: E731
    assert [s for s in strip("a.json") if "border" not in s] == [
        s for s in strip("b.json") if "border" not in s
    ]
    assert run("compare", "lr/0.png", "hr/0.png", "--out", "figure.png") == 0
    assert Image.open("figure.png").size[0] > 400
    assert "already there" in fails(
        capsys, "compare", "lr/0.png", "hr/0.png", "--out", "figure.png"
    )
    assert "--out" in fails(capsys, "degrade", "hr")
    assert "--hr" in fails(capsys, "evaluate")


def test_trace_draws_a_figure(here, weights):
    assert run("upscale", "photos/bird.png", "--weights", weights, "--trace", "traces") == 0
    assert Image.open("traces/bird_iterates.png").size[0] > 400


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
        "assert not {'torch', 'matplotlib', 'grain', 'tensorflow_datasets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
