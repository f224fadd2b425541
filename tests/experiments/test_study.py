import dataclasses
import json

from experiments import study


def test_only_cells_that_are_missing_or_changed_are_run():
    cells = study.cells()
    found = {name: {"cell": study.plain(cell)} for name, cell in cells.items()}
    assert study.missing(study.Study(), found) == {}
    first, second, *_ = cells
    del found[first]
    found[second]["cell"]["learning_rate"] += 1
    assert list(study.missing(study.Study(), found)) == [first, second]
    assert list(study.missing(study.Study(only=(second,)), found)) == [second]


def test_the_committed_results_are_those_of_the_cells_as_they_are():
    results = json.loads(study.Study().out.read_text())
    for name, result in results.items():
        assert result["cell"] == study.plain(study.cells()[name]), name
        assert result["psnr"] == result["curve"][-1][1]


def test_the_figure_draws(tmp_path):
    cell = study.plain(study.Cell())
    results = {"a": {"cell": cell, "psnr": 26.0}, "b": {"cell": cell, "psnr": 25.0}}
    full = dataclasses.asdict(dataclasses.replace(study.Cell(), full=True))
    study.draw(results | {"c": {"cell": full, "psnr": 27.0}}, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1000
