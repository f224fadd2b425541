from pathlib import Path

from commands import fails, run
from conftest import photo
from PIL import Image


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
