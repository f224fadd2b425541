"""A parent that says how its child ended; in processes of its own, without JAX."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

from isrrescnet_jax.supervision import explain

START = """
import os, signal, sys, time
from isrrescnet_jax.supervision import supervised, tell

def work():
    {work}
    return 0

sys.exit(supervised(work, retries={retries}))
"""

# What jaxlib 0.10 writes, shortened.
SILENT = """\
E1128 02:09:51.1 20480 coordination_service.cc:1549] [11] Use error polling to propagate:
F1128 02:09:51.2 20491 client.h:80] Terminating process because the JAX distributed service \
detected fatal errors. absl::Status: UNAVAILABLE: The following tasks are unhealthy \
(stopped sending heartbeats):
1
The tasks have crashed. Check the task logs for an earlier error
"""
LEADER = """\
F1128 02:09:54.7 20557 client.h:80] Terminating process because the JAX distributed service \
detected fatal errors. absl::Status: UNAVAILABLE: Failed to send RPC to coordination service.
"""
LATE = """\
F1128 02:09:20.6 20403 client.h:80] Terminating process because the JAX distributed service \
detected fatal errors. absl::Status: DEADLINE_EXCEEDED: Deadline Exceeded
"""
TWICE = "E1128 02:10:46.4 1 coordination_service.cc:518] [1] 1 unexpectedly tried to connect with\n"


def start(work, retries=0):
    program = START.format(work=work.strip().replace("\n", "\n    "), retries=retries)
    return subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def run(work, retries=0):
    process = start(work, retries)
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


@pytest.mark.parametrize("code", [0, 1, 2, 3])
def test_the_exit_code_and_what_is_written_are_those_of_the_child(code):
    work = (
        f"print('out'); print('err', file=sys.stderr); os.write(2, b'W native\\n'); return {code}"
    )
    found, out, err = run(work)
    assert (found, out, sorted(err.splitlines())) == (code, "out\n", ["W native", "err"])


@pytest.mark.parametrize(
    ("noise", "line"),
    [
        (SILENT, "process 1 on b is lost"),
        (SILENT.replace("\n1\n", "\n/job:jax_worker/replica:0/task:1\n"), "process 1 on b is lost"),
        (LEADER, "process 0 on a is lost"),
        (TWICE, "process 1 on b was started again while the others still ran"),
    ],
)
def test_pages_of_jax_are_one_line(tmp_path, noise, line):
    (tmp_path / "checkpoints" / "5").mkdir(parents=True)
    facts = f"tell(hosts=['a', 'b'], workdir={str(tmp_path)!r}, process=0); tell(step=7)"
    code, _, err = run(f"{facts}\nos.write(2, {noise!r}.encode())\nos.abort()")
    saved = f"{tmp_path}/checkpoints/5"
    expected = (
        f"{line}, at step 7 (last checkpoint: {saved}): start all again with the same command"
    )
    assert (code, err) == (3, f"isrrescnet: {expected}\n")


def test_a_death_of_its_own_is_told_with_all_that_was_written():
    code, _, err = run(
        "tell(process=2)\nos.write(2, b'E1128 02:1 distributed: odd\\n')\nos.abort()"
    )
    assert code == 3 and err.startswith("E1128 02:1 distributed: odd\n")
    assert "isrrescnet: process 2 died of SIGABRT, before the first step: start all again" in err


def test_who_did_not_come():
    facts = {"joining": "not all came"}
    assert explain(LATE, facts) == (2, "not all came")
    assert explain(LATE, facts | {"hosts": ["a", "b"]})[0] == 3
    assert explain("Segmentation fault", facts) is None


def test_a_lost_run_is_tried_again(tmp_path):
    work = f"open({str(tmp_path / 'tries')!r}, 'a').write('x')\nreturn {{}}"
    assert run(work.format(3), retries=2)[0] == 3
    assert (tmp_path / "tries").read_text() == "xxx"
    assert run(work.format(2), retries=2)[0] == 2
    assert (tmp_path / "tries").read_text() == "xxxx"


def gone(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return False
    return True


ENDLESS = """
{first}
print(os.getpid(), flush=True)
while True:
    time.sleep(0.05)
"""


@pytest.mark.parametrize("hangs", [False, True])
def test_sigterm_ends_one_that_waits_for_others(hangs):
    # JAX has taken the signal by then, and heeds it after a step alone.
    deaf = "signal.signal(signal.SIGTERM, lambda *_: None)"
    deaf += "; signal.signal(signal.SIGINT, signal.SIG_IGN)" if hangs else ""
    process = start(ENDLESS.format(first=deaf))
    child = int(process.stdout.readline())
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (143, "isrrescnet: stopped before the first step\n")
    assert gone(child)


def test_sigterm_goes_to_the_child_once_it_trains_and_a_second_one_ends_it():
    saved = "signal.signal(signal.SIGTERM, lambda *_: print('saving', flush=True)); tell(step=1)"
    process = start(ENDLESS.format(first=saved))
    child = int(process.stdout.readline())
    time.sleep(0.3)  # the parent has read the step
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "saving\n"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)
    assert process.returncode == 143 and gone(child)


def test_a_child_does_not_outlive_its_parent():
    process = start(ENDLESS.format(first=""))
    child = int(process.stdout.readline())
    process.kill()
    process.communicate(timeout=10)  # the child has the other ends of these pipes
    until = time.monotonic() + 5
    while not gone(child) and time.monotonic() < until:
        time.sleep(0.05)
    assert gone(child)
