"""What visitors see. `gradio` is imported when the page is made."""

import dataclasses
import html
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ..messages import needed, one_line
from . import disk, work
from .work import Limits, Offer, Result, Wish

TITLE = "ISRResCNet: a small picture, larger"
_INTRODUCTION = """# A small picture, larger
Drop one, choose how many times larger, and compare. Small, sharp pictures do best: the shipped
weights were not trained for noise, blur or JPEG artefacts.
Limits: {limits}. Nothing is kept: files are gone {minutes:g} minutes later, results earlier where
others need their room, and what waits for its turn is there until then."""
_INSIDE = """### Inside the iterations
Each one compares what it has, reduced, with your picture, and moves on. The residual is what your
pixels say minus what the reduced iterate has, amplified {gain} times: grey where they agree."""
# Both pictures of an iteration lie in the page already, so that its slider asks nobody.
_SHOW = "(k, iterates, residuals) => [iterates, residuals].map(all => all[k].image)"
_VISIBLE = '{"__type__": "update", "visible": %s}'
_GONE = "**This result is no longer here: press Upscale once more.**"
_STILL_THERE = """async (all, about) => !all?.length
    || (await fetch(all[0].image.url, {method: "HEAD", cache: "no-store"})).ok ? about : GONE"""

KEPT = 600.0  # seconds that a visitor's files stay

Answer = Callable[[bytes, str, Wish, work.Progress], Result]


@dataclasses.dataclass(frozen=True)
class Desk:
    """Takes what a browser sends, and hands out files.

    Attributes:
        folder: where Gradio puts what visitors send, and where results go.
        answer: `work.answer` with what is the same for all.
        room: bytes that results may take together.
    """

    folder: Path
    answer: Answer
    room: int

    def files(
        self,
        upload: Any,
        scale: Any,
        weights: Any,
        iterations: Any,
        estimated: Any,
        noise: Any,
        progress: work.Progress,
    ) -> tuple[Result, dict[str, list[Path]]]:
        """The result and its files.

        Raises:
            ValueError: one line for the visitor.
        """
        path = Path(upload["path"]) if isinstance(upload, dict) and upload.get("path") else None
        if path is None:
            raise ValueError("drop a picture first")
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise ValueError("this is not a file that you dropped here")
        name = Path(str(upload.get("orig_name") or path.name)).name[-100:]
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise ValueError(f"{name}: no longer here: drop it once more") from None
        try:
            level = "estimate" if estimated else float(noise)
            wish = Wish(weights, int(scale), int(iterations), level)
        except (TypeError, ValueError, OverflowError):
            raise ValueError("scale, iterations and noise level must be numbers") from None
        result = self.answer(data, name, wish, progress)
        return result, self._written(result, name)

    def _written(self, result: Result, name: str) -> dict[str, list[Path]]:
        size = len(result.picture) + len(result.bicubic)
        size += sum(len(step.image) + len(step.residual) for step in result.steps)
        folder = disk.room_for(size, self.folder, self.room)
        ours = folder / "shown"  # apart from the visitor's name, which may be any
        ours.mkdir()

        def written(path: Path, data: bytes) -> Path:
            path.write_bytes(data)
            return path

        picture = written(folder / f"{_stem(name)}.png", result.picture)
        steps = list(enumerate(result.steps))
        return {
            "pictures": [written(ours / "bicubic.png", result.bicubic), picture],
            "iterates": [written(ours / f"iterate_{k}.png", step.image) for k, step in steps],
            "residuals": [written(ours / f"residual_{k}.png", step.residual) for k, step in steps],
        }


def _stem(name: str) -> str:
    """Of a visitor's file, for a file of ours: `photo` of photo.jpg, as the command names it."""
    return re.sub(r"[^\w .()-]", "_", Path(name).stem).strip(" .") or "picture"


