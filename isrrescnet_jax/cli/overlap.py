"""One picture after the other, with reading and writing beside the work on the device."""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Job = TypeVar("Job")


def overlapped(
    jobs: Sequence[Job],
    read: Callable[[Job], Any],
    computes: Sequence[Callable[[Any], Any]],
    write: Callable[[Job, Any], Any],
) -> Iterator[tuple[Job, Future, float]]:
    """write(job, compute(read(job))) for every job.

    One thread reads ahead and one writes. With one `compute` it runs in the calling thread, which
    Ctrl-C reaches; several, one for each device, take the jobs in turns.

    Yields:
        In order: job, future of what `write` returned or of what went wrong, seconds in `compute`.
    """
    ahead = len(computes) + 1
    with contextlib.ExitStack() as stack:
        # Left in reverse order; after an exception what has not begun is dropped.
        reader, writer, *devices = (
            stack.enter_context(_dropping(ThreadPoolExecutor(1)))
            for _ in range(2 + len(computes) * (len(computes) > 1))
        )

        def timed(reading: Future, compute: Callable[[Any], Any]) -> tuple[Any, float]:
            value = reading.result()
            start = time.perf_counter()
            return compute(value), time.perf_counter() - start

        def written(job: Job, computed: Future, seconds: list[float]) -> Any:
            result, took = computed.result()
            seconds.append(took)
            return write(job, result)

        readings = deque(reader.submit(read, job) for job in jobs[:ahead])
        writings: deque[tuple[Job, Future, list[float]]] = deque()
        for i, job in enumerate(jobs):
            reading = readings.popleft()
            compute = computes[i % len(computes)]
            if devices:
                computed = devices[i % len(devices)].submit(timed, reading, compute)
            else:
                computed = Future()
                try:
                    computed.set_result(timed(reading, compute))
                except Exception as error:
                    computed.set_exception(error)
            seconds: list[float] = []
            writings.append((job, writer.submit(written, job, computed, seconds), seconds))
            if i + ahead < len(jobs):
                readings.append(reader.submit(read, jobs[i + ahead]))
            # Finished pictures wait for their file, not the other way round.
            while len(writings) > ahead or (writings and writings[0][1].done()):
                yield _settled(writings.popleft())
        while writings:
            yield _settled(writings.popleft())


def _settled(writing: tuple[Job, Future, list[float]]) -> tuple[Job, Future, float]:
    job, future, seconds = writing
    future.exception()  # waits
    return job, future, sum(seconds, 0.0)


@contextlib.contextmanager
def _dropping(pool: ThreadPoolExecutor) -> Iterator[ThreadPoolExecutor]:
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
