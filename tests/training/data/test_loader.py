import pickle
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from curation.corpus.store import Store
from curation.errors import CorpusError, TrainingDataError
from training.data.loader import FailureWatch, TrainingData
from training.run_config import Phase, Source

SIZES = ((32, 48), (48, 32))


def global_batches(data, draw, *, world_size=1, start_step=0):
    """Step -> everything of its global batch, laid together from all ranks' micro-batches."""
    found = {}
    for rank in range(world_size):
        ranks = data.batches(start_step=start_step, rank=rank, world_size=world_size, draw=draw)
        for batch in ranks:
            found.setdefault(batch.step, []).append(batch)
    return {step: flat(batches) for step, batches in found.items()}


def flat(batches):
    tensors = {"frames": torch.cat([batch.frames_BFCHW for batch in batches])}
    for name in batches[0].draws:
        tensors[name] = torch.cat([batch.draws[name] for batch in batches])
    first = batches[0]
    return {
        "positions": [place for batch in batches for place in batch.positions],
        "clips": [clip for batch in batches for clip in batch.clip_ids],
        "images": [images for batch in batches for images in batch.image_ids],
        "captions": [captions for batch in batches for captions in batch.captions],
        "replaced": sorted(clip for batch in batches for clip in batch.replaced),
        "made of": (first.pool, first.kind, first.size_px),
        "bytes": {name: value.numpy().tobytes() for name, value in tensors.items()},
        "shapes": {name: tuple(value.shape) for name, value in tensors.items()},
    }


@pytest.fixture(scope="module")
def draw(run_of, draw_of, small_corpus):
    return draw_of(run_of(small_corpus))


@pytest.fixture(scope="module")
def reference(opened, draw):
    return global_batches(opened(), draw)


def test_a_batch_holds_what_the_configuration_says(reference):
    assert list(reference) == list(range(12))
    for batch in reference.values():
        assert batch["positions"] == [0, 1, 2, 3]
        assert batch["shapes"]["frames"] == (4, 8 + 2, 3, *batch["made of"][2])
        assert all(len(captions) == 3 for captions in batch["captions"])
        for clip, images in zip(batch["clips"], batch["images"], strict=True):
            assert len({clip, *images}) == 3
    assert {batch["made of"][2] for batch in reference.values()} == set(SIZES)


@pytest.mark.parametrize(("world_size", "micro"), [(2, 1), (4, 1), (1, 4), (2, 2)])
def test_ranks_and_micro_batches_do_not_change_one_byte(world_size, micro, reference, opened, draw):
    data = opened(micro_batch_size=micro)
    assert global_batches(data, draw, world_size=world_size) == reference


def test_a_run_that_goes_on_in_the_middle_sees_the_rest_of_it(reference, opened, draw):
    rest = global_batches(opened(), draw, start_step=7)
    assert rest == {step: batch for step, batch in reference.items() if step >= 7}


def test_worker_processes_do_not_change_one_byte(reference, opened, draw):
    data = opened(num_workers=2, micro_batch_size=2)
    rest = global_batches(data, draw, start_step=8)
    assert rest == {step: batch for step, batch in reference.items() if step >= 8}


def test_any_position_of_any_step_can_be_made_alone(reference, opened, draw):
    again = pickle.loads(pickle.dumps(opened()))
    batch = again.batch(9, [2], draw=draw)
    expected = reference[9]
    assert batch.captions[0] == expected["captions"][2]
    one = len(expected["bytes"]["frames"]) // 4
    assert batch.frames_BFCHW.numpy().tobytes() == expected["bytes"]["frames"][2 * one : 3 * one]


def test_planned_clips_are_those_that_come(reference, opened):
    data = opened()
    assert {step: data.clip_ids(step) for step in range(12)} == {
        step: batch["clips"] for step, batch in reference.items()
    }


def test_another_seed_is_another_order_with_other_crops(opened):
    ids = [opened(seed=seed).clip_ids(0) for seed in (0, 1)]
    assert ids[0] != ids[1]


