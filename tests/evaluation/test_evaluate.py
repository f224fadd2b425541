import csv
import io
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import photo
from PIL import Image

from isrrescnet_jax.evaluation import evaluate, metrics
from isrrescnet_jax.evaluation.degrade import degrade, resize

SHARED = Path(os.environ.get("ISR_SHARED", Path(__file__).parents[3] / "shared"))


def nearest(lr: np.ndarray) -> np.ndarray:
    """A model: every pixel twice, a little too bright, so never quite right."""
    assert lr.dtype == np.float32 and lr.shape[2] == 3
    return lr.repeat(2, 0).repeat(2, 1) + 0.4


def save(image: np.ndarray, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


@pytest.fixture
def folder(tmp_path):
    """Three photos of different sizes, one odd, one grey; and their LR images."""
    a, b, c = photo(24, 28, seed=1)[0], photo(31, 26, seed=2)[0], photo(26, 26, seed=3)[0][..., 0]
    for name, image in {"a": a, "b": b, "c": c}.items():
        save(image, tmp_path / f"Set5/HR/{name}.png")
        save(degrade(image, 2), tmp_path / f"Set5/LR/x2/{name}x2.png")
    return tmp_path / "Set5"


def run(folder, lr=None, model=nearest, **options):
    lr = None if lr is None else folder / lr
    return evaluate.evaluate(evaluate.Benchmark(folder / "HR", lr, 2), model, **options)


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
    assert json.loads(evaluate.as_json([report]))["results"][0]["mean"] is None
    for table in (evaluate.text(report), evaluate.markdown([report])):
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


# --- names --------------------------------------------------------------------------------------


def paths(*names: str) -> list[Path]:
    return [Path(f"{name}.png") for name in names]


@pytest.mark.parametrize(
    ("hr", "lr"),
    [
        ("butterfly", "butterfly"),
        ("butterfly", "butterflyx4"),
        ("butterfly", "butterfly_x4"),
        ("butterfly", "butterfly-4x"),
        ("butterfly", "butterfly_LRBI_x4"),
        ("butterfly_HR_x4", "butterfly_LRBI_x4"),
        ("butterfly_GT", "Butterfly_LR"),
        ("img_003_SRF_4_HR", "img_003_SRF_4_LR"),
        ("img_003_SRF_4", "img_003_SRF_4_LR"),
        ("img_003", "img_003_SRF_4_LR"),
        ("0801", "0801x4"),
        ("x4", "x4_LR"),
    ],
)
def test_names_that_belong_together(hr, lr):
    # Among others that are not far off.
    others = [("img_004", "img_004_SRF_4_LR"), ("butter", "butterx4"), ("003", "003")]
    highs, lows = paths(hr, *(h for h, _ in others)), paths(*(low for _, low in others), lr)
    pairs, problems = evaluate.match(highs, lows, 4)
    assert not problems
    assert [(a.stem, b.stem) for a, b in pairs] == [(hr, lr), *others]


def test_equal_names_come_first():
    names = paths("photo", "photo_x4")
    assert evaluate.match(names, names, 4) == (list(zip(names, names, strict=True)), [])


def test_other_scales_are_not_mixed_up():
    lows = paths("ax2", "ax3", "ax4", "b_x2", "b_x4")
    pairs, problems = evaluate.match(paths("a", "b"), lows, 2)
    assert [low.stem for _, low in pairs] == ["ax2", "b_x2"]
    assert problems == [f"{name}.png: no HR image of that name" for name in ("ax3", "ax4", "b_x4")]


def test_what_is_left_over_is_listed():
    pairs, problems = evaluate.match(paths("a", "b", "c"), paths("ax4", "d_x4", "c", "cx4"), 4)
    assert [(a.stem, b.stem) for a, b in pairs] == [("a", "ax4"), ("c", "c")]
    assert problems == [
        "b.png: no LR image of that name",
        "d_x4.png: no HR image of that name",
        "cx4.png: no HR image of that name",
    ]


def test_names_that_are_too_alike_are_listed():
    pairs, problems = evaluate.match(paths("a"), paths("ax4", "a_LR"), 4)
    assert not pairs
    assert len(problems) == 1 and "a.png, ax4.png, a_LR.png: which" in problems[0]


def test_left_over_files_reach_the_report(folder):
    (folder / "LR/x2/bx2.png").rename(folder / "LR/x2/q_x2.png")
    report = run(folder, "LR/x2")
    assert [row.image for row in report.rows] == ["a", "c"]
    assert len(report.problems) == 2
    table = evaluate.text(report)
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


# --- tables -------------------------------------------------------------------------------------


def test_two_runs_give_the_same_tables(folder):
    first, second = [run(folder)], [run(folder)]
    assert evaluate.text(*first, times=False) == evaluate.text(*second, times=False)
    for table in (evaluate.markdown, evaluate.as_json, evaluate.as_csv):
        assert table(first, times=False) == table(second, times=False)
        assert "seconds" in table(first) and "seconds" not in table(first, times=False)


def test_text_shows_everything(folder):
    report = run(folder)
    lines = evaluate.text(report, "ours").splitlines()
    assert lines[0].startswith("Set5 x2")
    assert [line.split()[0] for line in lines[3:7]] == ["a", "b", "c", "mean"]
    mean = report.mean
    psnr, ssim = lines[6].split()[2].split("/")
    assert float(psnr) == pytest.approx(mean.model["paper"].psnr, abs=0.005)
    assert float(ssim) == pytest.approx(mean.model["paper"].ssim, abs=5e-5)
    assert "ISRResCNet 37.67/.9596" in lines[7]
    assert len({len(line) for line in lines[2:7]}) == 1


def test_markdown_is_a_table_with_the_paper_beside(folder):
    (folder / "HR/c.png").rename(folder / "HR/c|d.png")
    table = evaluate.markdown([run(folder), run(folder)], "ours")
    rows = [line for line in table.splitlines() if line.startswith("|")]
    summary = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[:9]]
    assert all(len(row) == 3 for row in summary)
    assert ["ISRResCNet+, as published", "37.79/.9600", "37.79/.9600"] in summary
    assert r"| c\|d |" in table


