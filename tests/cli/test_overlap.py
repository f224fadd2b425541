import threading

import pytest

from isrrescnet_jax.cli.overlap import overlapped


def test_results_in_order_and_errors_with_their_job():
    def read(job):
        if job == 2:
            raise OSError("unreadable")
        return job * 10

    def compute(value):
        if value == 40:
            raise ValueError("too large")
        return value + 1

    def write(job, result):
        if job == 6:
            raise OSError("disk full")
        return f"{job}: {result}"

    for computes in ([compute], [compute] * 3):
        got = []
        for job, future, seconds in overlapped(range(8), read, computes, write):
            got.append((job, str(future.exception() or future.result())))
            assert seconds >= 0
        expected = {2: "unreadable", 4: "too large", 6: "disk full"}
        assert got == [(j, expected.get(j, f"{j}: {j * 10 + 1}")) for j in range(8)]
    assert list(overlapped([], read, [compute], write)) == []


def test_reading_and_writing_go_on_beside_the_work():
    reading, writing = threading.Event(), threading.Event()

    def read(job):
        if job == 1:
            reading.set()
        return job

    def compute(job):
        if job == 0:
            assert reading.wait(10)  # the next is read while this one is computed
        if job == 1:
            assert writing.wait(10)  # and the last one written
        return job

    def write(job, result):
        if job == 0:
            writing.set()
        return "done"

    assert [f.result() for _, f, _ in overlapped(range(3), read, [compute], write)] == ["done"] * 3


def test_devices_take_turns_and_work_at_the_same_time():
    meet = threading.Barrier(2, timeout=10)

    def device(name):
        def compute(job):
            meet.wait()  # needs the other device at work, too
            return name

        return compute

    jobs = overlapped(range(6), lambda job: job, [device("a"), device("b")], lambda _, r: r)
    assert [future.result() for _, future, _ in jobs] == ["a", "b"] * 3


def test_an_interrupt_drops_what_has_not_begun():
    read = []

    def compute(job):
        if job == 1:
            raise KeyboardInterrupt
        return job

    with pytest.raises(KeyboardInterrupt):
        list(overlapped(range(50), lambda job: read.append(job) or job, [compute], lambda j, r: ""))
    assert len(read) < 6
