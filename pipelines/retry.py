"""What is to be made anew although it was committed: noted row by row, then marked in the ledger.

The order is what makes it safe to be killed: first the note of a part, then the mark on its layers. A note
without a mark is forgotten by the next run; a mark without its note costs a whole part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curation.corpus import layout
from curation.corpus.known_sources import TEXTS, KnownSources, text_digests
from curation.corpus.ledger import READING_THREADS, Ledger, commit_part
from curation.corpus.parts import in_order, read_table
from curation.corpus.schema import SOURCES, schema
from curation.errors import PASSING, UsageError
from curation.stations.station import Station
from pipelines import river
from pipelines.again import Again, Clip, add_again, read_places

CAPTIONS, FAILED = "captions", "failed"


@dataclass(frozen=True, slots=True)
class Retries:
    """Notes what one run is to make anew.

    Args:
        ledger: of the corpus.
        stations: of the run, in river order.
        ids: layer name -> id, of this run.
        current: the same of corpus.json: may hold layers that this run does not make.
        num_parts: of the corpus.
    """

    ledger: Ledger
    stations: Sequence[Station[Any]]
    ids: Mapping[str, str]
    current: Mapping[str, str]
    num_parts: int

    def rejected_among(self, uris: Iterable[str], known: KnownSources) -> dict[str, int]:
        """Those of some sources of the corpus that were rejected -> their part.

        Args:
            uris: of sources that it has.
            known: all that it has.
        """
        wanted = pa.array(list(uris), pa.string())
        places = known.table.filter(pc.is_in(known.table["uri"], value_set=wanted))
        done = self.ledger.records(layout.layer_folder(self.ids["probe"]))
        parts = [part for part in pc.unique(places["part"]).to_pylist() if part in done]
        found: dict[str, int] = {}
        for part, reasons in in_order(self._reasons, parts, threads=READING_THREADS):
            sources = self._sources(part)["uri"]
            is_meant = pc.and_(pc.is_in(sources, value_set=wanted), pc.is_valid(reasons))
            found |= dict.fromkeys(sources.filter(is_meant).to_pylist(), part)
        return found

    def _reasons(self, part: int) -> pa.ChunkedArray:
        """Why each source of a part was rejected; null for those that were not."""
        place = layout.layer(self.ids["probe"], part)
        return read_table(self.ledger.store, place, ["source_reject"])["source_reject"]

    def note_failed(self, renewed: Mapping[str, int], listed: pa.Table) -> Counter[str]:
        """Note sources whose reject may pass, and captions that failed; returns how many of each.

        Args:
            renewed: rejected sources that are other files now, whatever their reason was, -> their part;
                the corpus is told their lengths.
            listed: rows of `schema(SOURCES)`, those of ``renewed`` among them.
        """
        count = Counter[str]()
        notes: dict[int, Again] = {}
        for part, rows in self.failed_sources(renewed).items():
            notes[part] = Again(sources=tuple(rows))
            count["sources"] += len(rows)
        sources = sorted(notes)
        failed = self.failed_captions()
        captions = list(failed)
        for part, clips in failed.items():
            count["captions"] += len(clips)
            again = Again(clips=dict.fromkeys(self._made_of({CAPTIONS}), clips))
            notes[part] = notes[part].merged(again) if part in notes else again
        add_again(self.ledger.store, notes)
        for name in river.DECODED_LAYERS:
            self._mark(name, sources)
        self._mark(CAPTIONS, captions)
        self._mark_others(lambda name: True, sources)
        self._mark_others(self._made_of({CAPTIONS}).__contains__, captions)
        for part in sorted(set(renewed.values())):
            self._write_lengths(part, listed)
        self.ledger.flush()
        return count

    def failed_sources(self, renewed: Mapping[str, int]) -> dict[int, dict[int, str]]:
        """Sources whose reject may pass, and those of ``renewed``: part -> row -> address."""
        passing = self._parts_with("probe", [f"source_reject={reason}" for reason in PASSING])
        found: dict[int, dict[int, str]] = {}
        for part in sorted({*passing, *renewed.values()}):
            uris, reasons = self._sources(part)["uri"].to_pylist(), self._reasons(part).to_pylist()
            found[part] = {
                row: uri
                for row, (uri, reason) in enumerate(zip(uris, reasons, strict=True))
                if reason in PASSING or uri in renewed
            }
        return found

    def failed_captions(self) -> dict[int, tuple[Clip, ...]]:
        """Clips whose caption failed, by part."""
        parts = self._parts_with(CAPTIONS, [f"caption_status={FAILED}"])
        return {part: self._failed_clips(part) for part in parts}

    def _write_lengths(self, part: int, listed: pa.Table) -> None:
        """Put what a list says of the lengths of a part's sources into the part."""
        known = self._sources(part)
        place = pc.index_in(known["uri"], value_set=listed["uri"].combine_chunks())
        lengths = pc.coalesce(listed["size_bytes"].take(place), known["size_bytes"])
        at = known.schema.get_field_index("size_bytes")
        table = known.set_column(at, known.schema.field(at), lengths).cast(schema(SOURCES))
        self.ledger.mark_again(layout.SOURCES, [part])
        self.ledger.record([commit_part(self.ledger.store, layout.SOURCES, part, table)])

    def _parts_with(self, layer: str, counted: Sequence[str]) -> list[int]:
        """Committed parts of a layer whose record counts any of these values."""
        if layer not in self.ids:
            return []
        records = self.ledger.records(layout.layer_folder(self.ids[layer]))
        return sorted(
            part
            for part, record in records.items()
            if part < self.num_parts and any(record.counts.get(name) for name in counted)
        )

    def _failed_clips(self, part: int) -> tuple[Clip, ...]:
        place = layout.layer(self.ids[CAPTIONS], part)
        status = read_table(self.ledger.store, place, ["caption_status"])["caption_status"]
        places = read_places(self.ledger.store, self.ids, part)
        return _clips(places.filter(pc.equal(status, FAILED)))

    def update_texts(self, listed: pa.Table, known: KnownSources) -> Counter[str]:
        """Take texts that the lists give for known sources into the corpus.

        An empty text of a list leaves the known one. Parts whose sources a list gives the texts that it
        gave before are not read.

        Args:
            listed: rows of `schema(SOURCES)`.
            known: the sources of the corpus; written down with what they are told now.

        Returns:
            How many sources got another text, as "sources", and of each column.
        """
        given = listed.filter(_any_text(listed)).combine_chunks()
        digests = text_digests(given)
        count: Counter[str] = Counter()
        for part, before, columns, changed in self._other_texts(given, digests, known):
            self._note_texts(part, changed)
            table = pa.table(
                {name: columns.get(name, before[name]) for name in before.column_names},
                schema=schema(SOURCES),
            )
            self.ledger.mark_again(layout.SOURCES, [part])
            self.ledger.record([commit_part(self.ledger.store, layout.SOURCES, part, table)])
            count.update(_counted(changed))
        self.ledger.flush()
        known.with_told(given["uri"].combine_chunks(), digests).write(self.ledger)
        return count

    def other_texts(self, listed: pa.Table, known: KnownSources) -> tuple[Counter[str], list[int]]:
        """What `update_texts` would do: how many of what would get other texts, and in which parts."""
        given = listed.filter(_any_text(listed)).combine_chunks()
        count, parts = Counter[str](), []
        for part, _, _, changed in self._other_texts(given, text_digests(given), known):
            count.update(_counted(changed))
            parts.append(part)
        return count, parts

    def _other_texts(
        self, given: pa.Table, digests: pa.Array, known: KnownSources
    ) -> Iterator[tuple[int, pa.Table, dict[str, pa.Array], dict[str, set[int]]]]:
        """Parts of which sources are told other texts.

        Args:
            given: rows of a list that give any.
            digests: of their texts.
            known: the sources of the corpus.

        Yields:
            The part, its sources, its columns of texts as they will be, and the rows of each that change.
        """
        uris = given["uri"].combine_chunks()
        place = pc.index_in(known.table["uri"], value_set=uris).combine_chunks()
        news = pc.fill_null(pc.not_equal(digests.take(place), known.table["told"]), True)
        news = pc.and_(pc.is_valid(place), news)
        parts = sorted(pc.unique(known.table["part"].filter(news)).to_pylist())
        row_of = {uri: row for row, uri in enumerate(uris.to_pylist())} if parts else {}
        for part, before in in_order(self._sources, parts, threads=READING_THREADS):
            rows = pa.array([row_of.get(uri) for uri in before["uri"].to_pylist()], pa.int64())
            columns, changed = _told(before, given, rows)
            if changed:
                yield part, before, columns, changed

    def _sources(self, part: int) -> pa.Table:
        return read_table(self.ledger.store, layout.sources(part), schema(SOURCES).names)

    def _note_texts(self, part: int, changed: Mapping[str, set[int]]) -> None:
        """Note the clips that stations make of texts that will be others, and mark these layers."""
        readers = {
            station.name: set().union(*(changed.get(column, set()) for column in station.needs))
            for station in self.stations
        }
        readers = {name: rows for name, rows in readers.items() if rows}
        scenes = self.ledger.records(layout.layer_folder(self.ids["scenes"]))
        if not readers or part not in scenes:
            return
        places = read_places(self.ledger.store, self.ids, part)
        source_row = places["source_row"]
        clips: dict[str, tuple[Clip, ...]] = {}
        for name, rows in readers.items():
            own = _clips(places.filter(pc.is_in(source_row, pa.array(sorted(rows), pa.int32()))))
            for follower in self._made_of({name}):
                clips[follower] = tuple(sorted({*clips.get(follower, ()), *own}))
        add_again(self.ledger.store, {part: Again(clips=clips)})
        for name in readers:
            self._mark(name, [part])
        self._mark_others(clips.__contains__, [part])

    def _made_of(self, names: set[str]) -> list[str]:
        """These stations and those that read what they make, in river order."""
        found = set(names)
        for station in self.stations:
            if set(river.upstream(station)) & found:
                found.add(station.name)
        return [station.name for station in self.stations if station.name in found]

    def _mark(self, name: str, parts: Sequence[int]) -> None:
        if parts:
            self.ledger.mark_again(layout.layer_folder(self.ids[name]), parts)

    def _mark_others(self, concerns: Callable[[str], bool], parts: Sequence[int]) -> None:
        """Layers of earlier settings are made anew there if they become current once more."""
        ours = set(self.ids.values())
        for layer_id in self.ledger.store.folders(layout.LAYERS) if parts else ():
            if layer_id not in ours and concerns(layer_id.partition("@")[0]):
                self.ledger.mark_again(layout.layer_folder(layer_id), parts)

    def check_none_left_behind(
        self,
        listed: pa.Table,
        known: KnownSources,
        *,
        retry_failed: bool,
        renewed: Mapping[str, int],
    ) -> None:
        """Refuse a run, before it writes anything, by which layers of the corpus would not follow others.

        Args:
            listed: rows of `schema(SOURCES)` whose texts would be taken in.
            known: the sources of the corpus.
            retry_failed: whether what failed would be tried again.
            renewed: as of `note_failed`.

        Raises:
            UsageError: names the layers, and what they would not follow.
        """
        absent = sorted(set(self.current) - set(self.ids))
        if not absent:
            return
        what = ""
        if retry_failed and (self.failed_sources(renewed) or self.failed_captions()):
            what = "--retry-failed"
        elif self.other_texts(listed, known)[0]:
            what = "the texts of the list"
        if what:
            raise UsageError(
                f"{what}: this corpus also has the layers {', '.join(absent)}, which would not follow; "
                "run with their stations too (--stations)"
            )