def test_an_epoch_has_no_clip_twice_and_leaves_others_out_than_the_next(opened):
    data = opened(phases=(Phase(steps=60, sizes_px=((32, 48),)),), images_per_video=0)
    (pool,) = data.summary()
    epochs = [
        [clip for step in range(first, first + pool.batches) for clip in data.clip_ids(step)]
        for first in (0, pool.batches)
    ]
    for epoch in epochs:
        assert len(epoch) == len(set(epoch)) == pool.batches * 4
    assert set(epochs[0]) != set(epochs[1])
    seen = Counter(clip for step in range(60) for clip in data.clip_ids(step))
    assert len(seen) == pool.clips


def test_held_out_clips_are_never_trained_on_and_always_the_same(opened):
    data = opened(phases=(Phase(steps=200, sizes_px=SIZES),))
    held = [list(data.held_out(num_samples=100, draw=lambda *_: {})) for _ in range(2)]
    trained = {clip for step in range(200) for clip in data.clip_ids(step)}
    clips = {clip for batch in held[0] for clip in batch.clip_ids if clip}
    images = {clip for batch in held[0] for ids in batch.image_ids for clip in ids}
    assert clips
    assert not (clips | images) & trained
    assert len(clips) == sum(pool.held_out for pool in data.summary())
    assert len(clips) + len(trained) == 38
    for first, second in zip(*held, strict=True):
        assert torch.equal(first.frames_BFCHW, second.frames_BFCHW)
        assert first.captions == second.captions
    assert all("" not in captions for batch in held[0] for captions in batch.captions)
    assert [batch.positions[0] for batch in held[0]] == list(range(len(held[0])))
    assert {(batch.kind, batch.step) for batch in held[0]} == {("video", -1), ("images", -1)}


def test_whole_films_are_held_out_by_default(opened, small_corpus):
    from curation.corpus.shards import read_index

    rows = read_index(Store(str(small_corpus)), "default").to_pylist()
    film_of = {row["clip_id"]: row["source_sha256"] for row in rows}
    data = opened(holdout_by="source", phases=(Phase(steps=100, sizes_px=((32, 48),)),))
    held = {clip for b in data.held_out(num_samples=50, draw=lambda *_: {}) for clip in b.clip_ids}
    trained = {clip for step in range(100) for clip in data.clip_ids(step)}
    films = {film_of[clip] for clip in held if clip}
    assert films
    assert not films & {film_of[clip] for clip in trained}


def test_sources_and_pools_come_up_by_their_weights(run_of, small_corpus, cache):
    sources = (Source(corpus=str(small_corpus)), Source(corpus=str(small_corpus)))
    phases = (Phase(steps=1000, sizes_px=SIZES, source_weights=(0.7, 0.3)),)
    data = TrainingData(run_of(small_corpus, sources=sources, phases=phases), cache=cache)
    plan, _ = data._plan()
    pools = Counter(plan.at(step).order.pool.name for step in range(1000))
    batches = {pool.pool: pool.batches for pool in data.summary()}
    by_source = Counter({"0": 0, "1": 0})
    for name, number in pools.items():
        by_source[name[0]] += number
        of_source = sum(n for pool, n in batches.items() if pool[0] == name[0])
        expected = 1000 * (0.7 if name[0] == "0" else 0.3) * batches[name] / of_source
        assert abs(number - expected) < 1
    assert by_source == {"0": 700, "1": 300}


def test_phases_have_orders_of_their_own(opened):
    phases = (Phase(name="a", steps=3, sizes_px=SIZES), Phase(name="b", steps=3, sizes_px=SIZES))
    data = opened(phases=phases)
    first, second = ([data.clip_ids(step) for step in steps] for steps in ((0, 1, 2), (3, 4, 5)))
    assert first != second
    assert {pool.phase for pool in data.summary()} == {"a", "b"}


def test_separate_batches_hold_clips_or_images_in_the_share_asked_for(opened):
    data = opened(
        joint="separate", image_batch_share=0.3, phases=(Phase(steps=1000, sizes_px=SIZES),)
    )
    plan, _ = data._plan()
    kinds = Counter(plan.at(step).kind for step in range(1000))
    assert kinds == {"video": 700, "images": 300}
    step = next(step for step in range(1000) if plan.at(step).kind == "images")
    batch = data.batch(step, range(4), draw=lambda *_: {})
    assert batch.frames_BFCHW.shape[:2] == (4, 2)
    assert (batch.num_video_frames, batch.num_images, batch.clip_ids) == (0, 2, ("",) * 4)
    assert [clip for ids in batch.image_ids for clip in ids] == data.clip_ids(step)
    assert all(len(captions) == 2 for captions in batch.captions)


