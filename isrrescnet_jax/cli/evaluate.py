"""`isrrescnet evaluate`."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from tyro.conf import arg

from .. import images
from ..messages import say
from .batch import name_overlooked
from .model import Model
from .reports import check_out, check_reports, write_report
from .startup import uncollected
from .streams import STANDARD

if TYPE_CHECKING:
    import isrrescnet_jax.evaluation.evaluate


@dataclasses.dataclass(frozen=True)
class Evaluate(Model):
    """Measure PSNR and SSIM on folders of pictures, beside bicubic interpolation."""

    hr: tuple[Path, ...] = ()
    """Folders of high-resolution pictures, one for each data set and scale."""
    lr: tuple[Path, ...] = ()
    """Their low-resolution counterparts, in the same order; made by `degrade` where not given."""
    scale: Annotated[tuple[int, ...], arg(aliases=["-s"])] = (4,)
    """One for all folders, or one for each."""
    border: Literal["symmetric", "replicate"] = "symmetric"
    """Of `degrade`."""
    times: bool = True
    """Print seconds per picture, all that differs between two runs."""
    warm_up: bool = False
    """Run every picture twice, so that the times leave out compilation."""
    json: Path | None = None
    """Write every number to this file; - is standard output. What is there is replaced if it is
    such a report, or with --overwrite."""
    csv: Path | None = None
    """Write a table with a line for each picture, in the same way."""
    markdown: Path | None = None
    """Write a summary with the paper's numbers, and a table for each data set, in the same way."""
    overwrite: bool = False
    """Replace figures and other texts that exist."""

    def run(self) -> int:
        """Measure and print; 0, or 2 if a picture could not be measured."""
        if not self.hr:
            raise ValueError("name a folder of high-resolution pictures: --hr DIR")
        with uncollected():
            from ..evaluation import evaluate, tables
            from ..upscaler import Upscaler

        benchmarks = evaluate.benchmarks(self.hr, self.lr, self.scale, self.border)
        wanted = {"--json": self.json, "--csv": self.csv, "--markdown": self.markdown}
        check_reports(wanted, self.overwrite)
        self._check_figures(benchmarks)
        label = self.weights or "shipped"
        label = Path(label).stem + ("+" if self.ensemble else "")
        reports = []
        messages = sys.stderr if STANDARD in wanted.values() else sys.stdout
        for benchmark in benchmarks:
            say(f"{benchmark.name} x{benchmark.scale}: {benchmark.hr}", messages)
            upscaler = self.upscaler(benchmark.scale)

            def each(
                row: evaluate.Row,
                pictures: dict[str, np.ndarray],
                benchmark: evaluate.Benchmark = benchmark,
                upscaler: Upscaler = upscaler,
            ) -> None:
                score = row.model["paper"]
                seconds = f"  {row.seconds:.2f} s" if self.times else ""
                say(f"  {row.image}  {score.psnr:.2f} dB{seconds}", messages)
                if self.trace:
                    from ..evaluation.figures import trace_figure

                    solution = upscaler.trace(pictures["lr"])
                    figure = self.trace / _figure(benchmark, row.image)
                    trace_figure(solution, figure, hr=pictures["hr"])

            reports.append(evaluate.evaluate(benchmark, upscaler, warm_up=self.warm_up, each=each))
            if reports[-1].remark:
                say(f"isrrescnet: {reports[-1].remark}", sys.stderr)
            name_overlooked(reports[-1].overlooked)
        for report in reports:
            print("\n" + tables.text(report, label, self.times), file=messages)
        if self.json:
            write_report(self.json, tables.as_json(reports, label, self.times))
        if self.csv:
            write_report(self.csv, tables.as_csv(reports, self.times))
        if self.markdown:
            write_report(self.markdown, tables.markdown(reports, label, self.times))
        return 2 if any(report.problems for report in reports) else 0

    def _check_figures(
        self, benchmarks: "Sequence[isrrescnet_jax.evaluation.evaluate.Benchmark]"
    ) -> None:
        """Raise ValueError if --trace would write over a file, or twice over one."""
        if self.trace is None:
            return
        plan = [
            (path, self.trace / _figure(benchmark, path.stem))
            for benchmark in benchmarks
            for path in images.find([benchmark.hr])
        ]
        inputs = images.find([b.lr for b in benchmarks if b.lr])
        images.checked_plan(plan, "overwrite", inputs)
        for _, figure in plan:
            check_out(figure, self.overwrite)


def _figure(benchmark: "isrrescnet_jax.evaluation.evaluate.Benchmark", image: str) -> str:
    return f"{benchmark.name}_x{benchmark.scale}_{image}_iterates.png"
