"""How well the station `logos` finds logos: burnt on real footage, one of the concert's own, and none.

    python benchmarks/films.py
    python benchmarks/logos.py [--half tuning]

Neighbouring clips of the labelled set (`benchmarks/text/labels.csv`) stand for a source: one clip, two, four,
eight, or all of a film's half. Each is looked at as it is and with a logo (`benchmarks/logo/burnt.py`); the
halves have other shots, logos and seeds, and thresholds were chosen on 'tuning'. Beside it the simplest
thing: what hardly varies over the pictures, where the rest does.
"""

from __future__ import annotations

import argparse
import io
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
from logo.burnt import Logo as Burnt
from numpy.typing import NDArray
from PIL import Image
from text import clips as labelled
from text.clips import Clip

from curation.stations.logos import (
    FEWEST_PIXELS,
    MAX_HEIGHT,
    MAX_WIDTH,
    LogosConfig,
    rows_of_clips,
    small_picture,
)

SIZES = (1, 2, 4, 8, 1000)
"""Clips of a source."""
MOST = 40
"""Sources of each size that are looked at."""
Box = tuple[float, float, float, float]
Source = list[list[NDArray[np.uint8]]]
"""Small pictures of each clip."""
Finder = Callable[[Source], list[Box] | None]
"""Boxes of the logos in each source; None where it cannot be told."""


def by_station(source: Source) -> list[Box] | None:
    rows = rows_of_clips(source, LogosConfig())
    if rows[0]["logo"] == "unknown":
        return None
    return [row["logo_box"] for row in rows if row["logo"] == "yes"]


def by_variance(source: Source) -> list[Box] | None:
    """Compact areas where the standard deviation over all pictures is at most 8 of 255."""
    pictures = np.stack([picture.mean(axis=-1) for clip in source for picture in clip])
    deviation_HW = pictures.std(axis=0)
    if np.median(deviation_HW) < 16:
        return None
    height, width = deviation_HW.shape
    is_still = (deviation_HW <= 8) & (pictures.max(axis=0) > 28)
    count, _, stats, _ = cv2.connectedComponentsWithStats(is_still.astype(np.uint8))
    return [
        (x / width, y / height, w / width, h / height)
        for x, y, w, h, area in stats[1:count].tolist()
        if area >= FEWEST_PIXELS and w <= MAX_WIDTH * width and h <= MAX_HEIGHT * height
    ]


def coded(picture: Image.Image, quality: int) -> NDArray[np.uint8]:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return small_picture(buffer.getvalue())


def marked(clips: Sequence[Clip], logo: Burnt) -> Source:
    """Pictures of the clips with the logo."""
    return [
        [
            coded(logo.over(Image.open(io.BytesIO(data)).convert("RGB")), logo.quality)
            for data in clip.keyframes
        ]
        for clip in clips
    ]


def sources(clips: Sequence[Clip], size: int) -> Iterator[list[Clip]]:
    """Runs of neighbouring clips of one film; the rest of a film only where all of it was asked for."""
    for film in dict.fromkeys(clip.film for clip in clips):
        own = [clip for clip in clips if clip.film == film]
        for begin in range(0, len(own), size):
            run = own[begin : begin + size]
            if len(run) == size or (size == SIZES[-1] and len(run) > SIZES[-2]):
                yield run


@dataclass
class Counts:
    """Sources of one size."""

    num: int = 0
    unknown: int = 0
    clean: int = 0
    false: int = 0
    own: int = 0
    own_found: int = 0
    burnt: int = 0
    burnt_unknown: int = 0
    burnt_found: int = 0

    def add_plain(self, run: Sequence[Clip], found: list[Box] | None) -> None:
        """A source as it is."""
        self.num += 1
        self.unknown += found is None
        if any(clip.has_logo for clip in run):
            self.own += 1
            self.own_found += bool(found)
        elif found is not None and all(clip.kind == "none" for clip in run):
            self.clean += 1
            self.false += bool(found)

    def add_burnt(self, found: list[Box] | None, box: Box) -> None:
        """A source with a logo in this box."""
        self.burnt += 1
        self.burnt_unknown += found is None
        self.burnt_found += found is not None and any(overlap(each, box) for each in found)


def overlap(one: Box, other: Box) -> bool:
    """Whether the middle of one lies in the other, or the other way round."""
    return any(
        b[0] <= a[0] + a[2] / 2 <= b[0] + b[2] and b[1] <= a[1] + a[3] / 2 <= b[1] + b[3]
        for a, b in ((one, other), (other, one))
    )


def count(clips: Sequence[Clip], half: str, size: int, find: Finder) -> Counts:
    runs, counts = list(sources(clips, size)), Counts()
    runs = random.Random(size).sample(runs, MOST) if len(runs) > MOST else runs
    for number, run in enumerate(runs):
        counts.add_plain(run, find([[small_picture(d) for d in clip.keyframes] for clip in run]))
        logo = Burnt(half, 1000 * size + number)
        source = marked(run, logo)
        height, width, _ = source[0][0].shape
        left, top, right, bottom = logo.box((width, height))
        box = left / width, top / height, (right - left) / width, (bottom - top) / height
        counts.add_burnt(find(source), box)
    return counts


def with_pictures(half: str) -> list[Clip]:
    """The clips of one half, nothing burnt on them."""
    labelled.plan = lambda clips: {}
    clips = [clip for clip in labelled.clips_with_pictures({}) if clip.half == half]
    return [clip for clip in clips if len(clip.keyframes) > 1]


def main() -> None:
    """Print a table a way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--half", choices=("tuning", "held_out"), default="held_out")
    half = parser.parse_args().half
    clips = with_pictures(half)
    for about, find in (("station", by_station), ("variance", by_variance)):
        print(f"\n{half}, {about}\n")
        print(
            "| clips | sources | cannot tell | false of clean | own found | burnt: cannot tell | found |"
        )
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for size in SIZES:
            c = count(clips, half, size, find)
            name = "half a film" if size == SIZES[-1] else size
            print(
                f"| {name} | {c.num} | {c.unknown} | {c.false}/{c.clean} | {c.own_found}/{c.own} | "
                f"{c.burnt_unknown}/{c.burnt} | {c.burnt_found}/{c.burnt - c.burnt_unknown} |"
            )


if __name__ == "__main__":
    main()
