"""What a selection is made of: rules, tiers, duplicates, balance, buckets.

A bound is a number with a reason, so every rule carries its source; `curation.select.rule_presets` has the
paper's and the peers'. All of it is plain data: the effective configuration is saved as rules.json
beside the verdicts it gave.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from curation.corpus.schema import CLIP_COLUMNS, SOURCE_COLUMNS, VIDEO_COLUMNS
from curation.select.clusters import Clusters
from curation.select.dedup import Dedup
from curation.select.splits import Splits

SCENE_RULE = "scene_reject"
"""Every clip that the scenes layer rejected fails this one and no other; it needs no configuration."""
COPY_RULE = "duplicate_source"
"""Clips of a source whose bytes are those of an earlier source."""
DUPLICATE_RULE = "duplicate"
"""Clips that look like a better one."""
SEMANTIC_RULE = "semantic_duplicate"
"""Clips that show what a better one of their cluster shows."""
SOURCE_CAP_RULE = "max_per_source"
CAPTION_CAP_RULE = "max_per_caption"
CATEGORY_CAP_RULE = "max_per_category"
OWN_RULES = (
    *(SCENE_RULE, COPY_RULE, DUPLICATE_RULE, SEMANTIC_RULE),
    *(SOURCE_CAP_RULE, CAPTION_CAP_RULE, CATEGORY_CAP_RULE),
)

DERIVED: dict[str, tuple[str, ...]] = {
    "short_side": ("width", "height"),
    "aspect": ("width", "height"),
    "caption_count": ("caption",),
}
"""What a rule may name besides the corpus's columns -> the columns it is made from: the smaller of
width and height in pixels; width / height; how many scenes have the very same caption, 0 without one."""

MAX_RULES = 56
"""A clip's failed rules are one bit each of 64; `OWN_RULES` take seven, one is the sign."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Which values of one column a kept clip may have; both bounds belong to the allowed range."""

    column: str
    """A column of clips or of their sources (docs/corpus.md), or 'short_side' (px) or 'aspect'."""
    min: float | None = None
    """Smallest allowed value, in the column's unit."""
    max: float | None = None
    """Largest allowed value, in the column's unit."""
    min_quantile: float | None = None
    """Smallest allowed value as a quantile, 0..1, of this corpus: 0.25 drops the lowest quarter.

    Taken over the values of all clips that the scenes layer did not reject, whatever other rules
    say, so the order of rules changes nothing. It is the exact inverted-CDF quantile; ties with it
    are kept.
    """
    max_quantile: float | None = None
    """Largest allowed value as a quantile, 0..1: 0.75 drops the highest quarter."""
    one_of: tuple[str, ...] = ()
    """Allowed texts; for a column that is a list, one of them must be in it."""
    none_of: tuple[str, ...] = ()
    """Forbidden texts; for a column that is a list, none of them may be in it."""
    media: Literal["all", "video", "image", "auto"] = "auto"
    """Which clips the rule is for; the others pass. 'auto' becomes 'video' for a column that still
    images do not have, such as motion or duration (`VIDEO_COLUMNS`), and 'all' for any other: a bound
    on motion must not drop every image in silence. With 'all' it does."""
    keep_null: bool = False
    """Whether a clip without a value passes; NaN counts as no value."""
    name: str | None = None
    """What `failed_rules` and the funnel call it; the column's name if not given."""
    source: str = ""
    """Why this number: a paper, a peer's code, a measurement."""

    def __post_init__(self) -> None:
        if self.media == "auto":
            object.__setattr__(self, "media", "video" if self.column in VIDEO_COLUMNS else "all")
        if self.media == "image" and self.column in VIDEO_COLUMNS:
            raise ValueError(f"rule {self.label!r}: still images have no {self.column}")
        for bound in ("min", "max", "min_quantile", "max_quantile"):
            _check_bound(self, bound)
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"rule {self.label!r}: min {self.min} is over max {self.max}")
        if self.is_quantile and (self.min_quantile or 0.0) > _or(self.max_quantile, 1.0):
            raise ValueError(
                f"rule {self.label!r}: min_quantile {self.min_quantile} is over max_quantile "
                f"{self.max_quantile}"
            )
        if not (self.has_bounds or self.one_of or self.none_of):
            raise ValueError(
                f"rule {self.label!r} allows everything: give min, max, min_quantile, "
                "max_quantile, one_of or none_of"
            )
        if self.has_bounds and (self.one_of or self.none_of):
            raise ValueError(f"rule {self.label!r} mixes numbers and texts: make it two rules")

    @property
    def label(self) -> str:
        """The rule's name in results."""
        return self.name or self.column

    @property
    def is_quantile(self) -> bool:
        """Whether a bound depends on the corpus."""
        return self.min_quantile is not None or self.max_quantile is not None

    @property
    def is_late(self) -> bool:
        """Whether it can be asked only when all clips have been read."""
        return self.is_quantile or self.column == "caption_count"

    @property
    def has_bounds(self) -> bool:
        """Whether the rule compares numbers rather than texts."""
        return self.is_quantile or self.min is not None or self.max is not None

    @property
    def columns(self) -> tuple[str, ...]:
        """The corpus's columns that it reads."""
        return DERIVED.get(self.column, (self.column,))

    def describe(self) -> str:
        """The allowed values, for a reader: '4 <= aesthetic_score', 'category one of A, B'."""
        low = [f"{self.min:g}"] if self.min is not None else []
        low += [f"q{self.min_quantile:g}"] if self.min_quantile is not None else []
        high = [f"{self.max:g}"] if self.max is not None else []
        high += [f"q{self.max_quantile:g}"] if self.max_quantile is not None else []
        text = " <= ".join([*low[:1], self.column, *high[:1]])
        text += "".join(f", >= {bound}" for bound in low[1:])
        text += "".join(f", <= {bound}" for bound in high[1:])
        text += f" one of {', '.join(self.one_of)}" if self.one_of else ""
        text += f" none of {', '.join(self.none_of)}" if self.none_of else ""
        text += f" ({self.media}s)" if self.media != "all" else ""
        return text


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _check_bound(rule: Rule, bound: str) -> None:
    value = getattr(rule, bound)
    if value is None:
        return
    if not math.isfinite(value):
        raise ValueError(f"rule {rule.label!r}: {bound} must be finite, got {value}")
    if bound.endswith("quantile") and not 0.0 <= value <= 1.0:
        raise ValueError(f"rule {rule.label!r}: {bound} must be within 0..1, got {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """A named, stricter set of bounds within the kept clips."""

    name: str
    """What the `tier` column says."""
    rules: tuple[Rule, ...]
    """All of them must hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """How much of one kind a selection may hold; applied after rules and duplicates.

    What is dropped first: the lower tier, then the lower quality column, then the smaller picture,
    then the later in the corpus.
    """

    max_per_source: int | None = None
    """Most clips of one source; no limit if not given."""
    max_per_caption: int | None = None
    """Most clips with the very same caption, letter by letter; no limit if not given. Clips without a
    caption are exempt."""
    max_per_category: int | None = None
    """Most clips of one category; no limit if not given."""
    category_column: str = "category"
    """Text column whose values are the categories; clips without a value have none, so neither limit
    nor weight applies to them, and the funnel counts them."""
    weight_by_category: bool = False
    """Whether `sampling_weight` is 1 / sqrt(kept clips of the category), scaled to mean 1, as Movie
    Gen (2410.13720) resamples its clusters; else, and without a category, it is 1."""
    weight_by_cluster: bool = False
    """Whether `sampling_weight` is 1 / sqrt(kept clips of the cluster) instead; `clusters` must make
    some; 1 without an embedding."""

    def __post_init__(self) -> None:
        for limit in ("max_per_source", "max_per_caption", "max_per_category"):
            value = getattr(self, limit)
            if value is not None and value < 1:
                raise ValueError(f"{limit} must be at least 1, got {value}")

        if self.weight_by_category and self.weight_by_cluster:
            raise ValueError("weight_by_category and weight_by_cluster exclude each other")

    @property
    def uses_category(self) -> bool:
        """Whether the category column is read."""
        return self.max_per_category is not None or self.weight_by_category


def _rising(name: str, values: tuple[float, ...]) -> None:
    if list(values) != sorted(set(values)) or any(v <= 0 for v in values):
        raise ValueError(f"{name} must rise and be over 0, got {values}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Buckets:
    """Which clips go into one shard: similar shape, size and length, so that a batch stacks."""

    aspect_names: tuple[str, ...] = ("9x16", "3x4", "1x1", "4x3", "16x9")
    """From tall to wide; cosmos-curate 1.4.0, `dimensions.py`."""
    aspect_edges: tuple[float, ...] = (0.65, 0.88, 1.16, 1.55)
    """Width / height up to which (inclusive) each name but the last goes; same source."""
    resolution_edges_px: tuple[int, ...] = (320, 480, 720, 1080, 2160)
    """Short sides at which a bucket begins: LaVie trains at 320, the rest are the usual formats.

    720 and 1080 are also cosmos-curate's.
    """
    duration_edges_s: tuple[float, ...] = (2.0, 4.0, 8.0, 16.0, 32.0)
    """Seconds at which a bucket begins: doublings of LaVie's 16 frames at 8 per second."""

    def __post_init__(self) -> None:
        if len(self.aspect_names) != len(self.aspect_edges) + 1:
            raise ValueError(
                f"aspect_names must be one more than aspect_edges, got {len(self.aspect_names)} "
                f"and {len(self.aspect_edges)}"
            )
        _rising("aspect_edges", self.aspect_edges)
        _rising("resolution_edges_px", self.resolution_edges_px)
        _rising("duration_edges_s", self.duration_edges_s)

    @property
    def resolution_names(self) -> tuple[str, ...]:
        """One more than edges; the first for anything smaller."""
        edges = self.resolution_edges_px
        return ("any",) if not edges else (f"under{edges[0]}p", *(f"{edge}p" for edge in edges))

    @property
    def duration_names(self) -> tuple[str, ...]:
        """'image', then one more than edges."""
        edges = [f"{edge:g}" for edge in self.duration_edges_s]
        if not edges:
            return "image", "any"
        between = (f"{low}to{high}s" for low, high in pairwise(edges))
        return "image", f"under{edges[0]}s", *between, f"over{edges[-1]}s"

    def numbers(
        self,
        width: NDArray[np.int32],
        height: NDArray[np.int32],
        duration_s: NDArray[np.float32],
    ) -> NDArray[np.int64]:
        """Place in `names` of each clip's bucket, as `bucket_sql` has it.

        Args:
            width: ``[N]`` in pixels.
            height: ``[N]`` likewise.
            duration_s: ``[N]``, 0 for images.
        """
        aspect = np.searchsorted(self.aspect_edges, width / np.maximum(height, 1), side="left")
        short_side = np.minimum(width, height)
        resolution = np.searchsorted(self.resolution_edges_px, short_side, side="right")
        seconds = duration_s.astype(np.float64)
        duration = 1 + np.searchsorted(self.duration_edges_s, seconds, side="right")
        duration[seconds == 0] = 0
        resolutions, durations = len(self.resolution_names), len(self.duration_names)
        return (aspect * resolutions + resolution) * durations + duration

    def names(self) -> list[str]:
        """Every bucket, in the order of `bucket_sql`'s numbers."""
        return [
            f"{aspect}-{resolution}-{duration}"
            for aspect in self.aspect_names
            for resolution in self.resolution_names
            for duration in self.duration_names
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """What a selection asks for and leaves out, because the corpus lacks a column that it reads."""

    name: str
    """Name of the rule, the tier or the setting."""
    allows: str
    """What it would have kept, for a reader."""
    column: str
    """The first column that is missing."""
    station: str
    """The station that adds it."""
    source: str = ""
    """Where the number comes from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectConfig:
    """Which clips of a corpus are kept."""

    rules: tuple[Rule, ...] = ()
    """Applied to every clip, whatever the others say: a clip keeps all that it fails."""
    tiers: tuple[Tier, ...] = ()
    """From the lowest to the highest; a kept clip gets the last one whose rules it meets."""
    dedup: Dedup = field(default_factory=Dedup)
    """Which clips are the same."""
    balance: Balance = field(default_factory=Balance)
    """How much of one kind is kept."""
    buckets: Buckets = field(default_factory=Buckets)
    """How kept clips are dealt into shards."""
    splits: Splits = field(default_factory=Splits)
    """Which kept clips are trained on, and which are held out."""
    clusters: Clusters = field(default_factory=Clusters)
    """Clips by what they show."""
    quality_column: str | None = None
    """Number that decides which of several duplicates, or of too many, is the better one."""
    skipped: tuple[Skipped, ...] = ()
    """On record only: what `without_missing` left out."""

    def __post_init__(self) -> None:
        labels = [rule.label for rule in self.rules]
        _check_unique("rules", labels)
        _check_unique("tiers", [tier.name for tier in self.tiers])
        if taken := sorted(set(labels) & set(OWN_RULES)):
            raise ValueError(f"rule name {taken[0]!r} is one that selection itself uses")
        if self.balance.weight_by_cluster and not self.clusters.num:
            raise ValueError("weight_by_cluster needs clusters: give clusters num (--clusters.num)")
        if len(self.rules) > MAX_RULES:
            raise ValueError(f"at most {MAX_RULES} rules, got {len(self.rules)}")


def _check_unique(what: str, names: Iterable[str]) -> None:
    names = list(names)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{what} need different names, {twice[0]!r} appears twice")


_RULE_TEXT = re.compile(
    r"\s*(?P<column>\w+)\s*(?:\(\s*(?P<media>\w+)\s*\)\s*)?(?P<sign>[<>=!~]+)\s*(?P<value>.*?)\s*",
    re.DOTALL,
)
_MEDIA: dict[str, Literal["all", "video", "image"]] = {
    "videos": "video",
    "images": "image",
    "all": "all",
}
_MEANT = {"==": "=", "=>": ">=", "=<": "<=", ">": ">=", "<": "<=", "<>": "!=", "=!": "!="}
"""Signs that rules do not have -> those that were meant; bounds belong to the allowed range."""


def known_columns() -> list[str]:
    """All that a rule may name, sorted."""
    return sorted({*CLIP_COLUMNS, *SOURCE_COLUMNS, *DERIVED})


def no_such_column(name: str) -> str:
    """The sentence about a column that does not exist, with those of similar names."""
    near = difflib.get_close_matches(name, known_columns(), n=3)
    meant = f"did you mean {' or '.join(near)}?" if near else "docs/corpus.md lists them all"
    return f"no column is called {name!r}; {meant}"


def parse_rule(text: str) -> Rule:
    """A rule as it is typed: 'aesthetic_score>=4.5', 'motion_mean>=q0.25', 'category!=Ads|Music'.

    `>=` and `<=` take a number or, after a q, a quantile; `=` and `!=` take texts separated by `|`.
    After the column may stand which clips the rule is for, the others pass: 'sharpness(images)>=300',
    'width(videos)>=1280', 'motion_mean(all)>=0.01'. Where nothing stands, a column that still images
    do not have is for videos, any other for all clips. The text is also the rule's name.

    Raises:
        ValueError: if it does not read so, or there is no such column.
    """
    match = _RULE_TEXT.fullmatch(text)
    sign = match["sign"] if match else ""
    if match and (meant := _MEANT.get(sign)):
        raise ValueError(f"rule {text!r}: there is no {sign}, write {match['column']}{meant}...")
    if match is None or sign not in (">=", "<=", "=", "!=") or not match["value"]:
        raise ValueError(
            "a rule reads COLUMN>=NUMBER, COLUMN<=NUMBER, COLUMN=TEXT|TEXT or COLUMN!=TEXT, where "
            f"(videos) or (images) may follow COLUMN, got {text!r}"
        )
    column, value, words = match["column"], match["value"], match["media"]
    if words is not None and words not in _MEDIA:
        raise ValueError(f"rule {text!r}: after a column comes (videos), (images) or (all)")
    if column not in known_columns():
        raise ValueError(f"rule {text!r}: {no_such_column(column)}")
    name = f"{column}{f'({words})' if words else ''}{sign}{value}"
    media = _MEDIA[words] if words else "auto"
    if sign in ("=", "!="):
        values = tuple(part.strip() for part in value.split("|"))
        allowed, forbidden = (values, ()) if sign == "=" else ((), values)
        return Rule(
            column=column,
            one_of=allowed,
            none_of=forbidden,
            media=media,
            name=name,
            source="given",
        )
    return Rule(column=column, media=media, name=name, source="given", **_bound(sign, value, name))


def _bound(sign: str, value: str, name: str) -> dict[str, Any]:
    """The field of a rule that a typed number stands for, and the number."""
    try:
        number = float(value.removeprefix("q"))
    except ValueError as error:
        raise ValueError(
            f"rule {name!r}: after {sign} comes a number or q and a quantile, got {value!r}"
        ) from error
    end = "min" if sign == ">=" else "max"
    return {f"{end}_quantile" if value.startswith("q") else end: number}


def change_rules(
    config: SelectConfig, *, add: Iterable[Rule] = (), drop: Iterable[str] = ()
) -> SelectConfig:
    """The same selection with some rules more or less.

    Args:
        config: where to start from; it stays as it is.
        add: rules to put at the end.
        drop: names of rules to leave out.

    Raises:
        ValueError: if a rule to drop is not there.
    """
    labels = [rule.label for rule in config.rules]
    drop = list(drop)
    if unknown := sorted(set(drop) - set(labels)):
        raise ValueError(
            f"no rule is called {unknown[0]!r}; there are {', '.join(labels) or 'none'}"
        )
    kept = tuple(rule for rule in config.rules if rule.label not in drop)
    return replace(config, rules=(*kept, *add))
