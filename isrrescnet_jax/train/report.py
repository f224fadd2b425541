"""What one sees of a run: progress bar, JSON lines, TensorBoard. Only process 0 shows anything."""

import contextlib
import importlib
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any, SupportsFloat

import jax
import numpy as np
from etils import epath
from jaxtyping import UInt8
from tqdm import tqdm


@contextlib.contextmanager
def explained(workdir: epath.Path) -> Iterator[None]:
    """Failures to write, with the name of the folder."""
    try:
        yield
    except OSError as error:
        raise OSError(f"cannot write to {workdir}: {error.strerror or error}") from error


class _Bar(tqdm):
    """By a clock that nobody sets; tqdm's own stands still for a day that is gone back."""

    def __init__(self, **options: Any):
        super().__init__(**options)
        if not self.disable:
            self._time = time.monotonic
            self.start_t = self.last_print_t = self._time()


class _Board:
    """A TensorBoard event file, written at once.

    tensorboardX's own `SummaryWriter` writes in a thread, and waits for ever if that meets a full
    disk; this uses the layer below it.
    """

    def __init__(self, folder: epath.Path, first: int):
        from tensorboardX.event_file_writer import EventsWriter

        # Not a plain import, for type checkers: its classes are made when it is imported.
        event_pb2 = importlib.import_module("tensorboardX.proto.event_pb2")
        folder.mkdir(parents=True, exist_ok=True)
        self._event = event_pb2.Event
        self._writer = EventsWriter(str(folder / "events"))
        # TensorBoard drops what an earlier process wrote from this step on.
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(step=first + 1, session_log=start)

    def _write(self, **fields) -> None:
        self._writer.write_event(self._event(wall_time=time.time(), **fields))
        self._writer.flush()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        from tensorboardX.summary import scalar

        for name, value in values.items():
            self._write(step=step, summary=scalar(name, value))

    def image(self, step: int, name: str, image: UInt8[np.ndarray, "h w 3"]) -> None:
        from tensorboardX.summary import image as summary

        self._write(step=step, summary=summary(name, image, dataformats="HWC"))


def _read(path: epath.Path) -> list[dict[str, Any]]:
    """The lines of an earlier run.

    Raises:
        ValueError: they are something else.
    """
    try:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        if all(isinstance(line["step"], int) for line in lines):
            return lines
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        pass
    raise ValueError(f"{path} is damaged: move it away to go on without the figures so far")


class Report:
    """The metrics of a run, from the step at which it is resumed. Use it in a `with` block.

    WORKDIR/metrics.jsonl has one JSON object per line; what an interrupted run wrote after the
    checkpoint from which it resumes is taken out, so that every step appears once.

    Attributes:
        history: the lines, as dictionaries.
    """

    def __init__(
        self,
        workdir: epath.Path,
        first: int,
        steps: int,
        batch: int,
        peak: float | None = None,
        counts: Mapping[str, int] | None = None,
    ):
        """What is reported of.

        Args:
            first: steps made already.
            steps: of the whole run.
            batch: images in each.
            peak: FLOP per second of all devices, if they are known.
            counts: of the training images, used, left out and odd, for every line.
        """
        self._workdir, self._lines = workdir, workdir / "metrics.jsonl"
        self._steps, self._batch, self._peak = steps, batch, peak
        self._counts = dict(counts or {})
        self._pixels = self._flops = self._waited = 0.0
        self._chief = jax.process_index() == 0
        self._window: list[dict[str, float]] = []
        self._since = time.perf_counter()
        self.history: list[dict[str, Any]] = []
        if not self._chief:
            return
        if self._lines.exists():
            self.history = [line for line in _read(self._lines) if line["step"] <= first]
        with explained(workdir):
            self._board = _Board(workdir / "tensorboard", first)
        self._bar = _Bar(total=steps, initial=first, unit="step", disable=None, smoothing=0.05)

    def __enter__(self) -> "Report":
        return self

    def __exit__(self, *error) -> None:
        if self._chief:
            self._bar.close()

    def waited(self, seconds: float) -> None:
        """Take note of time in which there was no data."""
        self._waited += seconds

    def step(
        self, metrics: Mapping[str, SupportsFloat], pixels: int = 0, flops: float = 0.0
    ) -> None:
        """Take note of one step, and of its high-resolution pixels and FLOP, forward and back."""
        if not self._chief:
            return
        self._pixels += pixels
        self._flops += flops
        self._window.append({name: float(value) for name, value in metrics.items()})
        last = self._window[-1]
        shown = {name: f"{last[name]:.4g}" for name in ("loss", "psnr") if name in last}
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update()

    def log(self, step: int) -> None:
        """Write the mean of every metric since the last time, and how fast it went."""
        if not self._window:
            return
        seconds = time.perf_counter() - self._since
        means = {
            name: float(np.mean([metrics[name] for metrics in self._window]))
            for name in self._window[0]
        }
        means["images_per_second"] = self._batch * len(self._window) / seconds
        means["megapixels_per_second"] = self._pixels / seconds / 1e6
        means["share_waiting_for_data"] = self._waited / seconds
        if self._peak is not None:
            means["model_flop_utilisation"] = self._flops / seconds / self._peak
        self._window = []
        self.restart_clock()
        self.scalars(step, means | self._counts)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write these numbers."""
        if not self._chief:
            return
        self.history.append({"step": step, **values})
        if self._bar.disable:  # no terminal: lines for the log file of the job
            text = "  ".join(f"{name} {value:.5g}" for name, value in values.items())
            print(f"step {step}/{self._steps}  {text}", flush=True)
        with explained(self._workdir):
            self._board.scalars(step, values)
            temporary = self._lines.with_name(".metrics.jsonl")
            temporary.write_text("".join(f"{json.dumps(line)}\n" for line in self.history))
            temporary.replace(self._lines)

    def image(self, step: int, name: str, image: UInt8[np.ndarray, "h w 3"]) -> None:
        """Show an image in TensorBoard."""
        if self._chief:
            with explained(self._workdir):
                self._board.image(step, name, image)

    def restart_clock(self) -> None:
        """Leave what was done since the last `log` out of what goes by the second."""
        self._since = time.perf_counter()
        self._pixels = self._flops = self._waited = 0.0


class Profile:
    """A trace of a few steps of this process; use it in a `with` block.

    Args:
        folder: for the trace, local.
        first: the first step that is traced.
        count: how many; 0 for none.
    """

    def __init__(self, folder: epath.Path, first: int, count: int):
        self._folder, self._first, self._last = folder, first, first + count
        self._on = False

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, *error) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._on:
            self._on = False
            jax.profiler.stop_trace()

    def before(self, step: int) -> None:
        """Begin or end, if it is time."""
        if self._first <= step < self._last and not self._on:
            self._on = True
            jax.profiler.start_trace(self._folder, create_perfetto_trace=True)
        elif step >= self._last:
            self._stop()
