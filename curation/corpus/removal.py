"""What was taken out of a corpus at somebody's wish, and stays out.

removed.json names the sources and clips that were removed, and each file that this changed with its sha256
before and after. It is written before the first file is touched, so that whatever ends the work in between,
the next `lavie remove` goes on with it; and it is read by whatever adds to the corpus, so that nothing that
was removed comes back, under another name neither: removal goes by content.

A removed source keeps its row, blanked, for rows are told by their position; a removed clip has none any
more, in no layer, of earlier settings neither.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.corpus import layout
from curation.corpus.ledger import Commit, commit_part
from curation.corpus.manifest import sealed, unsealed
from curation.corpus.parts import open_parquet, read_table, with_rows
from curation.corpus.schema import PROBE, SOURCES, schema
from curation.corpus.store import Store
from curation.errors import CorpusError, RemovalUnfinished

REMOVED = "removed"
"""The reject reason of a source that was removed."""
BLANK = "removed:"
"""What the address of a removed source's row begins with."""
_FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a removal did to one file."""

    file: str
    """Its path in the corpus."""
    num_removed: int
    """Rows or samples that it held."""
    sha256_before: str
    """Of the file as it was."""
    sha256_after: str | None
    """Of the file in its place; None if there is none any more."""
    file_after: str | None = None
    """Path of the file that took its place; None if it kept its path, or there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """One `lavie remove`."""

    uris: tuple[str, ...]
    """Addresses of the sources: those that were named, and others of the same bytes."""
    sources_sha256: tuple[str, ...]
    """Digests of their bytes."""
    clip_ids: tuple[str, ...]
    """Clips: those of these sources, and those that were named."""
    parts: tuple[int, ...] = ()
    """Parts that hold some of them."""
    media_sha256: tuple[str, ...] = ()
    """Digests of the media files cut of them."""
    changes: tuple[Change, ...] = ()
    """Files that were changed so far."""
    is_done: bool = False
    """Whether all files are free of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRemoval:
    """What a removal would take out, and which of the names it found nothing under."""

    removal: Removal
    """To be put on record and carried out."""
    absent_uris: tuple[str, ...]
    """Named addresses that no source of the corpus has: they only stay out."""
    absent_clip_ids: tuple[str, ...]
    """Named clips that no layer of the corpus has."""


@dataclass(slots=True)
class Removed:
    """All removals of a corpus.

    Args:
        store: the corpus.
        removals: in their order.
    """

    store: Store
    removals: list[Removal]
    uris: frozenset[str] = field(init=False)
    """Addresses that stay out."""
    sources_sha256: frozenset[str] = field(init=False)
    """Bytes that stay out."""
    clip_ids: frozenset[str] = field(init=False)
    """Clips that stay out."""

    def __post_init__(self) -> None:
        self.uris = frozenset(uri for one in self.removals for uri in one.uris)
        self.sources_sha256 = frozenset(d for one in self.removals for d in one.sources_sha256)
        self.clip_ids = frozenset(c for one in self.removals for c in one.clip_ids)

    @property
    def unfinished(self) -> Removal | None:
        """The removal that was begun and has not ended."""
        last = self.removals[-1] if self.removals else None
        return last if last is not None and not last.is_done else None

    def check_finished(self) -> None:
        """Raise `RemovalUnfinished` if a removal was begun and has not ended."""
        begun = self.unfinished
        if begun is not None:
            raise RemovalUnfinished(
                f"a removal of {len(begun.uris)} sources and {len(begun.clip_ids)} clips from "
                f"{self.store.root} was interrupted: `lavie remove {self.store.root}` goes on with it"
            )

    def begin(self, removal: Removal) -> Removed:
        """Put a new removal on record, before anything is done about it."""
        return self._written([*self.removals, removal])

    def advance(
        self, changes: Iterable[Change], *, media_sha256: Iterable[str] = (), is_done: bool = False
    ) -> Removed:
        """Put on record what the last removal has changed."""
        last = self.removals[-1]
        new = replace(
            last,
            changes=(*last.changes, *changes),
            media_sha256=tuple(dict.fromkeys((*last.media_sha256, *media_sha256))),
            is_done=is_done,
        )
        return self._written([*self.removals[:-1], new])

    def _written(self, removals: list[Removal]) -> Removed:
        content = {
            "format_version": _FORMAT_VERSION,
            "removals": [asdict(removal) for removal in removals],
        }
        self.store.write(layout.REMOVED, sealed(content))
        return Removed(self.store, removals)


def read_removed(store: Store) -> Removed:
    """What was removed from a corpus; nothing where there is no removed.json.

    Raises:
        CorpusError: if it is of a later format.
        TornPart: if its bytes are not those that were written.
    """
    try:
        data = store.read(layout.REMOVED)
    except FileNotFoundError:
        return Removed(store, [])
    content = unsealed(data, f"{store.root}/{layout.REMOVED}")
    if content.get("format_version") != _FORMAT_VERSION:
        raise CorpusError(f"{store.root}/{layout.REMOVED} is of a later format than this program's")
    return Removed(store, [_removal(entry) for entry in content["removals"]])


def _removal(entry: Mapping[str, Any]) -> Removal:
    lists = ("uris", "sources_sha256", "clip_ids", "parts", "media_sha256")
    changes = tuple(Change(**change) for change in entry["changes"])
    return Removal(
        **{name: tuple(entry[name]) for name in lists},
        changes=changes,
        is_done=entry["is_done"],
    )


def plan_removal(
    store: Store, num_parts: int, *, uris: Sequence[str], clip_ids: Sequence[str]
) -> PlannedRemoval:
    """What must go if these sources and clips do: all of the same bytes, in layers of all settings.

    Args:
        store: the corpus.
        num_parts: of the corpus.
        uris: of sources; those that the corpus lacks stay out as well.
        clip_ids: of clips.
    """
    named = dict.fromkeys(uris)
    rows = {part: _sources(store, part) for part in range(num_parts)}
    digests = {
        digest
        for table in rows.values()
        for uri, digest in zip(*_lists(table), strict=True)
        if digest is not None and uri in named
    }
    found = {uri for table in rows.values() for uri in table["uri"].to_pylist()}
    gone: dict[int, set[int]] = {}
    all_uris = dict(named)
    for part, table in rows.items():
        for row, (uri, digest) in enumerate(zip(*_lists(table), strict=True)):
            if uri in all_uris or digest in digests:
                gone.setdefault(part, set()).add(row)
                all_uris.setdefault(uri)
    ids, parts = dict.fromkeys(clip_ids), set(gone)
    clips_found = set[str]()
    for part in range(num_parts):
        for clip_id in _clips_to_remove(store, part, gone.get(part, set()), frozenset(clip_ids)):
            ids.setdefault(clip_id)
            clips_found.add(clip_id)
            parts.add(part)
    removal = Removal(
        uris=tuple(all_uris),
        sources_sha256=tuple(sorted(digests)),
        clip_ids=tuple(ids),
        parts=tuple(sorted(parts)),
    )
    return PlannedRemoval(
        removal=removal,
        absent_uris=tuple(uri for uri in named if uri not in found),
        absent_clip_ids=tuple(c for c in dict.fromkeys(clip_ids) if c not in clips_found),
    )


def _lists(table: pa.Table) -> tuple[list[str], list[str | None]]:
    return table["uri"].to_pylist(), table["source_sha256"].to_pylist()


def _sources(store: Store, part: int) -> pa.Table:
    """Address and digest of the sources of one part, whichever settings they were decoded with."""
    uris = read_table(store, layout.sources(part), ["uri"])
    digests = pa.nulls(uris.num_rows, pa.string())
    for folder in _folders(store, "probe"):
        if store.exists(layout.layer(folder, part)):
            known = read_table(store, layout.layer(folder, part), ["source_sha256"])
            if known.num_rows == uris.num_rows:
                digests = pc.coalesce(digests, known["source_sha256"].combine_chunks())
    return uris.append_column("source_sha256", digests)


def _folders(store: Store, layer: str) -> list[str]:
    """Folders of a layer, of all settings."""
    return [name for name in store.folders(layout.LAYERS) if name.partition("@")[0] == layer]


def _clips_to_remove(
    store: Store, part: int, gone: set[int], named: frozenset[str]
) -> Iterator[str]:
    """Clips of removed sources, and those that show what a named clip shows under other settings."""
    columns = ["clip_id", "source_row", "start_s", "end_s"]
    spans: list[tuple[int, float, float]] = []
    tables = [
        read_table(store, layout.layer(folder, part), columns).to_pylist()
        for folder in _folders(store, "scenes")
        if store.exists(layout.layer(folder, part))
    ]
    for row in (row for table in tables for row in table):
        if row["clip_id"] in named:
            spans.append((row["source_row"], row["start_s"], row["end_s"]))
    for row in (row for table in tables for row in table):
        overlaps = any(
            row["source_row"] == source
            and (
                (row["start_s"] < end and start < row["end_s"])
                or (row["start_s"], row["end_s"]) == (start, end)  # a still image lasts 0 s
            )
            for source, start, end in spans
        )
        if row["source_row"] in gone or overlaps:
            yield row["clip_id"]


def scrub_part(store: Store, part: int, removal: Removal) -> Iterator[tuple[Commit, Change]]:
    """Take removed sources and clips out of all files of one part; done twice it does nothing more.

    Clips go before their sources, so that a part that was left half done is found again by its sources.

    Args:
        store: the corpus.
        part: its number.
        removal: what goes.
    """
    ids = pa.array(sorted(removal.clip_ids), pa.string())
    rows = _gone_rows(store, part, removal)
    for folder in store.folders(layout.LAYERS):
        layer = folder.partition("@")[0]
        if layer != "probe" and store.exists(layout.layer(folder, part)):
            yield from _scrub_clips(store, folder, part, ids)
    for folder in _folders(store, "probe"):
        if store.exists(layout.layer(folder, part)):
            yield from _scrub_probe(store, folder, part, rows)
    yield from _scrub_sources(store, part, rows)


def _gone_rows(store: Store, part: int, removal: Removal) -> np.ndarray:
    """Rows of removed sources in one part."""
    table = _sources(store, part)
    uris = pc.is_in(table["uri"], value_set=pa.array(removal.uris, pa.string()))
    digests = pc.is_in(
        table["source_sha256"], value_set=pa.array(removal.sources_sha256, pa.string())
    )
    blanked = pc.is_in(
        table["uri"], value_set=pa.array([blank_uri(uri) for uri in removal.uris], pa.string())
    )
    gone = pc.or_(pc.or_(uris, digests), blanked)
    return np.flatnonzero(gone.to_numpy())


def blank_uri(uri: str) -> str:
    """What stands in the place of a removed source's address."""
    return f"{BLANK}{hashlib.sha256(uri.encode()).hexdigest()[:32]}"


