"""A small sample of the campaign with spoiled files, and that its limits are noticed."""

import dataclasses
import json
import resource
from pathlib import Path

import pytest

from experiments import fuzz, fuzz_files, fuzz_pictures

FILES = {("picture", name): data for name, data in fuzz_files.pictures().items()}


@pytest.fixture
def in_processes(tmp_path, monkeypatch):
    """Outcomes of cases, each in a forked process with limits."""
    monkeypatch.setenv("ISRRESCNET_CACHE", "")

    def run(cases, files=FILES, own=None):
        if own is not None:
            monkeypatch.setattr(fuzz_pictures, "run", own)
        return list(fuzz.outcomes(cases, files, tmp_path / "work"))

    return run


def test_whole_and_spoiled_pictures_are_a_result_or_one_line(in_processes):
    whole = [fuzz.Case("picture", name, "whole") for _, name in FILES]
    spoiled = fuzz.cases(FILES, 0.015)
    assert len(spoiled) > 100
    found = in_processes(whole + spoiled)
    assert not [outcome for outcome in found if outcome.what not in fuzz.GOOD]
    refused = {o.id.split("/")[1] for o in found[: len(whole)] if o.what == "refused"}
    assert "cmyk.jpg" in refused  # whose profile is none
    assert refused <= {"cmyk.jpg", "alpha.png", "palette.png", "alpha.bmp", "lossless.webp"}
    assert {"result", "refused"} == {outcome.what for outcome in found[len(whole) :]}
    assert max(outcome.megabytes for outcome in found) < 300


def test_what_goes_wrong_is_noticed(in_processes):
    def misbehave(case, data, folder):
        match case.how:
            case "cut 1":
                raise_ = lambda argv: [][0]  # noqa: E731
                return fuzz.exit_code(raise_, []), lambda: True
            case "cut 2":
                fuzz.os.write(2, b"one\ntwo\n")
                return 2, lambda: True
            case "cut 3":
                (folder / "ran").mkdir()
            case "cut 4":
                fuzz.os.kill(fuzz.os.getpid(), fuzz.signal.SIGKILL)
            case "cut 5":
                large = bytearray(900 * 2**20)
                resource.setrlimit(resource.RLIMIT_AS, (2**40, resource.RLIM_INFINITY))
                large += bytes(200 * 2**20)
            case "cut 6":
                return 0, lambda: False
        return 0, lambda: True

    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)  # that memory can be had at all
    cases = [fuzz.Case("picture", "rgb.png", f"cut {i}") for i in range(1, 8)]
    found = [outcome.what for outcome in in_processes(cases, own=misbehave)]
    monkeypatch.undo()
    assert found == [
        *("traceback", "not one line", "code ran", "killed", "too much memory"),
        *("wrong result", "result"),
    ]


def test_one_that_hangs_is_stopped(in_processes, monkeypatch):
    def hang(case, data, folder):
        while case.how == "cut 1":
            pass
        return 0, lambda: True

    monkeypatch.setattr(fuzz, "SECONDS", 1)
    cases = [fuzz.Case("picture", "rgb.png", f"cut {i}") for i in (1, 2)]
    assert [o.what for o in in_processes(cases, own=hang)] == ["hang", "result"]


def test_cases_are_those_of_the_seed_and_a_run_goes_on(tmp_path, monkeypatch):
    every = fuzz.cases(FILES)
    assert len(every) > 10_000 and len({case.id for case in every}) == len(every)
    assert fuzz.cases(FILES, 0.01) == fuzz.cases(FILES, 0.01) != fuzz.cases(FILES, 0.01, seed=1)
    for name, data in fuzz_files.pictures().items():
        cut = {case.how for case in every if case.name == name and case.how.startswith("cut")}
        assert cut == {f"cut {end}" for end in range(64, len(data), 64)}
    chosen = [fuzz.Case("picture", "rgb.png", f"cut {i}") for i in (64, 128, 192)]
    known = fuzz.Outcome(chosen[0].id, "refused", "a line", 0.5, 1.0)
    text = json.dumps(dataclasses.asdict(known))
    (tmp_path / "0.jsonl").write_text(f"{text}\n{text[:20]}")  # the second was cut off
    assert fuzz.read_outcomes(tmp_path) == [known]
    table = fuzz.summary([known, dataclasses.replace(known, id=chosen[1].id, what="hang")])
    assert table["outcomes"]["all"] == {"refused": 1, "hang": 1}
    assert [bad["id"] for bad in table["bad"]] == [chosen[1].id]


def test_the_committed_campaign_is_large_and_clean():
    path = Path(fuzz.__file__).with_name("fuzz.json")
    found = json.loads(path.read_text())
    counts = found["outcomes"]["all"]
    assert found["cases"] > 10_000 and not found["bad"] and set(counts) == {"result", "refused"}