def test_unknown_data_sets_have_no_published_row(tmp_path):
    save(photo(24, 24)[0], tmp_path / "mine/a.png")
    report = evaluate.evaluate(evaluate.Benchmark(tmp_path / "mine", None, 2), nearest)
    assert "published" not in evaluate.text(report) + evaluate.markdown([report])


def test_json_is_complete_and_valid(folder):
    def perfect(lr):
        return next(hr for hr in truths if hr.shape[0] == 2 * lr.shape[0])

    truths = [np.asarray(Image.open(folder / f"HR/{name}.png").convert("RGB")) for name in "ab"]
    truths = [hr[: hr.shape[0] // 2 * 2] for hr in truths]
    (folder / "HR/c.png").unlink()
    report = run(folder, model=perfect)
    assert report.rows[0].model["paper"].psnr == math.inf
    text = evaluate.as_json([report], "ours")
    content = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    (result,) = content["results"]
    assert content["model"] == "ours"
    assert (result["name"], result["scale"], result["lr"]) == ("Set5", 2, None)
    assert result["images"][0]["model"]["paper"] == {"psnr": None, "ssim": 1.0, "psnr_rgb": None}
    expected = report.rows[1].bicubic["standard"]
    assert result["images"][1]["bicubic"]["standard"]["psnr"] == expected.psnr
    assert len(content["seconds"][0]) == 2


def test_csv_has_a_line_for_every_number(folder):
    report = run(folder)
    lines = list(csv.DictReader(io.StringIO(evaluate.as_csv([report]))))
    assert len(lines) == (3 + 1) * 2 * 2
    line = next(line for line in lines if line["image"] == "b" and line["method"] == "model")
    assert float(line["psnr_y"]) == report.rows[1].model["paper"].psnr
    assert (line["dataset"], line["scale"], line["protocol"]) == ("Set5", "2", "paper")


def test_published_numbers_are_complete():
    for row in evaluate.PUBLISHED.values():
        assert len(row) == 12
    assert evaluate.PUBLISHED["ISRResCNet"]["urban100", 4] == "25.56/.7682"


def test_save_makes_folders_and_replaces(tmp_path):
    path = tmp_path / "tables/a.csv"
    for content in ("old", "new ×4"):
        evaluate.save(content, path)
        assert path.read_text(encoding="utf-8") == content
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(not (SHARED / "data/benchmark").exists(), reason="no data")
@pytest.mark.parametrize(
    ("name", "scale", "paper", "standard"),
    [
        ("Set5", 2, "33.68/.9304", "33.67/.9303"),
        ("Set5", 3, "30.40/.8688", "30.40/.8689"),
        ("Set5", 4, "28.43/.8110", "28.43/.8111"),
        ("Set14", 2, "30.09/.8701", "30.33/.8699"),
    ],
)
def test_bicubic_on_the_benchmarks(name, scale, paper, standard):
    hr = SHARED / f"data/benchmark/{name}/x{scale}/HR"
    benchmark = evaluate.Benchmark(hr, hr.parent / "LR", scale)

    def model(lr):
        return lr.repeat(scale, 0).repeat(scale, 1)

    report = evaluate.evaluate(benchmark, model)
    cells = evaluate.text(report, times=False).splitlines()[-2].split()
    assert not report.problems and cells[0] == "mean" and (cells[1], cells[4]) == (paper, standard)
