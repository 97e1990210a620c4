"""Clips of the labelled set: keyframes as the decoding pass keeps them, plain and with burnt text.

`labels.csv` was made by eye, three keyframes a clip looked at, doubtful ones at full size. Clips of one
run of neighbours fall into one half, so that a shot is not in both.
"""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from films import FILMS
from PIL import Image
from text.burnt import HELD_OUT, OVERLAYS, TUNING, Writer, sign

from curation.decode.keyframes import spread
from curation.weights.catalog import find

NUM_KEYFRAMES, SHORT_SIDE_PX, JPEG_QUALITY = 8, 384, 90
"""As `KeyframeConfig` has them."""
LABELS = Path(__file__).with_name("labels.csv")
BURNT_A_KIND = 16
"""Generated clips of each kind of text in each half."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """One clip and what is true of it."""

    film: str
    start_s: float
    end_s: float
    half: str
    """'tuning' or 'held_out'."""
    kind: str
    """'none' or the kind of overlay; for generated clips also 'sign'."""
    has_scene_text: bool
    has_logo: bool = False
    is_burnt: bool = False
    keyframes: tuple[bytes, ...] = ()

    @property
    def has_overlay(self) -> bool:
        """Whether text lies over the picture."""
        return self.kind not in ("none", "sign")


def labelled() -> list[Clip]:
    """The rows of `labels.csv`, without pictures."""
    with LABELS.open(newline="") as file:
        return [
            Clip(
                film=row["film"],
                start_s=float(row["start_s"]),
                end_s=float(row["end_s"]),
                half=row["half"],
                kind=row["overlay"],
                has_scene_text=row["scene_text"] == "yes",
                has_logo=row["logo"] == "yes",
            )
            for row in csv.DictReader(file)
        ]


def plan(clips: list[Clip]) -> dict[Clip, list[tuple[str, int]]]:
    """Clip without overlay -> kinds to burn on copies of it, each with its seed.

    Half of the copies are made from films other than the long cartoon.
    """
    planned: dict[Clip, list[tuple[str, int]]] = {}
    for half, seed in (("tuning", 18), ("held_out", 1809)):
        rng = random.Random(seed)
        clean = [c for c in clips if c.half == half and c.kind == "none"]
        cartoon = [c for c in clean if c.film.startswith("big-buck")]
        other = [c for c in clean if c not in cartoon]
        for kind in (*OVERLAYS, "sign"):
            for number in range(BURNT_A_KIND):
                base = rng.choice(cartoon if number % 2 else other)
                planned.setdefault(base, []).append((kind, rng.randrange(2**31)))
    return planned


def _jpeg(picture: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _kept(picture: Image.Image, quality: int) -> bytes:
    """At keyframe size, compressed once as a film would be and once as the pass does."""
    scale = min(1.0, SHORT_SIDE_PX / min(picture.size))
    size = tuple(max(2, round(side * scale / 2) * 2) for side in picture.size)
    small = picture.resize(size, Image.Resampling.BOX, reducing_gap=2.0)
    if quality < JPEG_QUALITY:
        small = Image.open(io.BytesIO(_jpeg(small, quality)))
    return _jpeg(small, JPEG_QUALITY)


def _with_pictures(
    clip: Clip, pictures: list[Image.Image], burns: list[tuple[str, int]], fonts: dict[str, Path]
) -> Iterator[Clip]:
    """The clip itself, then its copies with text."""
    from dataclasses import replace

    yield replace(clip, keyframes=tuple(_kept(p, JPEG_QUALITY) for p in pictures))
    for kind, seed in burns:
        rng = random.Random(seed)
        wording = TUNING if clip.half == "tuning" else HELD_OUT
        writer = Writer(rng=rng, wording=wording, fonts=fonts)
        paint = (OVERLAYS | {"sign": sign})[kind](writer, len(pictures))
        quality = rng.randrange(30, 90)
        frames = tuple(_kept(paint(p, i), quality) for i, p in enumerate(pictures))
        yield replace(
            clip,
            kind=kind,
            has_scene_text=clip.has_scene_text or kind == "sign",
            is_burnt=True,
            keyframes=frames,
        )


def clips_with_pictures(fonts: dict[str, Path]) -> Iterator[Clip]:
    """Every labelled clip and every generated one, film by film."""
    import av

    clips = labelled()
    planned = plan(clips)
    for film in dict.fromkeys(clip.film for clip in clips):
        own = sorted((c for c in clips if c.film == film), key=lambda c: c.start_s)
        with av.open(str(find(FILMS[film]))) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            fps = float(stream.average_rate)
            wanted: dict[int, list[Clip]] = {}
            for clip in own:
                first, end = round(clip.start_s * fps), round(clip.end_s * fps)
                for place in spread(NUM_KEYFRAMES, end - first):
                    wanted.setdefault(first + place, []).append(clip)
            held: dict[Clip, list[Image.Image]] = {}
            for index, frame in enumerate(container.decode(video=0)):
                for clip in wanted.get(index, ()):
                    held.setdefault(clip, []).append(frame.to_image())
                    if len(held[clip]) == NUM_KEYFRAMES:
                        yield from _with_pictures(
                            clip, held.pop(clip), planned.get(clip, []), fonts
                        )
            assert not held, f"{film} is shorter than its labels say: {list(held)}"


def as_array(data: bytes) -> np.ndarray:
    """One keyframe as RGB."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
