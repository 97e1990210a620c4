from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from training.data.order import Cycle, Permutation, ShardOrder, largest_remainder


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5000), st.integers(0, 2**64 - 1))
def test_a_permutation_has_every_item_once(size, key):
    assert np.array_equal(np.sort(Permutation(size, key)(np.arange(size))), np.arange(size))


@pytest.mark.parametrize("size", [2**40, 2**40 + 1, 25_000_000])
def test_a_huge_permutation_stays_in_its_range_without_repeats(size):
    items = Permutation(size, 3)(np.arange(4096))
    assert len(set(items.tolist())) == 4096
    assert 0 <= items.min() <= items.max() < size
    assert stats.kstest(items / size, "uniform").pvalue > 0.001


def test_all_orders_of_a_few_items_are_about_equally_likely():
    seen = Counter(tuple(Permutation(4, key)(np.arange(4)).tolist()) for key in range(4800))
    assert len(seen) == 24
    assert stats.chisquare(list(seen.values())).pvalue > 1e-3


def test_sizes_and_keys_may_differ_from_place_to_place():
    sizes, keys = np.array([5, 100, 1, 7]), np.array([1, 2, 3, 1], np.uint64)
    together = Permutation(sizes, keys)([2, 50, 0, 2])
    apart = [Permutation(n, k)([p])[0] for n, k, p in zip(sizes, keys, [2, 50, 0, 2], strict=True)]
    assert together.tolist() == apart


@pytest.mark.parametrize("places", [[-1], [10]])
def test_a_place_outside_is_refused(places):
    with pytest.raises(ValueError, match="places must be 0 to size - 1"):
        Permutation(10, 0)(places)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=40), st.integers(1, 12))
def test_an_epoch_has_every_row_once_whatever_the_shards(sizes, window):
    order = ShardOrder(sizes, seed=1, window_shards=window)
    for epoch in (0, 5):
        rows = order.rows(epoch, np.arange(order.num_rows))
        assert np.array_equal(np.sort(rows), np.arange(order.num_rows))


def test_a_window_reads_its_own_shards_only():
    order = ShardOrder([50] * 40, seed=2, window_shards=4)
    shards = order.rows(0, np.arange(2000)) // 50
    windows = [set(part.tolist()) for part in shards.reshape(10, 200)]
    assert all(len(window) == 4 for window in windows)
    assert set.union(*windows) == set(range(40))


def test_places_can_be_asked_for_in_any_order_and_epochs_differ():
    order = ShardOrder([7, 3, 11], seed=4, window_shards=2)
    whole = order.rows(0, np.arange(21))
    assert [int(order.rows(0, [place])[0]) for place in (20, 3, 9)] == whole[[20, 3, 9]].tolist()
    assert not np.array_equal(whole, order.rows(1, np.arange(21)))


def test_a_row_comes_up_anywhere_in_the_epoch():
    order = ShardOrder([10] * 10, seed=5, window_shards=3)
    place = [
        int(np.flatnonzero(order.rows(epoch, np.arange(100)) == 42)[0]) for epoch in range(400)
    ]
    assert stats.kstest(np.array(place) / 100, "uniform").pvalue > 1e-3


def test_a_cycle_gives_each_pool_its_share_exactly_and_one_step_at_least():
    cycle = Cycle([0.6, 0.3995, 0.0005, 0.0], seed=1)
    for begin in (0, 1000, 7000):
        pools = Counter(cycle.at(step)[0] for step in range(begin, begin + 1000))
        assert pools == {0: 600, 1: 399, 2: 1}


def test_the_count_of_a_pools_earlier_steps_is_what_counting_gives():
    cycle, seen = Cycle([3, 2, 1], seed=9), Counter()
    for step in range(2500):
        pool, before = cycle.at(step)
        assert before == seen[pool]
        seen[pool] += 1


def test_pools_are_mixed_within_a_cycle_and_otherwise_in_the_next():
    cycle = Cycle([1, 1], seed=3)
    first = [cycle.at(step)[0] for step in range(1000)]
    assert 400 < sum(a != b for a, b in pairwise(first)) < 600
    assert first != [cycle.at(step)[0] for step in range(1000, 2000)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 100), min_size=1, max_size=30).filter(lambda w: sum(w) > 1e-3))
def test_largest_remainder_sums_up_and_is_never_off_by_more_than_the_raised_ones(weights):
    counts = largest_remainder(weights, 1000)
    assert counts.sum() == 1000
    assert all((count > 0) == (weight > 0) for count, weight in zip(counts, weights, strict=True))
    exact = np.array(weights) / sum(weights) * 1000
    assert np.all(np.abs(counts - exact) <= 1 + np.sum((np.array(weights) > 0) & (exact < 1)))