@dataclass(slots=True)
class _Changing:
    """A file that is being changed."""

    store: Store
    path: str
    num_removed: int
    before: str
    after: str | None = None

    def made(self) -> Change:
        """What was done to it."""
        return Change(
            file=self.path,
            num_removed=self.num_removed,
            sha256_before=self.before,
            sha256_after=self.after,
        )


@contextmanager
def changed_file(store: Store, path: str, num_removed: int) -> Iterator[_Changing]:
    """Take a file's digest before and after a block that puts another in its place.

    Args:
        store: the corpus.
        path: of the file.
        num_removed: rows or samples that go.
    """
    change = _Changing(store, path, num_removed, sha256_of(store, path))
    yield change
    change.after = sha256_of(store, path)


def sha256_of(store: Store, path: str) -> str:
    """Digest of one file."""
    return hashlib.sha256(store.read(path)).hexdigest()


def _put(
    store: Store, path: str, folder: str, part: int, table: pa.Table, num_removed: int
) -> tuple[Commit, Change]:
    """Put a part in the place of the one that is there."""
    with open_parquet(store, path) as file:
        groups = file.metadata.num_row_groups
        rows_per_group = file.metadata.row_group(0).num_rows if groups > 1 else None
    with changed_file(store, path, num_removed) as change:
        commit = commit_part(store, folder, part, table, rows_per_group=rows_per_group)
    return commit, change.made()