def _clips(places: pa.Table) -> tuple[Clip, ...]:
    rows, scenes = places["source_row"].to_pylist(), places["scene_index"].to_pylist()
    return tuple(zip(rows, scenes, strict=True))


def _counted(changed: Mapping[str, set[int]]) -> dict[str, int]:
    """How many sources get another text, and of which column."""
    of_column = {name: len(rows) for name, rows in changed.items()}
    return {"sources": len(set().union(*changed.values())), **of_column}


def _told(
    before: pa.Table, given: pa.Table, rows: pa.Array
) -> tuple[dict[str, pa.Array], dict[str, set[int]]]:
    """Texts of a part's sources as they will be, and the rows of each column that changes.

    Args:
        before: the sources.
        given: rows that tell texts.
        rows: of each source its row there; null if there is none.
    """
    columns, changed = {}, {}
    for name in TEXTS:
        known, told = before[name].to_pylist(), given[name].take(rows).to_pylist()
        after = [new or old for old, new in zip(known, told, strict=True)]
        columns[name] = pa.array(after, before.schema.field(name).type)
        others = {row for row, old in enumerate(known) if old != after[row]}
        if others:
            changed[name] = others
    return columns, changed


def _any_text(listed: pa.Table) -> pa.ChunkedArray:
    """Rows that give any text."""
    found = pc.is_valid(listed[TEXTS[0]])
    for name in TEXTS[1:-1]:  # given_captions begins with given_caption
        found = pc.or_(found, pc.is_valid(listed[name]))
    return found
