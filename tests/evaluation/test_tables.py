import csv
import io
import json
import math

import numpy as np
import pytest
from conftest import photo
from PIL import Image
from small_benchmark import nearest, run, save, three_photos

from isrrescnet_jax.evaluation import evaluate, tables


@pytest.fixture
def folder(tmp_path):
    return three_photos(tmp_path)


def completed(folder):
    """With as many pictures as Set5 has."""
    for name in "de":
        save(photo(24, 24)[0], folder / f"HR/{name}.png")
    return folder


def test_two_runs_give_the_same_tables(folder):
    first, second = [run(folder)], [run(folder)]
    assert tables.text(*first, times=False) == tables.text(*second, times=False)
    for table in (tables.markdown, tables.as_json, tables.as_csv):
        assert table(first, times=False) == table(second, times=False)
        assert "seconds" in table(first) and "seconds" not in table(first, times=False)


def test_text_shows_everything(folder):
    report = run(completed(folder))
    lines = tables.text(report, "ours").splitlines()
    assert lines[0].startswith("Set5 x2")
    assert [line.split()[0] for line in lines[3:9]] == [*"abcde", "mean"]
    mean = report.mean
    psnr, ssim = lines[8].split()[2].split("/")
    assert float(psnr) == pytest.approx(mean.model["paper"].psnr, abs=0.005)
    assert float(ssim) == pytest.approx(mean.model["paper"].ssim, abs=5e-5)
    assert "ISRResCNet 37.67/.9596" in lines[9]
    assert len({len(line) for line in lines[2:9]}) == 1


def test_markdown_is_a_table_with_the_paper_beside(folder):
    (folder / "HR/c.png").rename(folder / "HR/c|d.png")
    table = tables.markdown([run(completed(folder)), run(folder)], "ours")
    rows = [line for line in table.splitlines() if line.startswith("|")]
    summary = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[:9]]
    assert all(len(row) == 3 for row in summary)
    assert ["ISRResCNet+, as published", "37.79/.9600", "37.79/.9600"] in summary
    assert r"| c\|d |" in table


def test_unknown_data_sets_have_no_published_row(tmp_path):
    save(photo(24, 24)[0], tmp_path / "mine/a.png")
    report = evaluate.evaluate(evaluate.Benchmark(tmp_path / "mine", None, 2), nearest)
    assert "published" not in tables.text(report) + tables.markdown([report])


def test_a_part_of_a_data_set_has_no_published_row(folder):
    report = run(folder)
    assert "published" not in tables.text(report) + tables.markdown([report])
    assert json.loads(tables.as_json([report]))["results"][0]["published"] == {}


def test_json_is_complete_and_valid(folder):
    def perfect(lr):
        return next(hr for hr in truths if hr.shape[0] == 2 * lr.shape[0])

    truths = [np.asarray(Image.open(folder / f"HR/{name}.png").convert("RGB")) for name in "ab"]
    truths = [hr[: hr.shape[0] // 2 * 2] for hr in truths]
    (folder / "HR/c.png").unlink()
    report = run(folder, model=perfect)
    assert report.rows[0].model["paper"].psnr == math.inf
    text = tables.as_json([report], "ours")
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
    lines = list(csv.DictReader(io.StringIO(tables.as_csv([report]))))
    assert len(lines) == (3 + 1) * 2 * 2
    line = next(line for line in lines if line["image"] == "b" and line["method"] == "model")
    assert float(line["psnr_y"]) == report.rows[1].model["paper"].psnr
    assert (line["dataset"], line["scale"], line["protocol"]) == ("Set5", "2", "paper")


def test_published_numbers_are_complete():
    for row in tables.PUBLISHED.values():
        assert len(row) == 12
    assert tables.PUBLISHED["ISRResCNet"]["urban100", 4] == "25.56/.7682"
