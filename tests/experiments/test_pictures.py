"""The pictures of the README and the documentation: what they show, and that they are all there."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments import quality_speed
from experiments.pictures import __main__ as command
from experiments.pictures import curves, panels, photographs
from isrrescnet_jax.evaluation import metrics
from isrrescnet_jax.evaluation.degrade import degrade, resize

ROOT = Path(__file__).parents[2]
KNOWN = set(command.pictures(96))
# Of runs whose logs were not kept.
OLD = {"examples/validation.png", "examples/validation_k10.png"}
# Which take a browser, and minutes; the tests of the demo and of the page make them.
LONG = ("docs/pictures/demo.png", "docs/pictures/minutes.png")


def test_one_command_makes_them_all(tmp_path):
    names = tuple(sorted(KNOWN - set(LONG)))
    command.main(command.Options(only=names, out=tmp_path, side=32))
    for name in names:
        with Image.open(tmp_path / name) as picture:
            assert picture.format == "PNG" and min(picture.size) >= 100, name
    with pytest.raises(SystemExit, match="no such picture: examples/other.png"):
        command.main(command.Options(only=("examples/other.png",), out=tmp_path))


def test_they_are_small_there_and_shown():
    folders = ("examples", "docs/pictures")
    made = {f"{f}/{p.name}" for f in folders for p in (ROOT / f).glob("*.png")}
    assert made == KNOWN | OLD
    shown = set()
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for link in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.read_text()):
            path = (page.parent / link).resolve()
            assert path.stat().st_size < 400_000, link
            shown.add(str(path.relative_to(ROOT)))
    assert shown == KNOWN - {"examples/astronaut.png"}


def test_authors_are_named_beside_their_photographs():
    names = {crop.name for crop in (*photographs.CROPS, photographs.FACE)}
    assert names == set(photographs.CREDITS)
    for page in ("README.md", "docs/index.md"):
        text = " ".join((ROOT / page).read_text().split())
        for name, credit in photographs.CREDITS.items():
            assert re.search(f"{name} by {credit.split(',')[0]}", text), (page, name)


def test_crops_are_captioned_with_what_they_show(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(photographs, "panels", lambda path, rows, notes: drawn.extend(rows))
    photographs.crops(tmp_path / "a.png", 32)
    assert len(drawn) == len(photographs.CROPS)
    for row, crop in zip(drawn, photographs.CROPS, strict=True):
        (_, low), (second, bicubic), (third, ours), (_, truth) = row.items()
        np.testing.assert_array_equal(truth, crop.truth(32))
        np.testing.assert_array_equal(low, degrade(truth, 4))
        np.testing.assert_array_equal(bicubic, resize(low, 32, 32))
        for caption, image in ((second, bicubic), (third, ours)):
            assert caption.endswith(f", {metrics.luma_psnr(image, truth):.2f} dB")
        assert metrics.luma_psnr(ours, truth) > metrics.luma_psnr(bicubic, truth)


def test_what_is_told_of_the_iterates_is_what_they_show(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(photographs, "panels", lambda path, rows: drawn.extend(rows))
    photographs.iterates(tmp_path / "a.png", 96)
    *iterates, (_, truth) = (panel for row in drawn for panel in row.items())
    quality = [metrics.luma_psnr(image, truth) for _, image in iterates]
    assert len(quality) == 11 and max(quality) == quality[-1]
    for k, ((caption, _), value) in enumerate(zip(iterates, quality, strict=True)):
        assert caption.startswith(f"x$_{{{k}}}$, ") and f"{value:.2f} dB" in caption
    text = (ROOT / "docs/explanation/method.md").read_text()
    bicubic = metrics.luma_psnr(resize(degrade(truth, 4), 96, 96), truth)
    assert f"bicubic interpolation has {bicubic:.2f} dB" in text
    told = re.search(r"worth ([\d.]+) dB", text)
    assert told and float(told[1]) == pytest.approx(quality[-1] - quality[-2], abs=0.02)


def test_pixels_of_an_image_are_squares_of_the_picture(tmp_path):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (8, 8, 3), np.uint8) for _ in range(4)]
    rows = [{"a": images[0], "b": images[1]}, {"a": images[2], "b": images[3]}]
    panels.panels(tmp_path / "a.png", rows, side=24, gap=5)
    picture = np.asarray(Image.open(tmp_path / "a.png"))
    for i, image in enumerate(images):
        top, left = (i // 2 + 1) * 26 + i // 2 * 24, 5 + i % 2 * 29
        large = image.repeat(3, 0).repeat(3, 1)
        np.testing.assert_array_equal(picture[top : top + 24, left : left + 24], large)


def test_curves_of_several_runs(tmp_path):
    lines = [{"step": i, "loss": 9 - i} for i in range(4)] + [{"step": 3, "validation_psnr": 27.0}]
    curves.training(tmp_path / "a.png", {"x2": lines, "x3": lines})
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_quality_and_speed_are_measured_of_every_way(tmp_path, monkeypatch):
    truth = photographs.FACE.truth(32)
    for name, image in (("HR", truth), ("LR", degrade(truth, 4))):
        (tmp_path / "Set/x4" / name).mkdir(parents=True)
        Image.fromarray(image).save(tmp_path / "Set/x4" / name / "a.png")
    few = [quality_speed.Way("x4", 1), quality_speed.Way("x4_k10", 1)]
    monkeypatch.setattr(quality_speed, "ways", lambda scale: few)
    out = tmp_path / "found.json"
    for part in ("quality", "speed"):  # the second leaves what the first has found
        quality_speed.main(
            quality_speed.Measuring(tmp_path / "Set", (4,), (part,), side=32, rounds=1, out=out)
        )
    found = json.loads(out.read_text())["x4"]
    names = ["bicubic", "x4, K = 1", "x4_k10, K = 1"]
    assert list(found["quality"]["psnr"]) == list(found["speed"]["seconds"]) == names
    bicubic = metrics.luma_psnr(resize(degrade(truth, 4), 32, 32), truth)
    assert found["quality"]["psnr"]["bicubic"] == pytest.approx(bicubic, abs=1e-3)
    assert found["quality"]["psnr"]["x4, K = 1"] > bicubic
