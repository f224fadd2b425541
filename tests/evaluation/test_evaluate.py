import json
from pathlib import Path

import numpy as np
import pytest
from conftest import photo
from PIL import Image
from small_benchmark import nearest, run, save, three_photos

from isrrescnet_jax.evaluation import evaluate, metrics, tables
from isrrescnet_jax.evaluation.degrade import degrade, resize


@pytest.fixture
def folder(tmp_path):
    return three_photos(tmp_path)


def test_numbers_are_those_of_the_metrics(folder):
    report = run(folder)
    assert [row.image for row in report.rows] == ["a", "b", "c"] and not report.problems
    hr = np.asarray(Image.open(folder / "HR/b.png"))[:30]
    lr = degrade(hr, 2)
    sr = np.rint(nearest(lr.astype(np.float32))).astype(np.uint8)
    row = report.rows[1]
    for image, scores in ((sr, row.model), (resize(lr, *hr.shape[:2]), row.bicubic)):
        for protocol, crop in (("paper", 0), ("standard", 2)):
            y, y_hr = metrics.luma(image), metrics.luma(hr)
            score = scores[protocol]
            assert score.psnr == metrics.psnr(y, y_hr, crop)
            assert score.ssim == metrics.ssim(y, y_hr, crop)
            assert score.psnr_rgb == metrics.psnr(image, hr, crop)
    assert row.seconds > 0


def test_mean_is_over_images(folder):
    report = run(folder)
    for protocol in evaluate.PROTOCOLS:
        for field in ("psnr", "ssim", "psnr_rgb"):
            values = [getattr(row.model[protocol], field) for row in report.rows]
            assert getattr(report.mean.model[protocol], field) == pytest.approx(np.mean(values))


def test_given_and_made_lr_images_give_the_same(folder):
    made, given = run(folder), run(folder, "LR/x2")
    assert [(r.image, r.model, r.bicubic) for r in made.rows] == [
        (r.image, r.model, r.bicubic) for r in given.rows
    ]


def test_grey_counts_as_rgb_with_equal_channels(folder):
    grey = np.asarray(Image.open(folder / "HR/c.png"))
    save(grey[..., None].repeat(3, -1), folder / "HR/d.png")
    *_, as_grey, as_rgb = run(folder).rows
    assert (as_grey.model, as_grey.bicubic) == (as_rgb.model, as_rgb.bicubic)


def test_a_replicated_border_changes_made_images(folder):
    benchmark = evaluate.Benchmark(folder / "HR", None, 2, "replicate")
    assert evaluate.evaluate(benchmark, nearest).rows[0].model != run(folder).rows[0].model


def test_each_sees_every_image_and_warm_up_runs_twice(folder):
    calls, seen = [], {}

    def model(lr):
        calls.append(lr.shape)
        return nearest(lr)

    run(folder, model=model, warm_up=True, each=lambda row, x: seen.update({row.image: x}))
    assert len(calls) == 6 and list(seen) == ["a", "b", "c"]
    for pictures in seen.values():
        assert all(picture.dtype == np.uint8 for picture in pictures.values())
        for name in ("hr", "sr", "bicubic"):
            assert pictures[name].shape == tuple(np.multiply(pictures["lr"].shape, (2, 2, 1)))


# --- problems -----------------------------------------------------------------------------------


def test_a_bad_image_does_not_stop_the_others(folder):
    (folder / "HR/b.png").write_bytes(b"not a picture")
    report = run(folder)
    assert [row.image for row in report.rows] == ["a", "c"]
    assert len(report.problems) == 1 and "b.png" in report.problems[0]


def test_wrong_sizes_name_both_files(folder):
    hr, lr = folder / "HR/a.png", folder / "LR/x2/ax2.png"
    save(photo(12, 13)[0], lr)
    report = run(folder, "LR/x2")
    assert [row.image for row in report.rows] == ["b", "c"]
    assert report.problems == [
        f"{hr} (28x24 when cut to a multiple of 2) is not 2 times {lr} (13x12)"
    ]


@pytest.mark.parametrize(
    ("model", "message"),
    [(lambda lr: lr, "gave an image of shape"), (lambda lr: nearest(lr) * np.nan, "not finite")],
)
def test_models_that_give_no_picture(folder, model, message):
    report = run(folder, model=model)
    assert not report.rows and len(report.problems) == 3
    assert all(message in problem and ".png: " in problem for problem in report.problems)
    assert json.loads(tables.as_json([report]))["results"][0]["mean"] is None
    for table in (tables.text(report), tables.markdown([report])):
        assert all(problem in table for problem in report.problems)


def test_a_mistake_in_the_model_is_not_a_bad_image(folder):
    with pytest.raises(IndexError):
        run(folder, model=lambda lr: [][0])


def test_images_too_small_for_ssim_are_named(folder):
    save(photo(12, 14)[0], folder / "HR/a.png")
    report = run(folder)
    assert "a.png" in report.problems[0] and "11 pixels" in report.problems[0]


def test_out_of_memory_is_a_problem_of_one_image(folder):
    def model(lr):
        if lr.shape[0] == 15:
            raise RuntimeError("RESOURCE_EXHAUSTED:\n out of memory")
        return nearest(lr)

    report = run(folder, model=model)
    assert len(report.rows) == 2
    assert report.problems == [f"{folder / 'HR/b.png'}: RESOURCE_EXHAUSTED: out of memory"]


def test_folders_that_do_not_help(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no images"):
        run(folder, tmp_path / "empty")
    with pytest.raises(FileNotFoundError):
        run(folder, "LR/x3")
    save(photo(16, 16)[0], tmp_path / "other/z.png")
    with pytest.raises(ValueError, match="no image in .*other has the name of one in .*HR"):
        run(folder, tmp_path / "other")


def test_left_over_files_reach_the_report(folder):
    (folder / "LR/x2/bx2.png").rename(folder / "LR/x2/q_x2.png")
    report = run(folder, "LR/x2")
    assert [row.image for row in report.rows] == ["a", "c"]
    assert len(report.problems) == 2
    table = tables.text(report)
    assert "b.png: no LR image" in table and "q_x2.png: no HR image" in table


def test_names_of_data_sets():
    for path in ("/data/Set5", "/data/Set5/HR", "/data/Set5/x4/HR", "/d/Set5/image_SRF_4"):
        assert evaluate.Benchmark(Path(path), None, 4).name == "Set5"


def test_folders_and_scales_pair_up():
    def shape(*arguments):
        return [(str(b.hr), b.lr and str(b.lr), b.scale) for b in evaluate.benchmarks(*arguments)]

    assert shape(["a"], [], [2]) == [("a", None, 2)]
    assert shape(["a", "b"], [], [4]) == [("a", None, 4), ("b", None, 4)]
    assert shape(["a"], [], [2, 3]) == [("a", None, 2), ("a", None, 3)]
    assert shape(["a", "b"], ["c", "d"], [2, 3]) == [("a", "c", 2), ("b", "d", 3)]
    for hr, lr, scales in (
        ("ab", "c", [2]),
        ("ab", "", [2, 3, 4]),
        ("a", "c", [2, 3]),
        ("", "", [2]),
    ):
        with pytest.raises(ValueError, match="do not pair up"):
            evaluate.benchmarks(list(hr), list(lr), scales)
    with pytest.raises(ValueError, match=r"one of \(2, 3, 4\), not 5"):
        evaluate.benchmarks(["a"], [], [5])
