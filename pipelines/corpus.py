"""A corpus before its first unit: the list of sources dealt into parts."""

from __future__ import annotations

import hashlib
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.corpus import layout
from curation.corpus.known_sources import KnownSources, dealt, read_known_sources
from curation.corpus.ledger import READING_THREADS, Commit, Ledger, commit_part
from curation.corpus.manifest import CorpusInfo, read_corpus
from curation.corpus.parts import in_order
from curation.corpus.removal import BLANK, read_removed
from curation.corpus.schema import SOURCES, schema
from curation.corpus.store import Store
from curation.sources import is_web

logger = logging.getLogger(__name__)


def existing(store: Store) -> CorpusInfo | None:
    """What corpus.json says, or None where there is none yet."""
    return read_corpus(store) if store.exists(layout.CORPUS) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dealing:
    """The sources of a run dealt into parts, before anything is written."""

    new: pa.Table
    """Sources that the corpus does not have, rows of `schema(SOURCES)`."""
    parts_before: int
    """Parts that the corpus has."""
    starts: Sequence[int]
    """Rows of ``new`` at which a part begins."""
    num_not_listed: int
    """Sources of the corpus that this run's list does not name; they stay."""
    known: KnownSources
    """Sources that the corpus has."""
    changed: Mapping[str, str]
    """Listed sources that are not the files that were curated -> what differs; what was curated stays."""

    @property
    def num_parts(self) -> int:
        """Parts that the corpus will have."""
        return self.parts_before + len(self.starts)

    def write(self, ledger: Ledger) -> KnownSources:
        """Put the new parts; returns all sources that the corpus has then."""
        if self.new.num_rows and self.parts_before:
            logger.info("%d new sources go into new parts", self.new.num_rows)
        parts = range(self.parts_before, self.num_parts)
        if not parts:
            return self.known
        ends = [*self.starts, self.new.num_rows]
        ledger.mark_again(layout.SOURCES, parts)  # what a run that was killed here has left

        def put(part: int) -> Commit:
            place = part - self.parts_before
            rows = self.new.slice(ends[place], ends[place + 1] - ends[place])
            table = rows.combine_chunks().cast(schema(SOURCES))
            return commit_part(ledger.store, layout.SOURCES, part, table)

        for _, commit in in_order(put, parts, threads=READING_THREADS):
            ledger.record([commit])
        ledger.flush()
        numbers = np.repeat(np.asarray(parts, np.int32), np.diff(ends))
        added = dealt(self.new, numbers)
        table = pa.concat_tables([self.known.table, added])
        return KnownSources(table, self.known.num_unwritten + len(parts))


def part_starts(sizes: pa.ChunkedArray, *, most: int, most_bytes: int) -> list[int]:
    """Rows at which a part begins, so that none is larger than it may be, but for a row alone.

    Args:
        sizes: bytes of each source; null where they are not known.
        most: sources of a part.
        most_bytes: bytes of a part.
    """
    starts: list[int] = []
    held_bytes = 0
    for row, size in enumerate(pc.fill_null(sizes, 0).to_pylist()):
        if not starts or row - starts[-1] == most or held_bytes + size > most_bytes:
            starts.append(row)
            held_bytes = 0
        held_bytes += size
    return starts


def deal_sources(
    ledger: Ledger,
    listed: pa.Table,
    *,
    sources_per_part: int,
    bytes_per_part: int = sys.maxsize,
) -> Dealing:
    """Deal the listed sources into parts.

    Sources that the corpus has already stay in their parts; new ones, in the order of the list, go into new
    parts after the last; those on web servers as `_spread` lays them.

    Args:
        ledger: of the corpus.
        listed: rows of `schema(SOURCES)`, sorted, each uri once.
        sources_per_part: the most sources that one part gets.
        bytes_per_part: the most bytes of known lengths, unless one source has more.

    Raises:
        RemovalUnfinished: if a removal was interrupted.
    """
    listed = _without_removed(ledger.store, listed)
    info = existing(ledger.store)
    num_parts = info.num_parts if info else 0
    num_not_listed, changed = 0, dict[str, str]()
    known_sources = read_known_sources(ledger, num_parts)
    if num_parts:
        known = known_sources.table
        changed = _changed(known, listed)
        is_known = pc.is_in(listed["uri"], value_set=known["uri"].combine_chunks())
        is_blank = pc.starts_with(known["uri"], BLANK)  # they cannot be listed
        num_not_listed = known.num_rows - sum(
            pc.sum(which).as_py() or 0 for which in (is_known, is_blank)
        )
        listed = listed.filter(pc.invert(is_known))
    listed = _spread(listed)
    return Dealing(
        new=listed,
        parts_before=num_parts,
        starts=part_starts(listed["size_bytes"], most=sources_per_part, most_bytes=bytes_per_part),
        num_not_listed=num_not_listed,
        known=known_sources,
        changed=changed,
    )


def _spread(listed: pa.Table) -> pa.Table:
    """Sources on web servers behind all others, in an order that has nothing to do with their hosts.

    Next to each other, as they are sorted, they would all ask one host, which takes a few at a time. The
    digest of the address gives the same order everywhere.
    """
    uris = listed["uri"].to_pylist()
    of_web = [row for row, uri in enumerate(uris) if is_web(uri)]
    if not of_web:
        return listed
    of_web.sort(key=lambda row: hashlib.sha256(uris[row].encode()).digest())
    is_of_web = np.zeros(len(uris), bool)
    is_of_web[of_web] = True
    return listed.take(pa.array([*np.flatnonzero(~is_of_web), *of_web], pa.int64()))


def _without_removed(store: Store, listed: pa.Table) -> pa.Table:
    """The list without sources that were removed from this corpus."""
    removed = read_removed(store)
    removed.check_finished()
    stay_out = pc.is_in(listed["uri"], value_set=pa.array(sorted(removed.uris), pa.string()))
    num_out = pc.sum(stay_out).as_py() or 0
    if num_out:
        logger.warning("%d listed sources were removed from this corpus and stay out", num_out)
    return listed.filter(pc.invert(stay_out))


def _changed(known: pa.Table, listed: pa.Table) -> dict[str, str]:
    """Listed sources of another length than the corpus has curated -> both lengths in words."""
    both = known.select(["uri", "size_bytes"]).join(
        listed.select(["uri", "size_bytes"]), "uri", right_suffix="_now"
    )
    differs = pc.not_equal(both["size_bytes"], both["size_bytes_now"])
    changed = both.filter(pc.fill_null(differs, False)).sort_by("uri")
    return {
        row["uri"]: f"{row['size_bytes']} bytes then, {row['size_bytes_now']} now"
        for row in changed.to_pylist()
    }
