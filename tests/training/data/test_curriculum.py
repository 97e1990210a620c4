import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from training.data.catalog import ROWS_PER_BATCH, Pool, _PoolWriter
from training.data.curriculum import ImageDraw, PoolOrder


@pytest.fixture
def make_pool(tmp_path):
    """``make_pool(weights)``: a pool of 320x512 clips in shards of ten, real files."""

    def make(weights, name="pool", size_px=(320, 512), height=720):
        folder = tmp_path / name
        writer = _PoolWriter(folder)
        number = len(weights)
        table = pa.table(
            {
                "clip_id": [f"{name}-{row}" for row in range(number)],
                "shard": [f"{row // 10}.tar" for row in range(number)],
                "height": np.full(number, height),
                "width": np.full(number, 2 * height),
                "sampling_weight": np.asarray(weights, np.float32),
            }
        )
        for begin in range(0, number, 1005):  # pieces that end inside a shard
            writer.add(table.slice(begin, 1005))
        writer.close()
        return Pool(folder, source=0, kind="video", size_px=size_px)

    return make


def test_a_pool_gives_its_rows_back_from_any_of_its_batches(make_pool):
    number = ROWS_PER_BATCH + 1234
    pool = make_pool(np.ones(number))
    assert pool.num_rows == number
    assert pool.shard_sizes.tolist() == [10] * (number // 10) + (
        [number % 10] if number % 10 else []
    )
    for row in (0, 9, 10, ROWS_PER_BATCH - 1, ROWS_PER_BATCH, number - 1):
        assert pool.row(row)["clip_id"] == f"pool-{row}"
        assert pool.row(row)["shard"] == f"{row // 10}.tar"


def test_rows_come_up_in_proportion_to_their_weights(make_pool):
    weights = np.array([0.25, 0.5, 1.0, 2.0, 4.0] * 20)
    order = PoolOrder(make_pool(weights), seed=1, window_shards=3)
    counts = np.zeros(100)
    for epoch in range(120):
        counts += np.bincount(order.planned(epoch, np.arange(100)), minlength=100)
    expected = weights / weights.sum() * counts.sum()
    assert counts.sum() == 12_000
    # rejection within an epoch spreads rows more evenly than chance: chi-square is an upper bound
    assert stats.chisquare(counts, expected).pvalue > 1e-3


def test_equal_weights_give_every_row_once_an_epoch(make_pool):
    order = PoolOrder(make_pool(np.full(57, 3.0)), seed=1, window_shards=3)
    assert sorted(order.planned(0, np.arange(57))) == list(range(57))


def test_a_row_of_weight_zero_never_comes_up(make_pool):
    weights = np.ones(40)
    weights[7] = 0
    order = PoolOrder(make_pool(weights), seed=2, window_shards=2)
    rows = np.concatenate([order.planned(epoch, np.arange(40)) for epoch in range(30)])
    assert 7 not in rows
    assert set(rows.tolist()) == set(range(40)) - {7}


def test_the_planned_row_is_the_first_candidate_and_substitutes_differ(make_pool):
    order = PoolOrder(make_pool(np.linspace(0.1, 1, 50)), seed=3, window_shards=2)
    planned = order.planned(4, np.arange(50))
    for place in range(50):
        candidates = order.candidates(4, place)
        first = [next(candidates) for _ in range(5)]
        assert first[0] == planned[place]
        assert len(set(first)) > 1


def test_images_come_from_all_pools_by_weight_and_large_enough(make_pool):
    pools = [
        make_pool(np.ones(30), "a"),
        make_pool(np.ones(30), "b"),
        make_pool([1], "c", height=100),
    ]
    draw = ImageDraw(pools, [1, 2, 5], seed=4, encoded=False)
    drawn = [
        next(draw.candidates(step, 0, 1, size_px=(320, 512), fit="cover")) for step in range(600)
    ]
    share = sum(pool is pools[1] for pool, _ in drawn) / len(drawn)
    assert abs(share - 2 / 3) < 0.06
    assert not any(pool is pools[2] for pool, _ in drawn)  # 100 px high: too small for 320
    assert {row for pool, row in drawn if pool is pools[0]} == set(range(30))


def test_latents_are_joined_with_images_of_their_own_size_only(make_pool):
    pools = [make_pool(np.ones(9), "a"), make_pool(np.ones(9), "b", size_px=(512, 320))]
    draw = ImageDraw(pools, [1, 1], seed=4, encoded=True)
    for step in range(50):
        assert next(draw.candidates(step, 0, 1, size_px=(512, 320), fit="cover"))[0] is pools[1]