def _scrub_clips(
    store: Store, folder: str, part: int, ids: pa.Array
) -> Iterator[tuple[Commit, Change]]:
    path = layout.layer(folder, part)
    if not pc.any(pc.is_in(read_table(store, path, ["clip_id"])["clip_id"], value_set=ids)).as_py():
        return
    table = read_table(store, path)
    is_gone = pc.is_in(table["clip_id"], value_set=ids)
    kept = table.filter(pc.invert(is_gone))
    num_removed = table.num_rows - kept.num_rows
    yield _put(store, path, layout.layer_folder(folder), part, kept, num_removed)


def _scrub_probe(
    store: Store, folder: str, part: int, rows: np.ndarray
) -> Iterator[tuple[Commit, Change]]:
    path = layout.layer(folder, part)
    table = read_table(store, path)
    blank: dict[str, Any] = dict.fromkeys(c.name for c in PROBE)
    blank |= {"source_reject": REMOVED, "source_reject_detail": "at somebody's wish"}
    changed = with_rows(table, rows, [blank] * len(rows))
    counts = np.zeros(table.num_rows, np.int32)
    scenes = layout.layer(f"scenes@{folder.partition('@')[2]}", part)
    if store.exists(scenes):
        source_row = read_table(store, scenes, ["source_row"])["source_row"].to_numpy()
        counts = np.bincount(source_row, minlength=table.num_rows).astype(np.int32)
    place = table.schema.get_field_index("num_scenes")
    changed = changed.set_column(place, table.schema.field(place), pa.array(counts))
    if not changed.equals(table):
        yield _put(store, path, layout.layer_folder(folder), part, changed, len(rows))


