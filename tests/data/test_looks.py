"""Odd images among those to train on: twice there, of a benchmark, unlike their LR; of any kind."""

import logging
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import photo
from image_files import png
from PIL import ExifTags, Image
from training_images import save, stream

from isrrescnet_jax import data, images
from isrrescnet_jax.data import DataConfig, looks
from isrrescnet_jax.evaluation.degrade import degrade

BENCHMARK = Path(os.environ.get("ISRRESCNET_BENCHMARK", "benchmark"))


def warned(caplog, **fields) -> tuple[list[str], dict[str, int]]:
    """What a run says when it begins, and the counts it reports."""
    config = DataConfig(**{"scale": 2, "patch": 16, "batch": 2, "skip_bad": True} | fields)
    with caplog.at_level(logging.WARNING, "isrrescnet_jax.data"):
        stream(config, 1)
    return [record.message for record in caplog.records], data.source(config).counts


def test_the_same_pixels_twice_are_a_warning_with_both_names(photos, caplog):
    Image.open(photos / "a.png").save(photos / "more" / "copy.bmp")
    image = np.asarray(Image.open(photos / "b.png"))
    save(image[:, :-1], photos / "z.png")  # an edge that training cuts off
    lines, counts = warned(caplog, hr=str(photos))
    assert image.shape[1] % 2
    assert lines == [
        f"{photos / 'more/copy.bmp'}: the same pixels as {photos / 'a.png'}, which count twice",
        f"{photos / 'z.png'}: the same pixels as {photos / 'b.png'}, which count twice",
    ]
    assert counts == {"images": 8, "images_left_out": 0, "images_twice": 2}


def test_a_benchmark_image_is_a_warning_with_its_name(photos, caplog, monkeypatch):
    truth = np.asarray(Image.open(photos / "b.png"))
    known = {looks.digest(crop): "Set5 img_001" for crop in looks.crops(truth)}
    monkeypatch.setattr(looks, "benchmarks", lambda: known)
    height, width = (n // 12 * 12 for n in truth.shape[:2])
    save(truth[:height, :width], photos / "b.png")  # as who measures at all scales has it
    for scale in (2, 3, 4):
        caplog.clear()
        lines, counts = warned(caplog, hr=str(photos), scale=scale, patch=12)
        (line,) = lines
        assert line.startswith(f"{photos / 'b.png'}: this is Set5 img_001: what is trained on it")
        assert counts == {"images": 6, "images_left_out": 0, "images_of_benchmarks": 1}


def test_the_hashes_of_all_benchmark_images_are_there():
    named = looks.benchmarks()
    names = {f"Set5 img_{i:03}" for i in range(1, 6)} | {f"Set14 img_{i:03}" for i in range(1, 15)}
    assert set(named.values()) == names and len(named) >= 3 * len(names) / 2
    assert all(len(digest) == 24 for digest in named)


@pytest.mark.skipif(not BENCHMARK.exists(), reason="no benchmark images: $ISRRESCNET_BENCHMARK")
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_benchmark_images_are_recognised(tmp_path, caplog, scale):
    # Cut for any scale and stored in any lossless format.
    for of in (2, 3, 4):
        source = BENCHMARK / "Set5" / f"x{of}" / "HR" / f"img_003_SRF_{of}.png"
        save(np.asarray(Image.open(source)), tmp_path / "set" / f"{of}.tif")
    lines, counts = warned(caplog, hr=str(tmp_path / "set"), scale=scale, patch=24)
    assert counts["images_of_benchmarks"] == counts["images"] == 3
    assert sum("this is Set5 img_003" in line for line in lines) == 3


def test_lr_images_that_show_something_else_are_a_warning(tmp_path, caplog):
    for i in range(4):
        hr = photo(48, 40, seed=i)[0]
        noisy = degrade(hr, 2) + np.random.default_rng(i).normal(0, 20, (24, 20, 3))
        lr = {1: degrade(photo(48, 40, seed=9)[0], 2), 2: np.clip(noisy, 0, 255)}
        save(hr, tmp_path / "HR" / f"{i}.png")
        save(lr.get(i, degrade(hr, 2)).astype(np.uint8), tmp_path / "LR" / f"{i}.png")
    lines, counts = warned(caplog, hr=str(tmp_path / "HR"), lr=str(tmp_path / "LR"))
    assert lines == [f"{tmp_path / 'HR' / '1.png'}: its LR image hardly shows the same"]
    assert counts["images_unlike_lr"] == 1


def test_flat_images_always_belong_together():
    hr, lr = np.full((8, 8, 3), 9, np.uint8), np.full((4, 4, 3), 200, np.uint8)
    assert looks.alike(hr, lr)


def test_unusual_pictures_are_trained_on_as_they_look(tmp_path):
    """CMYK, 16 bits, palette, grey, bilevel, transparent, turned by EXIF, and every format."""
    rgb = photo(24, 32)[0]
    image, folder = Image.fromarray(rgb), tmp_path / "odd"
    folder.mkdir()
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 8
    image.convert("CMYK").save(folder / "cmyk.tif")
    png(folder / "deep.png", rgb.astype(np.uint16) * 257)
    image.quantize(64).save(folder / "palette.png")
    image.quantize(64).save(folder / "palette.gif")
    image.convert("L").save(folder / "grey.png")
    image.convert("1").save(folder / "bits.png")
    image.convert("RGBA").save(folder / "alpha.png")
    image.save(folder / "turned.png", exif=turned)
    image.save(folder / "modern.avif", quality=95)
    pairs = data.source(DataConfig(hr=str(folder), scale=2, patch=16))
    assert pairs.counts["images"] == 9 and not pairs.left_out
    seen = {Path(name).name: pairs[i] for i, name in enumerate(pairs.names)}
    for name, pair in seen.items():
        expected = images.read_rgb(folder / name)
        np.testing.assert_array_equal(pair["hr"], expected)
        assert pair["lr"].shape == (pair["hr"].shape[0] // 2, pair["hr"].shape[1] // 2, 3)
    for name in ("cmyk.tif", "deep.png", "alpha.png"):
        np.testing.assert_array_equal(seen[name]["hr"], rgb)
    np.testing.assert_array_equal(seen["turned.png"]["hr"], np.rot90(rgb))
    assert np.abs(seen["modern.avif"]["hr"].astype(int) - rgb).mean() < 30


def test_what_is_left_out_is_counted(photos, caplog):
    save(photo(8, 40)[0], photos / "low.png")
    (photos / "text.jpg").write_text("not a picture")
    whole = (photos / "a.png").read_bytes()
    (photos / "cut.png").write_bytes(whole[: len(whole) // 2])
    lines, counts = warned(caplog, hr=str(photos))
    assert counts == {"images": 6, "images_left_out": 3}
    assert len(lines) == 3 and all(line.startswith("left out: ") for line in lines)