def test_images_of_shards_are_their_pictures_with_their_captions(opened):
    data = opened(images_from="shards", caption_dropout=0.0)
    for step in range(3):
        batch = data.batch(step, range(4), draw=lambda *_: {})
        for captions in batch.captions:
            assert "picture" not in captions[0]
            assert all("picture" in caption for caption in captions[1:])


def test_images_stand_for_clips_as_crops_that_move(opened):
    data = opened(
        stage="super_resolution",
        image_clips=True,
        fit="patch",
        images_per_video=0,
        holdout_share=0.0,
        phases=(Phase(steps=20, sizes_px=((64, 64),)),),
    )
    batches = [data.batch(step, range(4), draw=lambda *_: {}) for step in range(20)]
    (moving, *_) = [batch for batch in batches if batch.image_as_clip]
    assert moving.pool == "0-image-64x64"
    assert all("picture" in caption or not caption for (caption,) in moving.captions)
    frames = moving.frames_BFCHW[0].numpy()
    # The crop of one frame lies a few pixels on in the last: search the shift that matches.
    first, last = frames[0].astype(int), frames[-1].astype(int)
    errors = {
        (dy, dx): np.abs(
            first[:, 16 + dy : 48 + dy, 16 + dx : 48 + dx] - last[:, 16:48, 16:48]
        ).mean()
        for dy in range(-16, 17)
        for dx in range(-16, 17)
    }
    assert min(errors.values()) == 0
    assert not any(batch.image_as_clip for batch in batches if "video" in batch.pool)


def test_captions_are_dropped_as_often_as_asked_each_on_its_own(opened):
    data = opened(caption_dropout=0.3, dropped_caption="None")
    batches = [data.batch(step % 12, range(4), draw=lambda *_: {}) for step in range(12)]
    dropped = np.array(
        [[c == "None" for c in captions] for b in batches for captions in b.captions]
    )
    assert dropped.shape == (48, 3)
    assert 0.15 < dropped.mean() < 0.45
    assert len({tuple(row) for row in dropped.tolist()}) > 3


def test_an_unreadable_clip_is_replaced_the_same_way_everywhere(
    broken_corpus, run_of, cache, draw_of
):
    corpus, broken = broken_corpus(3)
    config = run_of(corpus, max_failed_share=0.5)
    data, draw = TrainingData(config, cache=cache), draw_of(config)
    whole = global_batches(data, draw)
    replaced = {clip for batch in whole.values() for clip in batch["replaced"]}
    assert replaced
    assert replaced <= set(broken)
    for step, batch in whole.items():
        assert not set(batch["clips"]) & set(broken)
        planned = data.clip_ids(step)
        kept = [a == b for a, b in zip(planned, batch["clips"], strict=True)]
        assert kept == [clip not in broken for clip in planned]
    assert global_batches(data, draw, world_size=4) == whole


def test_a_run_stops_when_too_many_clips_are_unreadable(broken_corpus, run_of, cache):
    corpus, _ = broken_corpus(20)
    data = TrainingData(run_of(corpus, max_failed_share=0.01), cache=cache)
    with pytest.raises(TrainingDataError, match=r"max_failed_share \(0.01\)"):
        list(data.batches(start_step=0, rank=0, world_size=1, draw=lambda *_: {}))


def test_the_share_of_failures_is_taken_over_the_last_thousand_samples():
    watch = FailureWatch(0.002)
    for _ in range(5):
        watch.add(500, ("a",))
        watch.add(500, ())
    with pytest.raises(TrainingDataError, match="a, b"):
        watch.add(10, ("b", "c"))


def test_a_batch_that_cannot_be_dealt_evenly_is_refused(opened):
    with pytest.raises(ValueError, match=r"multiple of ranks x micro_batch_size, got 4 for 3 x 1"):
        opened().batches(start_step=0, rank=0, world_size=3, draw=lambda *_: {})


