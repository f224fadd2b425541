"""`isrrescnet evaluate`."""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from tyro.conf import arg

from .batch import name_overlooked
from .model import Model
from .startup import uncollected


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
    """Write every number to this file."""
    csv: Path | None = None
    """Write a table with a line for each picture."""
    markdown: Path | None = None
    """Write a summary with the paper's numbers, and a table for each data set."""

    def run(self) -> int:
        """Measure and print; 0, or 2 if a picture could not be measured."""
        if not self.hr:
            raise ValueError("name a folder of high-resolution pictures: --hr DIR")
        with uncollected():
            from ..evaluation import evaluate, tables
            from ..upscaler import Upscaler

        label = self.weights or "shipped"
        label = Path(label).stem + ("+" if self.ensemble else "")
        reports = []
        for benchmark in evaluate.benchmarks(self.hr, self.lr, self.scale, self.border):
            print(f"{benchmark.name} x{benchmark.scale}: {benchmark.hr}", flush=True)
            upscaler = self.upscaler(benchmark.scale)

            def each(
                row: evaluate.Row,
                pictures: dict[str, np.ndarray],
                benchmark: evaluate.Benchmark = benchmark,
                upscaler: Upscaler = upscaler,
            ) -> None:
                score = row.model["paper"]
                seconds = f"  {row.seconds:.2f} s" if self.times else ""
                print(f"  {row.image}  {score.psnr:.2f} dB{seconds}", flush=True)
                if self.trace:
                    from ..evaluation.figures import trace_figure

                    name = f"{benchmark.name}_x{benchmark.scale}_{row.image}_iterates.png"
                    solution = upscaler.trace(pictures["lr"])
                    trace_figure(solution, self.trace / name, hr=pictures["hr"])

            reports.append(evaluate.evaluate(benchmark, upscaler, warm_up=self.warm_up, each=each))
            if reports[-1].remark:
                print(f"isrrescnet: {reports[-1].remark}", file=sys.stderr)
            name_overlooked(reports[-1].overlooked)
        for report in reports:
            print("\n" + tables.text(report, label, self.times))
        if self.json:
            tables.save(tables.as_json(reports, label, self.times), self.json)
        if self.csv:
            tables.save(tables.as_csv(reports, self.times), self.csv)
        if self.markdown:
            tables.save(tables.markdown(reports, label, self.times), self.markdown)
        return 2 if any(report.problems for report in reports) else 0
