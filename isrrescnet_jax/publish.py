"""Weights for others: the hub's model card, and the upload of both."""

import json
from collections.abc import Mapping
from typing import Any

from . import hub
from .messages import counted
from .representation import count, thousands
from .version import __version__
from .weights import Weights, as_bytes

Scores = Mapping[str, Mapping[str, float]]
METRICS = {"psnr": ("PSNR in dB", ".2f"), "ssim": ("SSIM", ".4f")}


def model_card(
    weights: Weights,
    repository: str,
    *,
    licence: str,
    data: str,
    scores: Scores | None = None,
    protocol: str = "",
    metadata: Mapping[str, str] | None = None,
) -> str:
    """README.md of a repository of weights, as the Hugging Face hub reads it.

    >>> import jax, isrrescnet_jax as isr
    >>> config = isr.ModelConfig(features=4, depth=1, feedback_steps=1, iterations=2, scale=2)
    >>> weights = isr.init_weights(config, jax.random.key(0))
    >>> card = isr.model_card(
    ...     weights, "me/tiny", licence="mit", data="none", scores={"Set5 x2": {"psnr": 33.5}}
    ... )
    >>> print(card[card.index("| Set5") :].splitlines()[0])
    | Set5 x2 | 33.50 |

    Args:
        repository: user/name.
        licence: of the weights, by the hub's short names ("mit", "cc-by-nc-4.0", "other").
        data: what they were trained on, and under which terms.
        scores: as measured, by what was measured on: {"Set5 x4": {"psnr": 30.78, "ssim": 0.8755}}.
            The card says so if there are none.
        protocol: how they were measured, such as "on Y, whole image".
        metadata: more to say, as in the weights file.
    """
    config = weights.config
    scale = "any scale" if config.scale is None else f"x{config.scale}"
    title = repository.rpartition("/")[2]
    header: dict[str, Any] = {
        "license": licence,
        "library_name": "isrrescnet-jax",
        "pipeline_tag": "image-to-image",
        "tags": ["super-resolution", "image-restoration", "jax", "flax"],
    }
    if scores:
        header["model-index"] = [{"name": title, "results": _results(scores)}]
    # Values in JSON are YAML, and quoted.
    front = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in header.items()]
    text = [
        "---",
        *front,
        "---",
        "",
        f"# {title}",
        "",
        f"ISRResCNet for super-resolution, {scale}: {thousands(count(weights.params)[1])} "
        f"parameters, {config.features} features, depth {config.depth}, {config.feedback_steps} "
        f"feedback steps, {counted(config.iterations, 'iteration')}, {config.physics} physics, "
        f"step {config.step:g}. The method is that of "
        "Umer, Foresti & Micheloni, [ICPR 2020](https://arxiv.org/abs/2009.04809).",
        "",
        "```python",
        "# pip install 'isrrescnet-jax[hub]'",
        "import isrrescnet_jax as isr",
        "",
        f'picture = isr.upscale(image, weights="hf://{repository}")  # uint8, (h, w, 3)',
        "```",
        "",
        "## Scores",
        "",
        *(_table(scores, protocol) if scores else ["Not measured."]),
        "",
        "## Training data and terms",
        "",
        data,
        "",
        f"Licence of the weights: {licence}.",
    ]
    if metadata:
        text += ["", "## What the file says of itself", ""]
        text += [f"- {key}: {' '.join(str(value).split())}" for key, value in metadata.items()]
    return "\n".join([*text, "", f"Written by isrrescnet-jax {__version__}.", ""])


def _results(scores: Scores) -> list[dict[str, Any]]:
    """The scores as the hub lists them."""
    task = {"type": "image-to-image", "name": "super-resolution"}
    return [
        {
            "task": task,
            "dataset": {"name": where, "type": where.split()[0].lower()},
            "metrics": [{"type": metric, "value": float(value)} for metric, value in row.items()],
        }
        for where, row in scores.items()
    ]


def _table(scores: Scores, protocol: str) -> list[str]:
    """The scores for people."""
    metrics = list(dict.fromkeys(metric for row in scores.values() for metric in row))
    known = [METRICS.get(metric, (metric, ".4g")) for metric in metrics]
    lines = [f"| {protocol} | " + " | ".join(name for name, _ in known) + " |"]
    lines.append("| --- |" + " ---: |" * len(metrics))
    for where, row in scores.items():
        cells = [
            format(row[metric], form) if metric in row else ""
            for metric, (_, form) in zip(metrics, known, strict=True)
        ]
        lines.append(f"| {where} | " + " | ".join(cells) + " |")
    return lines


def save_to_hub(
    weights: Weights,
    repository: str,
    *,
    licence: str,
    data: str,
    scores: Scores | None = None,
    protocol: str = "",
    metadata: Mapping[str, str] | None = None,
    branch: str | None = None,
    private: bool = False,
    api: Any = None,
) -> str:
    """Save weights and their model card to a repository of the Hugging Face hub, in one commit.

    The repository is made if it is not there. With the extra `hub`; the token is the user's
    (`hf auth login`, or HF_TOKEN).

    >>> import isrrescnet_jax as isr
    >>> terms = {"licence": "cc-by-4.0", "data": "500 photographs of ours, CC BY 4.0"}
    >>> isr.save_to_hub(isr.load_weights("x4"), "user/name", **terms)  # doctest: +SKIP
    'hf://user/name@8f1c0ee6a26e6a9dcf9e3f6d1a4f7d4f0a8d9b11'

    Args:
        weights, licence, data, scores, protocol: see `model_card`.
        repository: user/name.
        metadata: free text, kept in the weights file and shown in the card.
        branch: the main one by default.
        private: if the repository is made, others cannot see it.
        api: a `huggingface_hub.HfApi`, which knows another token or place.

    Returns:
        The name of exactly these weights for `load_weights`, which later commits do not change.

    Raises:
        ValueError: not user/name, or weights that cannot be used (see `save_weights`).
        ModuleNotFoundError: `huggingface_hub` is not installed.
    """
    hub.parse(f"hf://{repository}")
    if repository.count("/") != 1 or "@" in repository:
        raise ValueError(f"a repository is user/name, not {repository}")
    about = {"licence": licence, "scores": scores, "protocol": protocol}
    card = model_card(weights, repository, data=data, metadata=metadata, **about)
    said = {"licence": licence, "data": data} | dict(metadata or {})
    files = {hub.FILE: as_bytes(weights, said), "README.md": card.encode()}
    message = f"Weights by isrrescnet-jax {__version__}"
    commit = hub.upload(repository, files, message, branch=branch, private=private, api=api)
    return f"hf://{repository}@{commit}"
