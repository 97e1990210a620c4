"""All frames of a selection in memory: which, and how many."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from curation.corpus.shards import read_index, read_sample
from curation.corpus.store import Store
from curation.errors import TrainingDataError
from training.data.films import FramesConfig, parts_of, read_films
from training.data.picture import view
from training.data.reading import read_frames


def test_frames_of_whole_clips_are_held_out_and_no_frame_is_lost(small_corpus: Path):
    store = Store(str(small_corpus))
    config = FramesConfig(size_px=(32, 48), fps=4, holdout_share=0.2, zoom=1)
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
        TrainingDataError, match=r"frames of 64x96 take .* GB, max_memory_gb allows"
    ):
        read_films(Store(str(small_corpus)), config, seed=0)


def test_frames_to_learn_from_are_held_larger_than_those_that_are_measured_on(small_corpus: Path):
    config = FramesConfig(size_px=(32, 48), fps=1, zoom=1.5)
    films = read_films(Store(str(small_corpus)), config, seed=0)
    assert films.train_NCHW.shape[2:] == (48, 72)
    assert films.held_out_NCHW.shape[2:] == (32, 48)


def test_a_part_lies_inside_its_frame_and_keeps_its_shape_mirrored_or_not():
    y, x = torch.meshgrid(torch.arange(64), torch.arange(96), indexing="ij")
    frame_CHW = torch.stack([2 * x, 2 * y, torch.zeros_like(x)]).to(torch.uint8)
    draw = np.random.default_rng(0)
    parts_NCHW = parts_of(frame_CHW.expand(300, 3, 64, 96), (32, 48), draw)
    # Red says the column and green the row that a pixel comes from.
    columns = (parts_NCHW[:, 0, 16, :] + 1) * 127.5 / 2
    rows = (parts_NCHW[:, 1, :, 24] + 1) * 127.5 / 2
    across, down = columns[:, -8] - columns[:, 8], rows[:, -8] - rows[:, 8]
    is_mirrored = across < 0
    assert 0.4 < is_mirrored.float().mean() < 0.6
    assert (down > 0).all()
    pace_x, pace_y = across.abs() / 32, down / 16  # pixels of the frame in one of the part: 1 to 2
    assert torch.allclose(pace_x, pace_y, atol=0.1)
    assert pace_y.min() > 0.9
    assert pace_y.min() < 1.1
    assert pace_y.max() > 1.9
    assert pace_y.max() < 2.1


def test_without_a_draw_the_whole_frame_is_there():
    frames = torch.randint(0, 256, (2, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    whole = parts_of(frames.to(torch.uint8), (8, 8), None)
    assert torch.equal(((whole + 1) * 127.5).round(), frames.float())
