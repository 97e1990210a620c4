"""Which split a source goes to, alone and in corpora that grow."""

import hashlib

import numpy as np
import pyarrow as pa
import pytest

from curation.select.splits import (
    NO_SPLIT,
    SPLITS,
    TEST,
    TRAIN,
    VAL,
    Splits,
    grouped,
    source_splits,
)


def digests(count):
    return pa.array([hashlib.sha256(str(n).encode()).hexdigest() for n in range(count)])


def divided(count, pairs=(), earlier=None, kept=None, **config):
    groups = grouped(
        np.array(pairs, np.int64).reshape(-1, 2),
        count,
        np.ones(count, np.int64) if kept is None else np.array(kept),
    )
    texts = digests(count).to_pylist()
    then = {texts[n]: split for n, split in (earlier or {}).items()}
    return source_splits(groups, digests(count), then, Splits(**config)).tolist()


def test_shares_are_those_asked_for_within_what_chance_does():
    found = np.bincount(divided(20_000, val_share=0.1, test_share=0.05), minlength=3)
    # three standard deviations of a binomial count
    for count, share in zip(found, (0.85, 0.1, 0.05), strict=True):
        assert abs(count - 20_000 * share) < 3 * np.sqrt(20_000 * share * (1 - share))


def test_a_source_goes_the_same_way_wherever_it_stands_and_another_way_under_another_seed():
    ways = divided(2000, val_share=0.3, test_share=0.3)
    texts = digests(2000)
    groups = grouped(np.zeros((0, 2), np.int64), 1000, np.ones(1000, np.int64))
    half = source_splits(groups, texts[1000:], {}, Splits(val_share=0.3, test_share=0.3))
    assert half.tolist() == ways[1000:]
    assert divided(2000, val_share=0.3, test_share=0.3, seed=1) != ways


def test_what_hangs_together_by_a_chain_is_not_divided():
    pairs = [(n, n + 2) for n in range(0, 60, 2)] + [(9, 5), (5, 7)]
    ways = divided(62, pairs, val_share=0.3, test_share=0.3)
    assert len(set(ways[0:62:2])) == 1
    assert ways[5] == ways[7] == ways[9]
    assert set(ways) == {TRAIN, VAL, TEST}


def test_an_exported_source_keeps_its_split_and_draws_new_ones_after_it():
    free = divided(50)
    earlier = {n: (TEST if free[n] == TRAIN else TRAIN) for n in range(10)}
    ways = divided(50, [(3, 40), (40, 41)], earlier=earlier)
    assert [ways[n] for n in range(10)] == [earlier[n] for n in range(10)]
    assert ways[40] == ways[41] == earlier[3]


def test_a_new_source_that_ties_two_splits_together_goes_nowhere_and_they_stay():
    ways = divided(5, [(0, 4), (1, 4)], earlier={0: TRAIN, 1: VAL, 2: TRAIN})
    assert ways[:3] == [TRAIN, VAL, TRAIN]
    assert ways[4] == NO_SPLIT


def test_val_gets_the_smallest_film_where_its_share_would_be_none():
    assert divided(3, kept=[9, 4, 7], val_share=1e-9, test_share=0) == [TRAIN, VAL, TRAIN]
    assert divided(3, kept=[9, 0, 7], val_share=1e-9, test_share=0) == [TRAIN, TRAIN, VAL]
    assert divided(1, val_share=1e-9, test_share=0) == [TRAIN]
    assert divided(3, val_share=0, test_share=0) == [TRAIN] * 3
    # what has been trained on is not held out for it
    assert divided(2, kept=[1, 5], earlier={0: TRAIN}, val_share=1e-9) == [TRAIN, VAL]


def test_shares_that_leave_nothing_are_refused():
    with pytest.raises(ValueError, match=r"val_share must be within 0\.\.1, got -0\.1"):
        Splits(val_share=-0.1)
    with pytest.raises(ValueError, match="over 1"):
        Splits(val_share=0.6, test_share=0.5)
    assert SPLITS == ("train", "val", "test")
