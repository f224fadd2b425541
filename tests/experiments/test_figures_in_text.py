"""What the text says was measured is what the scripts have written."""

import json
import os
from pathlib import Path
from statistics import median
from unittest import mock

with mock.patch.dict(os.environ):  # where it hides accelerators, for itself alone
    from experiments import tpu_plan

FOLDER = Path(__file__).parents[2] / "experiments"
DOCS = FOLDER.parent / "docs"


def section(title: str) -> str:
    text = (FOLDER / "README.md").read_text()
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(file: str):
    return json.loads((FOLDER / file).read_text())["rows"]


def test_recipes_for_other_problems():
    text = section("Recipes for other problems")
    found = json.loads((FOLDER / "recipes" / "results.json").read_text())
    for problem in ("deblur", "mri", "inpaint"):
        for method, value in found[problem]["psnr"].items():
            assert method == "blurred" or f"{value:.2f}" in text, method


def test_quality_beside_speed():
    text = section("Quality beside speed")
    found = json.loads((FOLDER / "quality_speed.json").read_text()).values()
    for names in zip(*(scale["quality"]["psnr"] for scale in found), strict=True):
        cells = []
        for scale, name in zip(found, names, strict=True):
            seconds = median(scale["speed"]["seconds"][name])
            cells.append(f"{scale['quality']['psnr'][name]:.2f} | {seconds:.2g}")
        assert f" | {' | '.join(cells)} |" in text, names


def test_the_training_of_x4():
    text = " ".join((FOLDER / "README.md").read_text().split())
    points = {r["step"]: r["validation_psnr"] for r in rows("training_x4.json") if len(r) == 2}
    first, best, last = points[0], max(points.values()), points[3000]
    told = f"{first:.3f} dB before, {points[250]:.3f} after the first 250 steps, {points[1500]:.3f}"
    assert f"{told} after 1500, {best:.3f} at best and {last:.3f} at the end" in text


def test_the_prior_with_a_fixed_point():
    text, found = section("A prior with a fixed point"), rows("contractive.json")
    kinds = ("noisy", "blurred", "TV of each channel", "TV of all", "non-local means", "ours")
    for row in (*found["denoising"], found["deblurring"]):
        cells = [f"{row[kind]:.2f}" for kind in kinds if kind in row]
        assert [line for line in text.splitlines() if all(cell in line for cell in cells)], cells
    for row in (*found["convergence"], found["deblurring"]):
        assert str(row["iterations"]) in text
    for value in found["gradients"].values():
        assert f"{value:.1e}".replace("e-0", "e-") in text


def test_beside_deepinverse():
    text = section("Beside DeepInverse and plain loops")
    parts = text.split("| **float32**")
    files = ("side_by_side.json", 2), ("side_by_side_float32.json", 3)
    for part, (file, digits) in zip(parts, files, strict=True):
        known = {f"{median(row['seconds']):.{digits}f}" for row in rows(file)}
        cells = [line.split("|")[3].strip() for line in part.splitlines() if line.count("|") == 6]
        told = [cell.split()[0] for cell in cells if cell[:1].isdigit()]
        assert len(told) > 5 and set(told) <= known
        assert max(row["disagreement"] or 0 for row in rows(file)) < (1e-9 if digits == 2 else 1e-4)


def test_the_run_of_five_minutes():
    text = (DOCS / "tutorials" / "minutes.md").read_text()
    found = json.loads((DOCS / "pictures" / "minutes.json").read_text())["rows"]
    validation = {int(step): psnr for step, psnr in found["validation"].items()}
    assert f"bicubic's {found['bicubic']:.2f} dB between steps 30 and 60" in text
    assert validation[30] < found["bicubic"] < validation[60]
    assert f"{validation[600]:.2f} dB" in text and "over nine minutes" in text
    assert 9 < found["seconds"] / 60 < 10
    assert f"{found['processor_seconds']:.0f} seconds of processor time" in text
    assert f"in place of {found['parameters'] / 1e3:.0f} k" in text


def test_the_plan_for_tpus():
    plans = [tpu_plan.Plan(**row) for row in rows("tpu_plan.json")]
    assert tpu_plan.table(plans) in section("What a TPU slice would need")
    text = (DOCS / "tutorials" / "pod.md").read_text()
    for plan in plans:
        if (plan.slice, plan.batch) == ("v5e:2x2", 8):
            assert f"`{plan.backward}` {plan.hbm / 2**30:.2f} GiB" in text
        if (plan.slice, plan.batch) == ("v5e:2x2", 32):
            assert f"`{plan.backward}` needs {plan.hbm / 2**30:.2f} GiB for 32 images" in text


def test_a_billion_images():
    text = (FOLDER.parent / "docs/howto/billion.md").read_text()
    found = [
        line.split("|")[4:-1] for line in text.splitlines() if line.startswith(("| 0.25", "| 2 MP"))
    ]
    plan = rows("billion.json")["plan"]
    for cells, row in zip(found, plan, strict=True):
        values = [
            row[k] for k in ("images_per_second", "cores_that_feed_it", "megabytes_per_second")
        ]
        values += [
            *row["hours"].values(),
            row["terabytes"]["1e+06"],
            row["terabytes"]["1e+09"] / 1e3,
        ]
        for cell, value in zip(cells, values, strict=True):
            cell = cell.strip().replace(",", "")
            digits = len(cell.partition(".")[2])
            assert cell == f"{value:.{digits}f}"


def test_ray_that_is_killed():
    text = " ".join(section("Upscaling on Ray that is killed").split())
    (found,) = rows("ray_proof.json")
    workers = sum("Computer" in name for name in found["killed"])
    assert found["complete"] and len(found["killed"]) == workers == 10
    zeros = ("files_that_differ", "files_that_differ_undisturbed", "exit_code")
    assert not any(found[name] for name in (*zeros, "computed_after_the_result_was_there"))
    assert f"at {found['results_when_the_command_was_killed']} results" in text
    assert f"All {found['images']} results" in text and not found["left_by_it"]
    assert f"{found['computed_more_than_once']} were computed" in text
    assert f"{-100 * found['overhead']:.1f} % *less*" in text
    for seconds in found["seconds_per_image"].values():
        assert " and ".join(f"{1000 * each:.0f}" for each in seconds) + " ms" in text
