"""One streaming pass over the parts of a corpus: every counter of the report.

One part's columns are in memory at a time; keyframes and embeddings are not read here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curation.corpus.manifest import CorpusInfo
from curation.corpus.parts import in_order, read_clips, read_sources
from curation.corpus.schema import LAYER_OF
from curation.corpus.selection import read_verdicts
from curation.corpus.store import Store
from curation.report.gallery import Choice
from curation.report.measures import ALWAYS_READ, FIGURES, MEASURES, WORDS, Measure, Word, numbers
from curation.report.statistics import Distribution, Tally

Figure = TypeVar("Figure", bound=Measure | Word)

POPULATIONS = ("all", "kept")
"""All clips of the corpus; those that the selection keeps."""
MS_PER_S = 1000
SOURCE_COLUMNS_READ = ("size_bytes", "source_reject", "source_duration_s")
VERDICTS_READ = ("keep", "failed_rules", "bucket")
READING_THREADS = 2
"""One reads ahead while the other's part is counted; more would only help a distant store."""


@dataclass(slots=True)
class ClipStatistics:
    """Counters over clips, for all of them or for the kept ones."""

    clips: int = 0
    images: int = 0
    duration_ms: int = 0
    numbers: dict[str, Distribution] = field(default_factory=dict)
    words: dict[str, Tally] = field(default_factory=dict)

    @classmethod
    def of(cls, columns: frozenset[str]) -> ClipStatistics:
        """Empty counters for the figures that ``columns`` allow."""
        return cls(
            numbers={m.name: Distribution(m.edges) for m in available(MEASURES, columns)},
            words={w.name: Tally() for w in available(WORDS, columns)},
        )

    def add(self, clips: pa.Table) -> None:
        """Count some clips."""
        duration_s = numbers(clips, "duration_s")
        is_video = duration_s != 0
        self.clips += len(clips)
        self.images += len(clips) - int(is_video.sum())
        self.duration_ms += int(np.rint(np.nan_to_num(duration_s) * MS_PER_S).sum())
        for measure in MEASURES:
            if measure.name in self.numbers:
                values = measure.values(clips)
                self.numbers[measure.name].add(values[is_video] if measure.videos_only else values)
        for word in WORDS:
            if word.name in self.words:
                self.words[word.name].add(word.values(clips))

    def merge(self, other: ClipStatistics) -> None:
        """Add up with counters over other clips."""
        self.clips += other.clips
        self.images += other.images
        self.duration_ms += other.duration_ms
        for name, distribution in other.numbers.items():
            self.numbers[name].merge(distribution)
        for name, tally in other.words.items():
            self.words[name].merge(tally)


@dataclass(slots=True)
class SourceStatistics:
    """Counters over sources."""

    sources: int = 0
    size_bytes: int = 0
    duration_ms: int = 0
    rejects: Tally = field(default_factory=Tally)

    def add(self, sources: pa.Table) -> None:
        """Count the sources of one part."""
        self.sources += len(sources)
        self.size_bytes += pc.sum(sources["size_bytes"]).as_py() or 0
        duration_s = np.nan_to_num(numbers(sources, "source_duration_s"))
        self.duration_ms += int(np.rint(duration_s * MS_PER_S).sum())
        self.rejects.add(sources["source_reject"])

    def merge(self, other: SourceStatistics) -> None:
        """Add up with counters over other sources."""
        self.sources += other.sources
        self.size_bytes += other.size_bytes
        self.duration_ms += other.duration_ms
        self.rejects.merge(other.rejects)


@dataclass(slots=True)
class Collected:
    """All that one pass gathers."""

    sources: SourceStatistics
    clips: dict[str, ClipStatistics]
    kept_shown: Choice
    rejected_shown: Choice
    columns: frozenset[str]


def available(figures: tuple[Figure, ...], columns: frozenset[str]) -> list[Figure]:
    """Those of some figures whose columns are there."""
    return [figure for figure in figures if columns.issuperset(figure.columns)]


def columns_of(info: CorpusInfo) -> frozenset[str]:
    """Columns of all figures that this corpus has."""
    wanted = {column for figure in FIGURES for column in figure.columns}
    present = {"sources", *info.layers}
    return frozenset(c for c in wanted if LAYER_OF[c] in present) | set(ALWAYS_READ)


def collect(
    store: Store,
    info: CorpusInfo,
    selection: str,
    parts: Sequence[int],
    *,
    kept: int,
    rejected: int,
) -> Collected:
    """Read every part of a selection once.

    Args:
        store: the corpus.
        info: its corpus.json.
        selection: whose verdicts to read.
        parts: numbers of its parts.
        kept: how many kept clips to choose for the contact sheet.
        rejected: how many rejected ones.

    Raises:
        MissingPart: if a file is not there.
        TornPart: if a file is damaged, or a part's verdicts do not line up with its clips.
    """
    columns = columns_of(info)
    found = Collected(
        sources=SourceStatistics(),
        clips={name: ClipStatistics.of(columns) for name in POPULATIONS},
        kept_shown=Choice(kept),
        rejected_shown=Choice(rejected),
        columns=columns,
    )

    def read(part: int) -> tuple[pa.Table, pa.Table, pa.Table]:
        """Columns of the part's sources, of its clips, and the verdicts on them."""
        sources = read_sources(store, info.layers, part, SOURCE_COLUMNS_READ)
        clips = read_clips(store, info.layers, part, sorted(columns))
        ids = clips["clip_id"]
        return sources, clips, read_verdicts(store, selection, part, VERDICTS_READ, clip_ids=ids)

    for part, (sources, clips, verdicts) in in_order(read, parts, threads=READING_THREADS):
        found.sources.add(sources)
        _add_clips(found, part, clips, verdicts)
    return found


def _add_clips(found: Collected, part: int, clips: pa.Table, verdicts: pa.Table) -> None:
    found.clips["all"].add(clips)
    found.clips["kept"].add(clips.filter(verdicts["keep"]))
    keep: NDArray[np.bool_] = verdicts["keep"].combine_chunks().to_numpy(zero_copy_only=False)
    # A scene that the scenes layer rejected has no keyframe to show.
    has_picture = pc.is_null(clips["scene_reject"]).combine_chunks().to_numpy(zero_copy_only=False)
    ids, none = clips["clip_id"], pa.scalar(None, pa.string())
    bucket = pc.fill_null(verdicts["bucket"], "")
    kept = pc.if_else(pa.array(keep & has_picture), bucket, none)
    found.kept_shown.add(part, ids, kept)
    reason = _first(verdicts["failed_rules"])
    found.rejected_shown.add(part, ids, pc.if_else(pa.array(~keep & has_picture), reason, none))


def _first(lists: pa.ChunkedArray) -> pa.ChunkedArray:
    """First text of each list, '' of an empty one."""
    some = pc.greater(pc.fill_null(pc.list_value_length(lists), 0), 0)
    # list_element fails on empty lists: those become null before it looks.
    first = pc.list_element(pc.if_else(some, lists, pa.scalar(None, lists.type)), 0)
    return pc.fill_null(first, "")


def left_out(columns: frozenset[str]) -> list[dict[str, str]]:
    """Figures that this corpus cannot have, and the station that would add each."""
    missing: list[dict[str, str]] = []
    for figure in FIGURES:
        for column in figure.columns:
            if column not in columns:
                missing.append(
                    {"figure": figure.title, "column": column, "station": LAYER_OF[column]}
                )
                break
    return missing
