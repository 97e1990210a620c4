"""All frames of a selection in memory: which, and how many."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from curation.corpus.shards import read_index, read_sample
from curation.corpus.store import Store
from curation.errors import TrainingDataError
from training.data.films import FramesConfig, read_films
from training.data.picture import view
from training.data.reading import read_frames


def test_frames_of_whole_clips_are_held_out_and_no_frame_is_lost(small_corpus: Path):
    store = Store(str(small_corpus))
    config = FramesConfig(size_px=(32, 48), fps=4, holdout_share=0.2)
    films = read_films(store, config, seed=0)
    videos = [
        r for r in read_index(store, "default").to_pylist() if r["media_name"].endswith("mp4")
    ]
    each = [1 + int((row["num_frames"] - 1) / row["fps"] * 4) for row in videos]
    assert len(films.train_NCHW) + len(films.held_out_NCHW) == sum(each)
    assert films.train_NCHW.shape[1:] == (3, 32, 48)
    assert films.train_NCHW.dtype == torch.uint8

    row = min(videos, key=lambda row: row["clip_id"])
    shown = view(row["height"], row["width"], (32, 48), fit="cover", draw=None)
    frames = read_frames(read_sample(store, "default", row).media, [0.0, 0.25], shown)
    both = torch.cat([films.train_NCHW, films.held_out_NCHW])
    assert all(any(torch.equal(frame, kept) for kept in both) for frame in frames)
    shared = {f.numpy().tobytes() for f in films.train_NCHW}
    assert not shared & {f.numpy().tobytes() for f in films.held_out_NCHW}


def test_the_seed_says_which_clips_are_held_out(small_corpus: Path):
    config = FramesConfig(size_px=(32, 48), fps=1, holdout_share=0.2)
    store = Store(str(small_corpus))
    first, again, other = (read_films(store, config, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.held_out_NCHW, again.held_out_NCHW)
    assert not torch.equal(first.held_out_NCHW, other.held_out_NCHW)


def test_more_frames_than_memory_allows_are_refused_before_one_is_read(small_corpus: Path):
    config = FramesConfig(size_px=(32, 48), fps=4, max_memory_gb=1e-6)
    with pytest.raises(
        TrainingDataError, match=r"frames of 32x48 take .* GB, max_memory_gb allows"
    ):
        read_films(Store(str(small_corpus)), config, seed=0)
