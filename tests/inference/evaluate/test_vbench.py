"""The export for VBench: names, counts, and nothing half done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from inference.evaluate.vbench import VBenchPrompt, export, read_prompts


def sampled(folder: Path, prompt: str, seeds: list[int]) -> None:
    folder.mkdir(exist_ok=True)
    for seed in seeds:
        stem = f"{len(prompt)}-{seed}"
        (folder / f"{stem}.mp4").write_bytes(f"{prompt} {seed}".encode())
        (folder / f"{stem}.mp4.json").write_text(json.dumps({"prompt": prompt, "seed": seed}))


def test_lower_seeds_get_lower_indices_under_the_prompts_name(tmp_path: Path) -> None:
    sampled(tmp_path / "in", "a cat", [30, 7, 100, 8, 9, 10])
    prompts = [VBenchPrompt(prompt="a cat", num_videos=5)]
    assert export(prompts, tmp_path / "in", tmp_path / "out") == 5
    copied = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    assert copied == {f"a cat-{i}.mp4": f"a cat {s}" for i, s in enumerate([7, 8, 9, 10, 30])}


def test_prompts_of_a_text_file_want_five_videos_each(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a cat\n\na dog, running\na cat\n")
    prompts = read_prompts(tmp_path / "p.txt")
    assert [(p.prompt, p.num_videos) for p in prompts] == [("a cat", 5), ("a dog, running", 5)]


def test_temporal_flickering_wants_25_videos(tmp_path: Path) -> None:
    entries = [
        {"prompt_en": "a still street", "dimension": ["temporal_flickering"]},
        {"prompt_en": "a cat", "dimension": ["subject_consistency", "motion_smoothness"]},
    ]
    (tmp_path / "p.json").write_text(json.dumps(entries))
    prompts = read_prompts(tmp_path / "p.json")
    assert [(p.prompt, p.num_videos) for p in prompts] == [("a still street", 25), ("a cat", 5)]


def test_too_few_videos_are_named_and_nothing_is_copied(tmp_path: Path) -> None:
    sampled(tmp_path / "in", "a cat", [1, 2])
    prompts = [VBenchPrompt(prompt=text, num_videos=5) for text in ("a cat", "a dog")]
    with pytest.raises(ValueError, match="2 of 5: a cat\n  0 of 5: a dog"):
        export(prompts, tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_video_that_does_not_say_its_prompt_is_named(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").touch()
    with pytest.raises(FileNotFoundError, match=r"v\.mp4\.json is missing"):
        export([VBenchPrompt(prompt="a", num_videos=1)], tmp_path, tmp_path / "out")


@pytest.mark.parametrize("prompt", ["", "up/../../etc", "x" * 300], ids=["empty", "path", "long"])
def test_a_prompt_that_no_file_can_be_named_after_is_refused(prompt: str) -> None:
    with pytest.raises(ValueError, match="a prompt must"):
        VBenchPrompt(prompt=prompt, num_videos=5)


def test_a_list_that_is_not_vbenchs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('{"a": 1}')
    with pytest.raises(ValueError, match="prompt_en and dimension"):
        read_prompts(tmp_path / "p.json")
