import collections

from training_images import blocks, labelled

from isrrescnet_jax.data import Pairs


def test_decoded_images_are_kept_within_the_memory_allowed():
    loads = collections.Counter()

    def load(index):
        loads[index] += 1
        lr = labelled(index, 8, 8)
        return {"lr": lr, "hr": blocks(lr, 2)}

    one = 8 * 8 * 3 * 5
    pairs = Pairs([str(i) for i in range(6)], load, room=2.5 * one)
    pairs.leave_out_bad()
    for _ in range(3):
        for i in range(6):
            assert (pairs[i]["lr"][..., 0] == i).all()
    assert sorted(loads.values()) == [1, 1, 4, 4, 4, 4]