def page(offers: Mapping[str, Offer], limits: Limits, folder: Path, answer: Answer) -> Any:
    """The page, a `gradio.Blocks`."""
    gr = needed("gradio")
    desk = Desk(folder, answer, limits.results)
    scales = [s for s in (2, 3, 4) if work.fitting(offers, s)]

    def weights_of(scale: int) -> dict[str, Any]:
        names = work.fitting(offers, scale)
        return {"choices": [(_label(n, offers[n]), n) for n in names], "value": names[0]}

    def iterations_of(weights: str) -> dict[str, Any]:
        most = offers[weights].iterations
        return {"maximum": max(most, 2), "value": most, "visible": most > 1}

    def chosen(of: Callable[[Any], dict[str, Any]], values: Iterable[Any]) -> str:
        """What a component becomes for each value, as JavaScript."""
        return json.dumps({value: {"__type__": "update"} | of(value) for value in values})

    def run(upload, scale, weights, iterations, estimated, noise, progress=gr.Progress()):  # noqa: B008
        def told(part: float, text: str) -> None:
            progress(part, desc=text)

        try:
            result, files = desk.files(upload, scale, weights, iterations, estimated, noise, told)
        except (ValueError, OSError) as error:
            raise _refusal(gr, one_line(error)) from None
        except (MemoryError, RuntimeError):  # JAX's, where memory runs out
            raise _refusal(gr, "memory ran out: take a smaller picture or scale") from None
        last = len(result.steps) - 1
        return {
            results: gr.Column(visible=True),
            before_after: tuple(map(str, files["pictures"])),
            download: gr.DownloadButton(value=str(files["pictures"][1]), interactive=True),
            about: "  \n".join(filter(None, [result.about, result.note])),
            explained: _INSIDE.format(gain=result.gain),
            step: gr.Slider(maximum=max(last, 1), value=last, visible=last > 0),
            iterate: str(files["iterates"][-1]),
            residual: str(files["residuals"][-1]),
            iterates: list(map(str, files["iterates"])),
            residuals: list(map(str, files["residuals"])),
        }

    quiet = {"api_visibility": "private", "preprocess": False}
    picture = {"buttons": ["fullscreen"], "format": "png", "interactive": False}
    with gr.Blocks(title=TITLE, analytics_enabled=False) as blocks:
        gr.Markdown(_INTRODUCTION.format(limits=_said(limits), minutes=KEPT / 60))
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                upload = gr.Image(
                    label="Your picture", sources=["upload", "clipboard"], height=260, buttons=[]
                )
                start = 4 if 4 in scales else scales[-1]
                scale = gr.Radio([(f"×{s}", s) for s in scales], value=start, label="Larger by")
                weights = gr.Dropdown(**weights_of(start), label="Weights")
                iterations = gr.Slider(
                    1, step=1, label="Iterations", **iterations_of(weights_of(start)["value"])
                )
                acts = offers[weights_of(start)["value"]].noise
                estimated = gr.Checkbox(True, label="Estimate the noise level", visible=acts)
                noise = gr.Slider(
                    0, work.LOUDEST, 2, step=0.5, label="Noise level σ, grey levels", visible=False
                )
                go = gr.Button("Upscale", variant="primary")
            with gr.Column(scale=5, min_width=420):
                before_after = gr.ImageSlider(
                    label="Bicubic interpolation | ISRResCNet",
                    max_height=560,
                    elem_id="compared",
                    **picture,
                )
                with gr.Row():
                    about = gr.Markdown("The result appears here.")
                    download = gr.DownloadButton(
                        "Download PNG", size="md", scale=0, min_width=180, interactive=False
                    )
        with gr.Column(visible=False) as results:
            explained = gr.Markdown()
            step = gr.Slider(0, 1, step=1, label="Iteration k")
            with gr.Row():
                iterate = gr.Image(label="Iterate x_k", elem_id="iterate", **picture)
                residual = gr.Image(label="Residual y − D x_k", elem_id="residual", **picture)
            iterates = gr.Gallery(visible="hidden")
            residuals = gr.Gallery(visible="hidden")
        # In the browser: what asks the server waits, and is refused where the queue is full.
        scale.change(None, scale, weights, js=f"s => ({chosen(weights_of, scales)})[s]")
        weights.change(
            None,
            [weights, estimated],
            [iterations, estimated, noise],
            js=f"""(w, e) => {{
                const acts = {json.dumps({name: offer.noise for name, offer in offers.items()})}[w];
                return [({chosen(iterations_of, offers)})[w], {_VISIBLE % "acts"},
                    {_VISIBLE % "acts && !e"}];
            }}""",
        )
        estimated.change(None, estimated, noise, js=f"e => ({_VISIBLE % '!e'})")
        step.change(None, [step, iterates, residuals], [iterate, residual], js=_SHOW)
        gone = _STILL_THERE.replace("GONE", json.dumps(_GONE))
        gr.on([step.change, download.click], None, [iterates, about], about, js=gone)
        go.click(
            run,
            [upload, scale, weights, iterations, estimated, noise],
            [results, before_after, download, about, explained, step]
            + [iterate, residual, iterates, residuals],
            show_progress_on=before_after,
            concurrency_limit=1,
            **quiet,
        )
    return blocks.queue(max_size=limits.queue, api_open=False, default_concurrency_limit=1)


def _label(name: str, offer: Offer) -> str:
    k = offer.iterations
    return f"{name}, {k} iteration{'s' * (k > 1)}"


def _said(limits: Limits) -> str:
    size = f"files up to {work.megabytes(limits.file)}"
    return f"results up to {limits.megapixels:g} megapixels, divided by the iterations; {size}"


def _refusal(gr: Any, line: str) -> Exception:
    """What the visitor sees; shown as HTML, hence escaped."""
    return gr.Error(html.escape(line), print_exception=False, title="Not this one")
