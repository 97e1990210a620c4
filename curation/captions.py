"""Station `captions`: the sentence that a clip is trained with.

Engines are asked in turn until one has a sentence; which one it was stands beside it. `given` takes
the text that came with the source. `tags` strings what a classifier saw into a sentence: a stop-gap
for machines without a captioning model, and labelled as such.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import pyarrow as pa

from curation.corpus.schema import layer_schema
from curation.station import Resources
from curation.weights import Weight

Engine = Literal["given", "tags"]
GivenColumn = Literal["given_caption", "title", "description"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionsConfig:
    """Settings of the station."""

    engines: tuple[Engine, ...] = ("given",)
    """Asked in this order; the first sentence wins."""
    given_columns: tuple[GivenColumn, ...] = ("given_caption", "description", "title")
    """Columns of the source list that count as captions, in order of precedence: what was written
    as a caption, then what describes, then what only names. All clips of a source get the same."""
    num_tags: int = 3
    """Most tags in a sentence of `tags`."""
    min_tag_score: float = 0.1
    """Probability from which a tag is put into a sentence, 0..1."""

    def __post_init__(self) -> None:
        if not self.engines or set(self.engines) - {"given", "tags"}:
            raise ValueError(f"captions.engines must be out of given, tags, got {self.engines}")
        allowed = {"given_caption", "title", "description"}
        if set(self.given_columns) - allowed:
            raise ValueError(
                f"captions.given_columns must be out of {', '.join(sorted(allowed))}, "
                f"got {self.given_columns}"
            )
        if self.num_tags < 1:
            raise ValueError(f"captions.num_tags must be at least 1, got {self.num_tags}")
        if not 0 <= self.min_tag_score <= 1:
            raise ValueError(f"captions.min_tag_score must lie in 0..1, got {self.min_tag_score}")


class Caption(NamedTuple):
    """One row of the layer, without `clip_id`; the fields are its columns."""

    caption: str | None
    caption_engine: str | None
    caption_model: str | None
    caption_prompt: str | None
    caption_status: str


def cleaned(text: str | None) -> str:
    """Text on one line: Unicode NFC, control characters out, runs of white space to one space."""
    normal = unicodedata.normalize("NFC", text or "")
    spaced = re.sub(r"\s+", " ", normal)
    return "".join(c for c in spaced if unicodedata.category(c) not in ("Cc", "Cs")).strip()


def given_caption(row: Mapping[str, Any], columns: Sequence[str]) -> Caption:
    """The first of ``columns`` that holds a word."""
    for column in columns:
        text = cleaned(row[column])
        if any(c.isalnum() for c in text):
            return Caption(text, "given", column, None, "ok")
    return Caption(None, None, None, None, "nothing_given")


def tags_caption(row: Mapping[str, Any], settings: CaptionsConfig) -> Caption:
    """'A video of a fox, a meadow and a tree.' from the likeliest tags."""
    scored = zip(row["tags"] or (), row["tag_scores"] or (), strict=True)
    tags = [tag for tag, score in scored if score >= settings.min_tag_score]
    distinct = list(dict.fromkeys(tags))[: settings.num_tags]
    if not distinct:
        return Caption(None, None, None, None, "no_tags")
    kind = "picture" if row["media"] == "image" else "video"
    sentence = f"A {kind} of {_listed([_with_article(tag) for tag in distinct])}."
    return Caption(sentence, "tags", "taxonomy", None, "ok")


def _with_article(noun: str) -> str:
    """'a fox', 'an owl'; by the letter, since tags are ImageNet's nouns."""
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


def _listed(items: Sequence[str]) -> str:
    """'x', 'x and y', 'x, y and z'."""
    *first, last = items
    return f"{', '.join(first)} and {last}" if first else last


class Captions:
    """Adds `caption` and where it came from."""

    name = "captions"
    version = 1
    resources = Resources()

    def __init__(self, settings: CaptionsConfig | None = None) -> None:
        self.settings = settings or CaptionsConfig()

    @property
    def needs(self) -> Sequence[str]:
        """Columns of the chosen engines."""
        needs: list[str] = []
        if "given" in self.settings.engines:
            needs += self.settings.given_columns
        if "tags" in self.settings.engines:
            needs += ["media", "tags", "tag_scores"]
        return needs

    def weights(self) -> Sequence[Weight]:
        """None: neither engine has a model."""
        return []

    def setup(self) -> None:
        """Nothing to load."""

    def __call__(self, clips: pa.Table) -> pa.Table:
        """Caption every clip."""
        captions = [self._caption(row) for row in clips.select(self.needs).to_pylist()]
        schema = layer_schema(self.name)
        arrays = [
            pa.array([getattr(caption, field.name) for caption in captions], field.type)
            for field in list(schema)[1:]
        ]
        return pa.Table.from_arrays([clips["clip_id"], *arrays], schema=schema)

    def _caption(self, row: Mapping[str, Any]) -> Caption:
        """The first engine's answer that is a sentence, else the last one's reason."""
        for engine in self.settings.engines:
            if engine == "given":
                answer = given_caption(row, self.settings.given_columns)
            else:
                answer = tags_caption(row, self.settings)
            if answer.caption is not None:
                break
        return answer
