"""Measuring folders of real films, and the file that says how."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from curation.errors import LavieError
from inference.evaluate.clipsim import ClipScorer
from inference.evaluate.distances import kernel_distance
from inference.evaluate.protocols import FrechetProtocol, View, msrvtt
from inference.evaluate.result import (
    VideoFolder,
    captions_for,
    measure_clipsim,
    measure_frechet,
    reference_of,
    write_result,
)
from inference.evaluate.videos import Seen, list_videos, read_clip, read_frames

SMALL = View(num_frames=4, resize_px=32)
PROTOCOL = FrechetProtocol(generated=SMALL, reference=SMALL, resamples=20)
WARM = ("red", "orange", "gold", "crimson")
COLD = ("teal", "navy", "purple", "green", "gray")


def test_fvd_is_the_distance_of_the_features_of_the_clips(film_folder, moments) -> None:
    folders = {"warm": film_folder(WARM), "cold": film_folder(COLD)}
    videos = VideoFolder(folder=folders["warm"])
    reference = reference_of(
        folders["cold"], moments, PROTOCOL, VideoFolder(folder=folders["cold"])
    )
    result = measure_frechet(videos, reference, moments, PROTOCOL)

    features = {
        name: moments(
            torch.stack([read_clip(p, SMALL, Seen(), name="") for p in list_videos(folder)])
        ).numpy()
        for name, folder in folders.items()
    }
    import scipy.linalg

    warm, cold = features["warm"].astype(float), features["cold"].astype(float)
    covariance = np.cov(warm.T), np.cov(cold.T)
    # Near-singular: five films, six features; so scipy's root is good to a part in 10^4 only.
    expected = (
        ((warm.mean(0) - cold.mean(0)) ** 2).sum()
        + np.trace(covariance[0] + covariance[1])
        - 2 * np.trace(scipy.linalg.sqrtm(covariance[0] @ covariance[1]).real)
    )
    assert result["metrics"]["fvd"]["value"] == pytest.approx(expected, rel=1e-4)
    assert result["metrics"]["kvd"]["value"] == pytest.approx(kernel_distance(warm, cold))


def test_the_result_says_every_choice(film_folder, moments) -> None:
    folder = film_folder(WARM)
    reference = reference_of(folder, moments, PROTOCOL, VideoFolder(folder=folder))
    result = measure_frechet(VideoFolder(folder=folder), reference, moments, PROTOCOL)
    assert result["metrics"]["fvd"]["value"] == pytest.approx(0, abs=1e-6)
    assert result["settings"]["generated"] == {
        "num_frames": 4,
        "start_frame": 0,
        "frame_stride": 1,
        "crop_px": 0,
        "resize_px": 32,
        "resize_filter": "bilinear",
        "antialias": False,
    }
    assert result["extractor"] == {"sha256": moments.sha256, "width": 6}
    assert result["videos"]["count"] == 4
    assert result["videos"]["codecs"] == {"h264 yuv420p": 4}
    assert result["videos"]["frame_rates"] == {"8": 4}
    assert result["metrics"]["fvd"]["confidence"]["resamples"] == 20
    assert result["published"]["fvd"]["LaVie"] == 526.30
    assert "4 videos, the protocol has 10100" in result["deviations"]
    assert "generated.num_frames is 4, the protocol has 16" in result["deviations"]


def test_the_same_videos_give_the_same_bytes(film_folder, moments, tmp_path: Path) -> None:
    folder = film_folder(WARM)
    for name in ("first.json", "again.json"):
        reference = reference_of(folder, moments, PROTOCOL, VideoFolder(folder=folder))
        result = measure_frechet(VideoFolder(folder=folder), reference, moments, PROTOCOL)
        write_result(result, tmp_path / name)
    first = (tmp_path / "first.json").read_bytes()
    assert first == (tmp_path / "again.json").read_bytes()
    assert str(folder) not in first.decode()


def test_a_result_is_never_overwritten(tmp_path: Path) -> None:
    write_result({"a": 1}, tmp_path / "r.json")
    with pytest.raises(FileExistsError, match=r"r\.json exists"):
        write_result({"a": 2}, tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text()) == {"a": 1}


def test_an_unreadable_video_stops_the_run_and_is_named(film_folder, moments) -> None:
    folder = film_folder(WARM)
    (folder / "broken.mp4").write_bytes(b"\0\0\0\x18ftypisom nothing else")
    with pytest.raises(LavieError, match=r"1 videos .* 0 are allowed.*\n  broken\.mp4 "):
        reference_of(folder, moments, PROTOCOL, VideoFolder(folder=folder))


def test_allowed_unreadable_videos_are_left_out_and_named_in_the_result(
    film_folder, moments
) -> None:
    folder = film_folder(WARM)
    (folder / "broken.mp4").write_bytes(b"\0\0\0\x18ftypisom nothing else")
    videos = VideoFolder(folder=folder, allow_unreadable=1)
    reference = reference_of(folder, moments, PROTOCOL, videos)
    assert reference.facts["count"] == 4
    assert list(reference.facts["unreadable"]) == ["broken.mp4"]


def test_one_video_is_too_few_for_a_distance(film_folder, moments) -> None:
    folder = film_folder(["red"])
    with pytest.raises(LavieError, match="at least 2 videos, got 1"):
        reference_of(folder, moments, PROTOCOL, VideoFolder(folder=folder))


def test_clipsim_of_a_folder_is_the_mean_over_its_videos(
    film_folder: Callable[..., Path], tiny_scorer: ClipScorer
) -> None:
    folder = film_folder(WARM)
    captions = {f"{i}.mp4": f"something {look}" for i, look in enumerate(WARM)}
    protocol = replace(msrvtt(), resamples=50, frame_stride=2)
    result = measure_clipsim(VideoFolder(folder=folder), captions, tiny_scorer, protocol)
    scores = [
        tiny_scorer.clipsim(read_frames(folder / name, Seen(), name=name)[::2], caption)
        for name, caption in captions.items()
    ]
    clipsim = result["metrics"]["clipsim"]
    assert clipsim["value"] == pytest.approx(np.mean(scores), abs=1e-9)
    assert clipsim["confidence"]["low"] < clipsim["value"] < clipsim["confidence"]["high"]
    assert result["clip"]["sha256"] == {"weights": "1" * 64}
    assert result["deviations"] == [
        "frame_stride is 2, the protocol has 1",
        "4 videos, the protocol has 2990",
    ]


def test_captions_are_taken_from_one_file_or_from_beside_the_videos(film_folder, tmp_path) -> None:
    folder = film_folder(["red", "teal"])
    wanted = {"0.mp4": "a red thing", "1.mp4": "a teal thing"}
    listed = tmp_path / "captions.json"
    listed.write_text(json.dumps({**wanted, "other.mp4": "not here"}))
    assert captions_for(folder, listed) == wanted
    for name, caption in wanted.items():
        (folder / f"{name}.json").write_text(json.dumps({"prompt": caption}))
    assert captions_for(folder, None) == wanted


def test_a_video_without_caption_is_named(film_folder, tmp_path) -> None:
    folder = film_folder(["red", "teal"])
    (tmp_path / "captions.json").write_text(json.dumps({"0.mp4": "a red thing", "1.mp4": " "}))
    with pytest.raises(ValueError, match=r"1 of 2 have none: 1\.mp4"):
        captions_for(folder, tmp_path / "captions.json")
    with pytest.raises(FileNotFoundError, match=r"no captions at .*0\.mp4\.json"):
        captions_for(folder, None)
