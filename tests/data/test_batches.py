import collections
import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from training_images import same, stream, take

from isrrescnet_jax import data
from isrrescnet_jax.data import DataConfig


def test_batches_have_the_shapes_and_types_of_the_configuration(photos):
    config = DataConfig(hr=str(photos), scale=3, patch=21, batch=5)
    for batch in stream(config, 3):
        assert batch["lr"].shape == (5, 7, 7, 3) and batch["lr"].dtype == np.uint8
        assert batch["hr"].shape == (5, 21, 21, 3) and batch["hr"].dtype == np.uint8


def test_the_seed_decides_everything(photos):
    config = DataConfig(hr=str(photos), scale=2, patch=16, batch=4, repeats=1, seed=3)
    assert same(stream(config, 6), stream(config, 6))
    other = DataConfig(hr=str(photos), scale=2, patch=16, batch=4, repeats=1, seed=4)
    assert not same(stream(config, 6), stream(other, 6))


def test_an_epoch_takes_every_image_as_often_as_told_and_drops_the_rest(labels):
    batches = stream(labels, 6)  # two epochs of 3 batches: 7 x 2 patches, of which 2 are dropped
    orders = []
    for epoch in (batches[:3], batches[3:]):
        seen = [int(label) for batch in epoch for label in batch["lr"][:, 0, 0, 0]]
        assert len(seen) == 12 and max(collections.Counter(seen).values()) <= labels.repeats
        orders.append(seen)
    assert orders[0] != orders[1]


def test_epochs_differ_in_places_and_flips_too(labels):
    patches = [p.tobytes() for batch in stream(labels, 30) for p in batch["lr"]]
    assert len(set(patches)) > 0.8 * len(patches)  # out of 8 x 3..9 x 9 per image


@pytest.mark.parametrize("count", [2, 4])
def test_processes_share_the_batches_of_one(labels, count):
    whole = stream(labels, 8)
    parts = [stream(labels, 8, process_index=i, process_count=count) for i in range(count)]
    for step, batch in enumerate(whole):
        for key in ("lr", "hr"):
            for i in range(count):
                np.testing.assert_array_equal(parts[i][step][key], batch[key][i::count])


def test_a_batch_that_processes_cannot_share_is_refused(labels):
    with pytest.raises(ValueError, match="batch of 4 cannot be shared by 3 processes"):
        data.train_batches(labels, process_index=0, process_count=3)


def test_too_few_images_for_a_batch_say_how_many_repeats_fill_one(photos):
    config = DataConfig(hr=str(photos), scale=2, patch=16, batch=16, repeats=2)
    with pytest.raises(ValueError, match="6 images x 2 repeats do not .* raise repeats to 3"):
        data.train_batches(config)


@pytest.mark.parametrize("taken", [0, 1, 5, 9])
def test_a_restored_state_continues_the_stream(labels, taken):
    first = data.train_batches(labels, process_index=1, process_count=2)
    take(first, taken)
    state = json.dumps(first.get_state())
    expected = take(first, 7)
    second = data.train_batches(labels, process_index=1, process_count=2)
    take(second, 3)  # a used iterator can be set back, too
    second.set_state(json.loads(state))
    assert same(take(second, 7), expected)
    first.close()
    second.close()


def test_a_state_serves_another_number_of_processes(labels):
    whole = stream(labels, 9)
    half = data.train_batches(labels, process_index=1, process_count=2)
    take(half, 4)
    quarter = data.train_batches(labels, process_index=3, process_count=4)
    quarter.set_state(half.get_state())
    np.testing.assert_array_equal(next(quarter)["hr"], whole[4]["hr"][3::4])
    half.close()
    quarter.close()


def test_orbax_saves_and_restores_the_iterator(labels, tmp_path):
    import grain
    import orbax.checkpoint as ocp

    batches = data.train_batches(labels)
    take(batches, 4)
    with ocp.CheckpointManager(tmp_path / "checkpoints") as manager:
        save_args = grain.checkpoint.CheckpointSave(batches)
        manager.save(4, args=ocp.args.Composite(data=save_args))
        manager.wait_until_finished()
        expected = take(batches, 4)
        fresh = data.train_batches(labels)
        restore_args = grain.checkpoint.CheckpointRestore(fresh)
        manager.restore(4, args=ocp.args.Composite(data=restore_args))
    assert same(take(fresh, 4), expected)
    batches.close()
    fresh.close()


@pytest.mark.slow
def test_worker_processes_give_the_same_stream_and_continue_it(labels):
    parallel = dataclasses.replace(labels, workers=2)
    expected = stream(labels, 9)
    batches = data.train_batches(parallel)
    assert same(take(batches, 5), expected[:5])
    state = json.loads(json.dumps(batches.get_state()))
    batches.close()
    again = data.train_batches(parallel)
    again.set_state(state)
    assert same(take(again, 4), expected[5:])
    again.close()


def test_workers_end_with_a_process_that_is_killed(labels, tmp_path):
    (tmp_path / "batches.py").write_text(
        "import multiprocessing, sys\n"
        "from isrrescnet_jax.data import DataConfig, train_batches\n"
        "if __name__ == '__main__':\n"
        f"    batches = train_batches(DataConfig(**{vars(labels) | {'workers': 1}}))\n"
        "    next(batches)\n"
        "    print(*[p.pid for p in multiprocessing.active_children()], flush=True)\n"
        "    sys.stdin.read()\n"
    )
    command = [sys.executable, tmp_path / "batches.py"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        (worker,) = map(int, process.stdout.readline().split())
        os.kill(worker, 0)
        process.kill()
    until = time.monotonic() + 10
    while alive(worker):
        assert time.monotonic() < until
        time.sleep(0.05)


def alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_memory_does_not_change_the_batches(photos):
    config = DataConfig(hr=str(photos), scale=2, patch=16, batch=4)
    without = DataConfig(hr=str(photos), scale=2, patch=16, batch=4, memory=0.0)
    assert same(stream(config, 8), stream(without, 8))
