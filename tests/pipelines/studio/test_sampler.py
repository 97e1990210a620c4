"""The cascade behind the page, on real tiny networks."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inference.video_file import read_video
from pipelines.studio.sampler import lora_files
from pipelines.studio.samples import Request, Stopped


def nothing(stage: str, done: int, total: int) -> None:
    return None


def frames(sampler, request: Request, path: Path) -> np.ndarray:
    """As PNG: x264 under load was seen to code the same frames in different ways."""
    folder = path.with_suffix("")
    sampler.sample(request, folder, nothing)
    return np.stack([np.asarray(Image.open(file)) for file in sorted(folder.glob("*.png"))])


def test_all_stages_give_more_frames_and_four_times_the_size(tiny_sampler, tmp_path: Path) -> None:
    request = Request(
        prompt="a cat", num_steps=2, stages=("base", "interpolation", "super_resolution")
    )
    steps: list[tuple[str, int, int]] = []
    tiny_sampler().sample(request, tmp_path / "v.mp4", lambda *step: steps.append(step))
    video = read_video(tmp_path / "v.mp4")
    assert video.frames_THWC.shape == (9, 128, 192, 3)  # 4 (3 - 1) + 1 frames
    assert video.fps == 24
    assert [stage for stage, done, total in steps if done == total] == list(request.stages)


def test_the_stages_say_what_they_give(tiny_sampler) -> None:
    assert tiny_sampler().stages == {
        "base": "base: 48x32",
        "interpolation": "interpolation: 9 frames",
        "super_resolution": "super-resolution: 192x128",
    }


def test_loras_come_and_go_between_samples(tiny_sampler, lora_folder: Path, tmp_path: Path) -> None:
    sampler = tiny_sampler(("base",))
    plain = Request(prompt="a cat", num_steps=2)
    before = frames(sampler, plain, tmp_path / "plain.mp4")
    with_cat = Request(prompt="a cat", num_steps=2, loras={"cat": 1.0})
    cat = frames(sampler, with_cat, tmp_path / "cat.mp4")
    again = frames(sampler, plain, tmp_path / "again.mp4")
    assert np.array_equal(before, again)
    assert not np.array_equal(before, cat)
    fresh = frames(tiny_sampler(("base",)), with_cat, tmp_path / "fresh.mp4")
    assert np.array_equal(cat, fresh)
    held = json.loads((tmp_path / "cat.json").read_text())
    sha256 = hashlib.sha256((lora_folder / "cat.safetensors").read_bytes()).hexdigest()
    assert held["loras"] == {"cat": {"weight": 1.0, "sha256": sha256}}
    assert held["prompt"] == "a cat"


def test_a_lora_for_another_network_leaves_the_sampler_as_it_was(
    tiny_sampler, tmp_path: Path
) -> None:
    sampler = tiny_sampler(("base",))
    plain = Request(prompt="a cat", num_steps=2)
    before = frames(sampler, plain, tmp_path / "plain.mp4")
    with pytest.raises(ValueError, match="does not fit UNet"):
        sampler.sample(
            Request(prompt="a cat", num_steps=2, loras={"foreign": 1.0}),
            tmp_path / "x.mp4",
            nothing,
        )
    assert not (tmp_path / "x.mp4").exists()
    assert np.array_equal(frames(sampler, plain, tmp_path / "again.mp4"), before)


def test_stopping_writes_nothing_and_the_next_sample_is_whole(tiny_sampler, tmp_path: Path) -> None:
    sampler = tiny_sampler(("base",))
    request = Request(prompt="a cat", num_steps=3)

    def stop(stage: str, done: int, total: int) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        sampler.sample(request, tmp_path / "v.mp4", stop)
    assert list(tmp_path.iterdir()) == []
    got = frames(sampler, request, tmp_path / "v.mp4")
    fresh = frames(tiny_sampler(("base",)), request, tmp_path / "fresh.mp4")
    assert np.array_equal(got, fresh)


def test_loras_are_named_after_their_files(lora_folder: Path) -> None:
    assert list(lora_files(lora_folder)) == ["cat", "foreign", "ink_sketch"]


def test_without_a_base_stage_there_is_no_page(tiny_sampler) -> None:
    with pytest.raises(ValueError, match="needs weights of the base stage"):
        tiny_sampler(("interpolation",))