def _scrub_sources(store: Store, part: int, rows: np.ndarray) -> Iterator[tuple[Commit, Change]]:
    path = layout.sources(part)
    table = read_table(store, path)
    uris = table["uri"].take(pa.array(rows)).to_pylist()
    blank: dict[str, Any] = dict.fromkeys(c.name for c in SOURCES)
    blank |= {"given_captions": [], "listing_reject": REMOVED, "media": "video"}
    blank["listing_reject_detail"] = "at somebody's wish"
    is_new = [not uri.startswith(BLANK) for uri in uris]
    values = [
        blank | {"uri": blank_uri(uri) if new else uri}
        for uri, new in zip(uris, is_new, strict=True)
    ]
    if any(is_new):
        yield _put(store, path, layout.SOURCES, part, with_rows(table, rows, values), sum(is_new))


def without_names(command: str, removal: Removal) -> str:
    """A command line in which no word names a removed source any more.

    A word does if it is the address, or a path to a file of the same name.
    """
    for uri in removal.uris:
        name = re.escape(uri.rsplit("/", 1)[-1])
        if name:
            word = rf"(?<![^\s'\"=])(?:[^\s'\"=]*/)?{name}(?![^\s'\"])"
            command = re.sub(word, blank_uri(uri), command.replace(uri, blank_uri(uri)))
    return command


def without_removed(removed: Removed, tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """What a decoding pass gave, without what was removed earlier: its bytes may have come again.

    Args:
        removed: of the corpus.
        tables: probe, scenes and keyframes of one part.
    """
    probe, scenes = tables["probe"], tables["scenes"]
    digests = pa.array(sorted(removed.sources_sha256), pa.string())
    known = pc.is_in(probe["source_sha256"], value_set=digests)
    rows = np.flatnonzero(known.to_numpy())
    ids = pa.array(sorted(removed.clip_ids), pa.string())
    of_source = pc.is_in(scenes["source_row"], value_set=pa.array(rows, pa.int32()))
    is_gone = pc.or_(of_source, pc.is_in(scenes["clip_id"], value_set=ids))
    if not len(rows) and not pc.any(is_gone).as_py():
        return dict(tables)
    kept = pc.invert(is_gone)
    scenes, keyframes = scenes.filter(kept), tables["keyframes"].filter(kept)
    blank: dict[str, Any] = dict.fromkeys(c.name for c in PROBE)
    blank |= {"source_reject": REMOVED, "source_reject_detail": "its bytes were removed earlier"}
    probe = with_rows(probe.cast(schema(PROBE)), rows, [blank] * len(rows))
    counts = np.bincount(scenes["source_row"].to_numpy(), minlength=probe.num_rows)
    place = probe.schema.get_field_index("num_scenes")
    probe = probe.set_column(place, probe.schema.field(place), pa.array(counts.astype(np.int32)))
    return {"probe": probe, "scenes": scenes, "keyframes": keyframes}
