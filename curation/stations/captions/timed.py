"""Captions that a person wrote for stretches of films: a file of JSON objects, one a line.

    {"source_sha256": "475f...", "start_s": 2.29, "end_s": 11.75, "short": "Morning ...", "long": "..."}

Stretches are named by time and not by clip, so that they outlive another cut or another length of
clips, and by the bytes of the film, which may lie anywhere. Other keys, such as the film's name and
licence, are for people.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from curation.errors import UsageError
from curation.sources.json_lines import read_objects
from curation.stations.caption_models.answer import cleaned

KEYS = ("source_sha256", "start_s", "end_s", "short")
"""What every line has; 'long' may be left out."""
LEAST_SHARE = 0.5
"""Of a clip that a stretch must cover to speak for it: what covers less says mostly what is not shown."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """What is seen in a film for a while."""

    start_s: float
    end_s: float
    short: str
    long: str | None

    def share_of(self, start_s: float, end_s: float) -> float:
        """How much of a clip lies in the stretch, 0 to 1; a picture, which has no length, does or not."""
        if end_s <= start_s:
            return float(self.start_s <= start_s <= self.end_s)
        return max(0.0, min(end_s, self.end_s) - max(start_s, self.start_s)) / (end_s - start_s)


class TimedCaptions:
    """The stretches of a file, by film.

    Args:
        path: the file.

    Raises:
        UsageError: there is no such file, or a line is no stretch; names the line.
    """

    def __init__(self, path: Path) -> None:
        self._of_source: dict[str, list[Stretch]] = defaultdict(list)
        try:
            with pa.OSFile(str(path)) as file:
                for number, content, fault in read_objects(file, {}):
                    where = f"captions.timed: {path}, line {number}"
                    if fault is not None:
                        raise UsageError(f"{where}: {fault}")
                    source, stretch = _stretch(content, where)
                    self._of_source[source].append(stretch)
        except OSError as error:
            raise UsageError(f"captions.timed: {path} cannot be read: {error}") from error
        if not self._of_source:
            raise UsageError(f"captions.timed: {path} holds no line")

    def of(self, source_sha256: str | None, start_s: float, end_s: float) -> Stretch | None:
        """The stretch that covers most of a clip, the first of equals; None where none covers half of it."""
        known = self._of_source.get(source_sha256 or "", ())
        best = max(known, key=lambda stretch: stretch.share_of(start_s, end_s), default=None)
        if best is None or best.share_of(start_s, end_s) < LEAST_SHARE:
            return None
        return best


def _stretch(content: Mapping[str, Any], where: str) -> tuple[str, Stretch]:
    lacking = [key for key in KEYS if content.get(key) is None]
    if lacking:
        raise UsageError(f"{where}: {', '.join(lacking)} must be given")
    start_s, end_s = content["start_s"], content["end_s"]
    numbers = all(
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        for value in (start_s, end_s)
    )
    if not numbers or not 0 <= start_s < end_s:
        raise UsageError(
            f"{where}: start_s and end_s must be seconds, the end after the start, got {start_s!r} "
            f"and {end_s!r}"
        )
    texts = [
        cleaned(value if isinstance(value, str) else "")
        for value in map(content.get, ("short", "long"))
    ]
    if not any(map(str.isalnum, texts[0])):
        raise UsageError(f"{where}: short must be a sentence, got {content['short']!r}")
    return str(content["source_sha256"]), Stretch(
        float(start_s), float(end_s), texts[0], texts[1] or None
    )
