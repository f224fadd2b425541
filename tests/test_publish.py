"""The model card, and what is sent to the hub."""

import json
from types import SimpleNamespace

import pytest

import isrrescnet_jax as isr
from isrrescnet_jax.weights import load_weights_and_metadata

TERMS = {"licence": "cc-by-nc-4.0", "data": "T91 and BSDS500: research and education."}
SCORES = {"Set5 x2": {"psnr": 33.504, "ssim": 0.91}, "Set14 x2": {"psnr": 30.0}}


def front(card: str) -> dict:
    """The header for the hub, each of whose values is JSON."""
    _, header, _ = card.split("---\n", 2)
    lines = (line.split(": ", 1) for line in header.strip().splitlines())
    return {key: json.loads(value) for key, value in lines}


def test_a_card_says_terms_scores_and_the_shape(small):
    card = isr.model_card(
        small, "me/x2", scores=SCORES, protocol="on Y", metadata={"steps": "5\n00"}, **TERMS
    )
    header = front(card)
    assert header["license"] == "cc-by-nc-4.0"
    assert header["pipeline_tag"] == "image-to-image"
    (index,) = header["model-index"]
    assert index["name"] == "x2"
    assert [r["dataset"]["type"] for r in index["results"]] == ["set5", "set14"]
    assert index["results"][0]["metrics"][0] == {"type": "psnr", "value": 33.504}
    assert (
        "| on Y | PSNR in dB | SSIM |\n| --- | ---: | ---: |\n| Set5 x2 | 33.50 | 0.9100 |" in card
    )
    assert "| Set14 x2 | 30.00 |  |" in card
    assert "x2: 4 k parameters, 8 features, depth 2, 2 feedback steps, 3 iterations" in card
    assert TERMS["data"] in card and "- steps: 5 00\n" in card
    assert 'weights="hf://me/x2"' in card


def test_a_card_without_scores_says_so(small):
    card = isr.model_card(small, "me/x2", **TERMS)
    assert "Not measured." in card and "model-index" not in front(card)


class Api:
    """Takes the place of `huggingface_hub.HfApi`, and keeps what it is told."""

    def __init__(self):
        self.calls = []

    def create_repo(self, repository, **options):
        self.calls.append(("create_repo", repository, options))

    def create_commit(self, repository, operations, **options):
        self.calls.append(("create_commit", repository, options))
        self.files = {o.path_in_repo: o.path_or_fileobj for o in operations}
        return SimpleNamespace(oid="0123456789abcdef0123456789abcdef01234567")


def test_weights_and_card_go_in_one_commit(small, tmp_path):
    pytest.importorskip("huggingface_hub")
    api = Api()
    options = {"branch": "next", "private": True, "metadata": {"steps": "500"}}
    name = isr.save_to_hub(small, "me/x2", api=api, scores=SCORES, **options, **TERMS)
    assert name == "hf://me/x2@0123456789abcdef0123456789abcdef01234567"
    (made, _, how), (committed, repository, commit) = api.calls
    assert (made, how) == ("create_repo", {"private": True, "exist_ok": True})
    assert (committed, repository, commit["revision"]) == ("create_commit", "me/x2", "next")
    assert api.files.keys() == {"model.safetensors", "README.md"}
    (tmp_path / "w.safetensors").write_bytes(api.files["model.safetensors"])
    weights, metadata = load_weights_and_metadata(tmp_path / "w.safetensors")
    assert weights.config == small.config
    assert metadata == {"steps": "500", **TERMS}
    assert "33.50" in api.files["README.md"].decode()


@pytest.mark.parametrize("repository", ["x2", "a/b/c.safetensors", "me/x2@main", "../x2", ""])
def test_a_repository_is_user_and_name(small, repository):
    with pytest.raises(ValueError):
        isr.save_to_hub(small, repository, api=Api(), **TERMS)
