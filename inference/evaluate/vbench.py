"""Sampled videos under the names that VBench looks for (arXiv 2311.17982).

VBench runs in an environment of its own (it pins old numpy and transformers); what it takes is a folder of
``prompt-index.mp4``, five videos a prompt, 25 for temporal flickering.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.evaluate.videos import description_of

SAMPLES_PER_PROMPT = 5
SAMPLES_FOR_FLICKERING = 25
FLICKERING = "temporal_flickering"
MOST_NAMED = 20  # of the missing videos that an error lists
NAME_BYTES = 255  # that a file name may have on Linux's and Apple's file systems


@dataclass(frozen=True, slots=True, kw_only=True)
class VBenchPrompt:
    """A prompt and how many videos VBench wants of it."""

    prompt: str
    """Text, as VBench has it."""
    num_videos: int
    """Videos wanted."""

    def __post_init__(self) -> None:
        """Raise ValueError for a prompt that no file can be named after."""
        longest = self.file_name(self.num_videos)
        if not self.prompt or "/" in self.prompt or "\0" in self.prompt:
            raise ValueError(f"a prompt must be a file name without '/', got {self.prompt!r}")
        if len(longest.encode()) > NAME_BYTES:
            raise ValueError(
                f"a prompt must fit a file name of {NAME_BYTES} bytes, got {self.prompt!r}"
            )

    def file_name(self, index: int) -> str:
        """Name of the video with this index, from 0."""
        return f"{self.prompt}-{index}.mp4"


def read_prompts(path: Path) -> list[VBenchPrompt]:
    """Prompts of a file, each once, in its order.

    Args:
        path: ``.txt`` with a prompt a line, five videos each; or ``.json`` as VBench's own list, of
            objects with "prompt_en" and "dimension" (25 videos where temporal flickering is one).

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds something else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no prompts at {path}")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be a text in UTF-8: {error}") from error
    entries = _entries_json(text, path) if path.suffix == ".json" else _entries_text(text)
    wanted: dict[str, int] = {}
    for prompt, num_videos in entries:
        wanted[prompt] = max(num_videos, wanted.get(prompt, 0))
    if not wanted:
        raise ValueError(f"{path} must hold at least one prompt")
    return [VBenchPrompt(prompt=prompt, num_videos=count) for prompt, count in wanted.items()]


def _entries_text(text: str) -> list[tuple[str, int]]:
    return [(line.strip(), SAMPLES_PER_PROMPT) for line in text.splitlines() if line.strip()]


def _entries_json(text: str, path: Path) -> list[tuple[str, int]]:
    try:
        held = json.loads(text)
        return [
            (
                str(entry["prompt_en"]),
                SAMPLES_FOR_FLICKERING if FLICKERING in entry["dimension"] else SAMPLES_PER_PROMPT,
            )
            for entry in held
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} must be a list of objects with prompt_en and dimension: {error!r}"
        ) from error


def sampled_videos(folder: Path) -> dict[str, list[Path]]:
    """Prompt -> its videos in the order of their seeds, from the JSON files beside them."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder of videos at {folder}")
    found: dict[str, list[tuple[int, Path]]] = {}
    for video in sorted(folder.rglob("*.mp4")):
        facts = _facts(description_of(video))
        found.setdefault(facts["prompt"], []).append((facts["seed"], video))
    return {prompt: [video for _, video in sorted(videos)] for prompt, videos in found.items()}


def _facts(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: it says which prompt the video beside it has")
    held = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(held, dict) or not isinstance(held.get("prompt"), str):
        raise ValueError(f"{path} must say the prompt of the video beside it")
    if not isinstance(held.get("seed"), int):
        raise ValueError(f"{path} must say the seed of the video beside it")
    return held


def export(prompts: list[VBenchPrompt], videos: Path, out: Path) -> int:
    """Copy sampled videos to a new folder under VBench's names; lower seeds get lower indices.

    Args:
        prompts: As of `read_prompts`.
        videos: Folder of videos with the JSON files that sampling leaves beside them.
        out: New folder.

    Returns:
        How many videos were copied.

    Raises:
        FileExistsError: The folder exists.
        ValueError: There are too few videos of some prompts; they are named, and nothing is copied.
    """
    if out.exists():
        raise FileExistsError(f"the folder of an export must be new, {out} exists")
    sampled = sampled_videos(videos)
    short = [
        f"{len(sampled.get(wanted.prompt, []))} of {wanted.num_videos}: {wanted.prompt}"
        for wanted in prompts
        if len(sampled.get(wanted.prompt, [])) < wanted.num_videos
    ]
    if short:
        raise ValueError(
            f"{len(short)} of {len(prompts)} prompts have too few videos in {videos}:\n  "
            + "\n  ".join(short[:MOST_NAMED])
        )
    draft = out.with_name(f".{out.name}.writing")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    for wanted in prompts:
        for index, video in enumerate(sampled[wanted.prompt][: wanted.num_videos]):
            shutil.copyfile(video, draft / wanted.file_name(index))
    draft.replace(out)
    return sum(wanted.num_videos for wanted in prompts)
