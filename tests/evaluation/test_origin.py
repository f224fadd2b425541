"""Low-resolution images from elsewhere are recognised."""

import json
from pathlib import Path

import commands
import numpy as np
import pytest
from conftest import photo
from PIL import Image
from small_benchmark import run, save, three_photos

import isrrescnet_jax as isr
from isrrescnet_jax.evaluation import tables
from isrrescnet_jax.evaluation.degrade import degrade
from isrrescnet_jax.evaluation.origin import difference, remark

HR = photo(48, 60, seed=5)[0]


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("border", ["symmetric", "replicate"])
def test_what_degrade_makes_is_right_and_so_is_rounding(scale, border):
    lr = degrade(HR, scale, border)
    assert difference(HR, lr, scale) is None
    off = np.random.default_rng(0).integers(-1, 2, lr.shape)
    rounded = np.clip(lr.astype(int) + off, 0, 255).astype(np.uint8)
    assert difference(HR, rounded, scale) is None


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("way", ["pillow bicubic", "pillow lanczos", "opencv-like", "jpeg"])
def test_other_ways_differ(scale, way, tmp_path):
    size = (60 // scale, 48 // scale)
    if way == "jpeg":
        Image.fromarray(degrade(HR, scale)).save(tmp_path / "x.jpg", quality=80)
        lr = np.asarray(Image.open(tmp_path / "x.jpg"))
    elif way == "opencv-like":  # cubic interpolation without antialiasing
        affine, data = Image.Transform.AFFINE, (scale, 0, 0, 0, scale, 0)
        points = Image.fromarray(HR).transform(size, affine, data, Image.Resampling.BICUBIC)
        lr = np.asarray(points)
    else:
        method = way.removeprefix("pillow ").upper()
        lr = np.asarray(Image.fromarray(HR).resize(size, Image.Resampling[method]))
    found = difference(HR, lr, scale)
    expected = [np.abs(degrade(HR, scale, b).astype(int) - lr) for b in ("symmetric", "replicate")]
    assert found and found.mean == min(e.mean() for e in expected)
    assert found.largest in [e.max() for e in expected] and found.largest > 1


def test_the_line_is_short():
    found = difference(HR, degrade(HR[::-1], 2), 2)
    names = {f"{i}.png": found for i in range(5)}
    line = remark(names, "LR", 9, 2)
    assert line.startswith("LR: 5 of 9 images") and "2.png and 2 more" in line and "\n" not in line
    assert f"largest {found.largest} grey levels" in line and f"up to {found.mean:.2f}" in line
    assert remark({}, "LR", 9, 2) == ""


def test_the_report_says_it(tmp_path):
    folder = three_photos(tmp_path)
    assert run(folder, "LR/x2").remark == "" and run(folder).remark == ""
    hr = Image.open(folder / "HR/a.png")
    save(np.asarray(hr.resize((14, 12), Image.Resampling.BICUBIC)), folder / "LR/x2/ax2.png")
    report = run(folder, "LR/x2")
    assert "1 of 3 images" in report.remark and "ax2.png" in report.remark
    assert json.loads(tables.as_json([report]))["results"][0]["remark"] == report.remark
    assert "remark" not in tables.as_json([run(folder)])


def test_a_shift_of_one_level_is_more_than_rounding():
    hr = photo(24, 24)[0]
    lr = degrade(hr, 2)
    assert difference(hr, np.where(lr < 255, lr + 1, lr).astype(np.uint8), 2) is not None
    lr[::3] = np.where(lr[::3] < 255, lr[::3] + 1, lr[::3])
    assert difference(hr, lr, 2) is None


def test_what_is_not_read_is_named(tmp_path):
    folder = three_photos(tmp_path)
    (folder / "HR" / "phone.heic").write_bytes(b"")
    report = run(folder)
    assert [path.name for path in report.overlooked] == ["phone.heic"]
    found = json.loads(tables.as_json([report]))["results"][0]["not_read"]
    assert found == [str(folder / "HR" / "phone.heic")]


def test_the_command_says_it(tmp_path, small, capsys, monkeypatch):
    monkeypatch.setenv("ISRRESCNET_CACHE", "")
    isr.save_weights(small, tmp_path / "small.safetensors")
    folder = three_photos(tmp_path)
    options = ["--hr", folder / "HR", "--lr", folder / "LR/x2", "--scale", "2", "--no-times"]
    options += ["--weights", tmp_path / "small.safetensors"]
    assert commands.run("evaluate", *options) == 0
    assert not capsys.readouterr().err
    for path in Path(folder / "LR/x2").iterdir():
        Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path)
    assert commands.run("evaluate", *options) == 0
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "3 of 3 images are not the bicubic reduction" in line
