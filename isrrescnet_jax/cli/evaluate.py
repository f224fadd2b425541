"""`isrrescnet evaluate`."""

import dataclasses
import functools
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from tyro.conf import arg

from .. import cluster, images, remote
from ..messages import say
from .batch import name_overlooked
from .fleet import Nodes
from .model import Model
from .reports import check_out, check_reports, write_report
from .startup import uncollected
from .streams import STANDARD

if TYPE_CHECKING:
    import isrrescnet_jax.evaluation.evaluate
    import isrrescnet_jax.upscaler


@dataclasses.dataclass(frozen=True)
class Evaluate(Nodes, Model):
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
        self.check_nodes()
        for folder in (*self.hr, *self.lr):
            if re.match(r"\w+:/", str(folder)) and not folder.exists():
                raise ValueError(f"{folder}: only folders are evaluated, not addresses")
        if self.ray is not None:
            if self.trace:
                raise ValueError("--trace is not for --ray")
            with self.connected() as ray:
                return self._said(functools.partial(self._on_ray, ray))
        return self._said(self._here)

    def _said(self, measured: Callable[[Any], Any]) -> int:
        """Measure every `Benchmark` and say what was found; 0, or 2 if anything could not be."""
        with uncollected():
            from ..evaluation import evaluate, tables

        benchmarks = evaluate.benchmarks(self.hr, self.lr, self.scale, self.border)
        check_reports(self._reports, self.overwrite)
        self._check_figures(benchmarks)
        label = self.weights or "shipped"
        label = Path(label).stem + ("+" if self.ensemble else "")
        reports = []
        for benchmark in benchmarks:
            say(f"{benchmark.name} x{benchmark.scale}: {benchmark.hr}", self._messages)
            reports.append(measured(benchmark))
            if reports[-1].remark:
                say(f"isrrescnet: {reports[-1].remark}", sys.stderr)
            name_overlooked(reports[-1].overlooked)
        for report in reports:
            print("\n" + tables.text(report, label, self.times), file=self._messages)
        if self.json:
            write_report(self.json, tables.as_json(reports, label, self.times))
        if self.csv:
            write_report(self.csv, tables.as_csv(reports, self.times))
        if self.markdown:
            write_report(self.markdown, tables.markdown(reports, label, self.times))
        return 2 if any(report.problems for report in reports) else 0

    def _here(
        self, benchmark: "isrrescnet_jax.evaluation.evaluate.Benchmark"
    ) -> "isrrescnet_jax.evaluation.evaluate.Report":
        from ..evaluation import evaluate

        upscaler = self.upscaler(benchmark.scale)

        def each(row: evaluate.Row, pictures: dict[str, np.ndarray]) -> None:
            self._say(row)
            if self.trace:
                from ..evaluation.figures import trace_figure

                solution = upscaler.trace(pictures["lr"])
                figure = self.trace / _figure(benchmark, row.image)
                trace_figure(solution, figure, hr=pictures["hr"])

        return evaluate.evaluate(benchmark, upscaler, warm_up=self.warm_up, each=each)

    def _on_ray(
        self, ray: Any, benchmark: "isrrescnet_jax.evaluation.evaluate.Benchmark"
    ) -> "isrrescnet_jax.evaluation.evaluate.Report":
        from ..evaluation import evaluate

        pairs, problems, overlooked = evaluate.pairs_of(benchmark)
        jobs = [
            cluster.Job(
                remote.absolute(hr), str(i), partner="" if lr is None else remote.absolute(lr)
            )
            for i, (hr, lr) in enumerate(pairs)
        ]
        work = Measuring(self.anywhere(), benchmark)
        found: dict[int, cluster.Record] = {}
        for records in cluster.run(ray, work, cluster.sources.pieces(jobs), None, self.workers):
            found |= {int(record.name): record for record in records}
            for record in records:
                if not record.error:
                    self._say(record.value[0])
        ordered = [found[i] for i in range(len(jobs))]
        measured = [
            (record.value[0], lr, record.value[1])
            for record, (_, lr) in zip(ordered, pairs, strict=True)
            if not record.error
        ]
        problems = problems + [record.error for record in ordered if record.error]
        return evaluate.summary(benchmark, measured, problems, overlooked)

    def _say(self, row: "isrrescnet_jax.evaluation.evaluate.Row") -> None:
        seconds = f"  {row.seconds:.2f} s" if self.times else ""
        say(f"  {row.image}  {row.model['paper'].psnr:.2f} dB{seconds}", self._messages)

    @property
    def _messages(self) -> Any:
        return sys.stderr if STANDARD in self._reports.values() else sys.stdout

    @property
    def _reports(self) -> dict[str, Path | None]:
        return {"--json": self.json, "--csv": self.csv, "--markdown": self.markdown}

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


@dataclasses.dataclass(frozen=True)
class Measuring:
    """`evaluate` for other processes (`cluster.Work`)."""

    options: Evaluate
    benchmark: "isrrescnet_jax.evaluation.evaluate.Benchmark"
    accelerated = True

    def read(self, job: cluster.Job) -> Any:
        """Its name, HR and LR pictures, and how far LR is from what `degrade` makes."""
        from ..evaluation import evaluate
        from ..evaluation.origin import difference

        lr_path = Path(job.partner) if job.partner else None
        hr, lr = evaluate.load(Path(job.source), lr_path, self.benchmark)
        apart = difference(hr, lr, self.benchmark.scale) if lr_path else None
        return Path(job.source).stem, hr, lr, apart

    def ready(self) -> "isrrescnet_jax.upscaler.Upscaler":
        """The network, on the device of this process."""
        return self.options.upscaler(self.benchmark.scale)

    def compute(
        self, ready: "isrrescnet_jax.upscaler.Upscaler", values: Sequence[Any]
    ) -> Iterator[tuple[float, Any]]:
        """The scores, and how far LR is; one by one, for the time of each is a figure, too."""
        from ..evaluation import evaluate

        scale, warm_up = self.benchmark.scale, self.options.warm_up
        for name, hr, lr, apart in values:
            row, _ = evaluate.measure(name, hr, lr, scale, ready, warm_up)
            yield row.seconds, (row, apart)

    def encode(self, job: cluster.Job, result: Any) -> tuple[None, cluster.Record]:
        """No file."""
        return None, cluster.Record(job.source, job.name, value=result)


def _figure(benchmark: "isrrescnet_jax.evaluation.evaluate.Benchmark", image: str) -> str:
    return f"{benchmark.name}_x{benchmark.scale}_{image}_iterates.png"