REFUSED = {
    "no sources": ({"sources": ()}, "the run has no data"),
    "batch": (
        {"batch_size": 64},
        r"no full batch of their size 3\d\. .* smaller batch_size than 64",
    ),
    "too few": ({"batch_size": 64, "max_dropped_share": 1.0}, "no full batch of 64 clips"),
    "too long": ({"num_frames": 40}, r"too short 38.*select clips of at least 6\.50 s"),
    "too fast": ({"fps": 40.0}, r"frame rate too far off 38.*multiple of 40, nearly"),
    "too large": ({"phases": (Phase(sizes_px=((512, 512),)),)}, "too small 38"),
    "mixed": ({"sources": (Source(corpus="a"), Source(corpus="b", encoded="c"))}, "all sources"),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=list(REFUSED))
def test_what_cannot_feed_a_run_is_refused_before_the_first_step(changes, message, opened):
    with pytest.raises(TrainingDataError, match=message):
        opened(**changes)


def test_shards_that_were_not_finished_are_refused(run_of, cache, tmp_path):
    with pytest.raises(CorpusError, match="no finished shards"):
        TrainingData(run_of(tmp_path), cache=cache)


def test_a_selection_without_captions_is_refused(reindexed, run_of, cache):
    corpus = reindexed(lambda rows: [row | {"caption": None} for row in rows])
    with pytest.raises(TrainingDataError, match=r"none of the 38 clips .* has a caption"):
        TrainingData(run_of(corpus), cache=cache)


def test_clips_that_the_selection_no_longer_keeps_are_not_trained_on(reindexed, run_of, cache):
    from curation.corpus.shards import read_index
    from curation.corpus.store import Store

    corpus = reindexed(
        lambda rows: [row | {"still_selected": number % 3 > 0} for number, row in enumerate(rows)]
    )
    data = TrainingData(run_of(corpus), cache=cache)
    rows = read_index(Store(str(corpus)), "default").to_pylist()
    videos = {row["clip_id"] for row in rows if row["media_name"].endswith("mp4")}
    assert {clip for step in range(12) for clip in data.clip_ids(step)} <= videos
    assert sum(pool.clips + pool.held_out for pool in data.summary()) == len(videos) == 25


def test_a_selection_of_images_alone_cannot_train_on_clips(reindexed, run_of, cache):
    corpus = reindexed(lambda rows: [row for row in rows if row["media_name"].endswith("jpg")])
    with pytest.raises(TrainingDataError, match="holds no video"):
        TrainingData(run_of(corpus), cache=cache)


def test_images_of_shards_that_have_none_are_refused(reindexed, run_of, cache):
    corpus = reindexed(lambda rows: [row for row in rows if row["media_name"].endswith("mp4")])
    with pytest.raises(TrainingDataError, match="images_from 'frames'"):
        TrainingData(run_of(corpus, images_from="shards"), cache=cache)


def test_one_film_cannot_be_held_out_and_trained_on(reindexed, run_of, cache):
    corpus = reindexed(
        lambda rows: [row for row in rows if row["source_sha256"] == rows[0]["source_sha256"]]
    )
    with pytest.raises(TrainingDataError, match="holdout_by 'clip'"):
        TrainingData(run_of(corpus, holdout_by="source"), cache=cache)
    data = TrainingData(run_of(corpus, holdout_by="clip", holdout_share=0.001), cache=cache)
    assert [pool.held_out for pool in data.summary()] == [1]


def test_a_corpus_in_an_object_store_is_read_the_same(
    s3_bucket, small_corpus, reference, run_of, draw_of, cache
):
    local, remote = Store(str(small_corpus)), Store(f"{s3_bucket}/corpus")
    for name in local.files("shards", recursive=True):
        remote.write(name, local.read(name))
    config = run_of(remote.root)
    batches = TrainingData(config, cache=cache).batches(
        start_step=11, rank=0, world_size=1, draw=draw_of(config)
    )
    assert flat(list(batches)) == reference[11]


def test_a_batch_can_be_moved(opened):
    batch = opened().batch(0, [0], draw=lambda *_: {"noise": torch.zeros(3)})
    moved = batch.to("meta")
    assert moved.frames_BFCHW.device.type == moved.draws["noise"].device.type == "meta"
    assert replace(moved, frames_BFCHW=None, draws={}) == replace(
        batch, frames_BFCHW=None, draws={}
    )
