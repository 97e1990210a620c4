"""Near copies across sources: at a shift of keyframes, and each the other's nearest."""

import numpy as np
import pytest

from curation.select.dedup import Dedup, distances, mirrored
from curation.select.second_look import SecondLook, shifted_distances


def random_hashes(seed, count, length=8):
    rng = np.random.default_rng(seed)
    bits = np.argsort(rng.random((count, length, 64)), axis=-1) < 32  # as a median sets them
    return np.packbits(bits, axis=-1, bitorder="little").view("<u8")[..., 0]


def flipped(hashes, num_bits, seed):
    """The hashes with so many bits of each changed."""
    rng = np.random.default_rng(seed)
    which = np.argsort(rng.random((*hashes.shape, 64)), axis=-1)[..., :num_bits]
    return hashes ^ (np.uint64(1) << which.astype(np.uint64)).sum(axis=-1).astype(np.uint64)


@pytest.mark.parametrize("lag", [-4, -1, 0, 2, 4])
def test_the_distance_is_that_of_the_best_shift(lag):
    long = random_hashes(0, 20, length=16)
    a, b = long[:, 4:12], long[:, 4 + lag : 12 + lag]
    assert shifted_distances(a, flipped(b, 5, seed=1)).tolist() == [5.0] * 20
    assert (shifted_distances(a, random_hashes(2, 20)) > 20).all()


def test_without_a_shift_it_is_no_larger_than_the_mean_distance():
    a, b = random_hashes(3, 50), random_hashes(4, 50)
    assert (shifted_distances(a, b) <= distances(a, b)).all()


def looks(hashes, sources, lengths=None, **config):
    lengths = np.full(len(hashes), 8) if lengths is None else np.array(lengths)
    config = Dedup(second_look=True, **config)
    return SecondLook(hashes, lengths.astype(np.int64), np.array(sources), config)


def test_only_clips_of_different_sources_with_as_many_keyframes_are_copies():
    one = random_hashes(5, 1)
    hashes = np.concatenate([one, flipped(one, 12, 0), flipped(one, 12, 1), flipped(one, 20, 2)])
    pairs = np.array([(0, 1), (0, 2), (0, 3)])
    same, other, far = looks(hashes, [0, 0, 1, 1]).confirmed(pairs)
    assert np.isnan(same)
    assert other == 12
    assert np.isnan(far)
    assert np.isnan(looks(hashes, [0, 1, 2, 3], [8, 7, 8, 8]).confirmed(pairs)[0])
    few = looks(hashes, [0, 1, 2, 3], [3, 3, 3, 3])
    assert np.isnan(few.confirmed(pairs)).all()


def test_a_mirrored_copy_is_seen_where_that_is_asked_for():
    one = random_hashes(6, 1)
    hashes = np.concatenate([one, flipped(mirrored(one), 10, 0)])
    pairs = np.array([(0, 1)])
    assert np.isnan(looks(hashes, [0, 1]).confirmed(pairs)[0])
    assert looks(hashes, [0, 1], mirrored=True).confirmed(pairs)[0] == 10


def test_of_several_that_are_near_only_each_others_nearest_are_copies():
    # clips 0 and 1 are one shot of a film, 2 and 3 their copies in another film, 4 one in a third
    pairs = np.array([(0, 2), (0, 3), (1, 2), (1, 3), (0, 4)])
    bits = np.array([9, 12, 14, 11, 17], np.float32)
    found = looks(random_hashes(7, 5), [0, 0, 1, 1, 2]).near_copies(pairs, bits)
    assert sorted(found.tolist()) == [[0, 2], [0, 4], [1, 3]]
    nothing = looks(random_hashes(7, 5), [0, 0, 1, 1, 2])
    assert nothing.near_copies(np.zeros((0, 2), np.int64), np.zeros(0, np.float32)).shape == (0, 2)


def test_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match="max_second_look_bits must be within"):
        Dedup(max_second_look_bits=30)
    with pytest.raises(ValueError, match="max_second_look_distance must be over 0"):
        Dedup(max_second_look_distance=0)
