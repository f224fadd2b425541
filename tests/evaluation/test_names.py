from pathlib import Path

import pytest

from isrrescnet_jax.evaluation.names import match


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
    pairs, problems = match(highs, lows, 4)
    assert not problems
    assert [(a.stem, b.stem) for a, b in pairs] == [(hr, lr), *others]


def test_equal_names_come_first():
    names = paths("photo", "photo_x4")
    assert match(names, names, 4) == (list(zip(names, names, strict=True)), [])


def test_other_scales_are_not_mixed_up():
    lows = paths("ax2", "ax3", "ax4", "b_x2", "b_x4")
    pairs, problems = match(paths("a", "b"), lows, 2)
    assert [low.stem for _, low in pairs] == ["ax2", "b_x2"]
    assert problems == [f"{name}.png: no HR image of that name" for name in ("ax3", "ax4", "b_x4")]


def test_what_is_left_over_is_listed():
    pairs, problems = match(paths("a", "b", "c"), paths("ax4", "d_x4", "c", "cx4"), 4)
    assert [(a.stem, b.stem) for a, b in pairs] == [("a", "ax4"), ("c", "c")]
    assert problems == [
        "b.png: no LR image of that name",
        "d_x4.png: no HR image of that name",
        "cx4.png: no HR image of that name",
    ]


def test_names_that_are_too_alike_are_listed():
    pairs, problems = match(paths("a"), paths("ax4", "a_LR"), 4)
    assert not pairs
    assert len(problems) == 1 and "a.png, ax4.png, a_LR.png: which" in problems[0]
