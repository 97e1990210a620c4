"""Taking sources and clips out of a corpus and of all that was made of it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import pyarrow as pa
from rich.console import Console

from curation.corpus import layout
from curation.corpus.clip_ids import CLIP_ID
from curation.corpus.generations import shards_state
from curation.corpus.known_sources import forget_known_sources
from curation.corpus.ledger import Commit, Ledger
from curation.corpus.manifest import CorpusInfo, read_corpus
from curation.corpus.removal import (
    Change,
    Removal,
    Removed,
    changed_file,
    plan_removal,
    read_removed,
    scrub_part,
    sha256_of,
    without_names,
)
from curation.corpus.selection import RULES
from curation.corpus.store import Store
from curation.errors import CorpusError, UsageError
from curation.export import finish_shards, without_clips
from curation.report import ReportConfig, rewrite_report
from curation.select import drop_clips, renew_centres
from pipelines.refresh import drop_latents

logger = logging.getLogger(__name__)

NAMED = 5
"""Names that a corpus lacks, shown in a message."""


def remove(
    store: Store, *, uris: Sequence[str], clip_ids: Sequence[str], console: Console
) -> Removal:
    """Take sources and clips out of every file of a corpus; go on with a removal that was begun.

    Args:
        store: the corpus, held by this process.
        uris: addresses of sources, as the corpus spells them. Those that it lacks stay out as well.
        clip_ids: ids of clips.
        console: told what was done.

    Returns:
        The removal, as removed.json has it.

    Raises:
        UsageError: if nothing was named and none was begun.
    """
    info, removed = read_corpus(store), read_removed(store)
    if removed.unfinished is not None:
        console.print("going on with a removal that was begun")
        removed = _carry_out(store, info, removed, console)
        uris = [uri for uri in uris if uri not in removed.uris]
        clip_ids = [clip_id for clip_id in clip_ids if clip_id not in removed.clip_ids]
        if not uris and not clip_ids:
            return removed.removals[-1]
    elif not uris and not clip_ids:
        raise UsageError(
            "give --sources or --clips: nothing was named, and no removal was begun that could be gone on "
            "with"
        )
    planned = plan_removal(store, info.num_parts, uris=uris, clip_ids=clip_ids)
    removal, absent_uris, absent_ids = (
        planned.removal,
        planned.absent_uris,
        planned.absent_clip_ids,
    )
    console.print(
        f"{len(removal.uris) - len(absent_uris)} sources and "
        f"{len(removal.clip_ids) - len(absent_ids)} clips go, "
        f"from {len(removal.parts)} of {info.num_parts} parts",
        highlight=False,
    )
    _say_absent(console, "sources", absent_uris, len(uris), removed.uris)
    _say_absent(console, "clips", absent_ids, len(clip_ids), removed.clip_ids)
    return _carry_out(store, info, removed.begin(removal), console).removals[-1]


def _say_absent(
    console: Console, what: str, absent: Sequence[str], num_named: int, before: frozenset[str]
) -> None:
    """Name what the corpus lacks of what was asked for: mistyped, perhaps, and still in it."""
    unknown = [name for name in absent if name not in before]
    if len(unknown) < len(absent):
        count = len(absent) - len(unknown)
        console.print(f"{count} of the {num_named} named {what} were removed before")
    if unknown:
        shown = ", ".join(unknown[:NAMED]) + (", ..." if len(unknown) > NAMED else "")
        console.print(
            f"{len(unknown)} of the {num_named} named {what} are NOT in this corpus; they are kept out from "
            f"now on. Are they spelled as in the corpus? {shown}"
            + ("; --clips takes clip ids" if what == "sources" and _has_clip_id(unknown) else ""),
            style="red",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def _has_clip_id(uris: Sequence[str]) -> bool:
    return any(CLIP_ID.fullmatch(uri.rpartition("/")[2]) for uri in uris)


def _carry_out(store: Store, info: CorpusInfo, removed: Removed, console: Console) -> Removed:
    """Do what is on record, file by file, and put on record what was done."""
    removal = removed.unfinished
    assert removal is not None, "it was begun"
    ids = pa.array(sorted(removal.clip_ids), pa.string())
    ledger = Ledger(store)
    forget_known_sources(store)
    for part in removal.parts:
        if part < info.num_parts:
            removed = removed.advance(_recorded(ledger, scrub_part(store, part, removal)))
    removed = removed.advance(_scrub_command(store, info, removal))
    if removal.parts:
        removed = removed.advance(renew_centres(store))
    for name in store.folders("selections"):
        if not store.exists(f"{layout.selection(name)}/{RULES}"):
            continue
        is_own = (state := shards_state(store, name)) is not None and state.is_own
        removed = removed.advance(_recorded(ledger, drop_clips(store, name, ids)))
        removed = _rewrite_shards(store, name, ids, removed, all_exported=is_own)
    ledger.flush()
    ledger.compact()
    info = read_corpus(store)  # without the names in its command
    for name in store.folders("reports"):
        removed = removed.advance(_rewrite_report(store, info, name))
    removed = removed.advance([], is_done=True)
    done = removed.removals[-1]
    console.print(
        f"{len(done.changes)} files were changed; what was removed from which is in "
        f"{store.root}/{layout.REMOVED}",
        soft_wrap=True,
        highlight=False,
    )
    return removed


def _recorded(ledger: Ledger, done: Iterable[tuple[Commit | None, Change]]) -> Iterator[Change]:
    for commit, change in done:
        if commit is not None:
            ledger.record([commit])
        yield change


def _scrub_command(store: Store, info: CorpusInfo, removal: Removal) -> Iterator[Change]:
    """The command on record may name a source, by its address or as it was typed."""
    command = without_names(info.created_by, removal)
    if command != info.created_by:
        with changed_file(store, layout.CORPUS, 0) as change:
            replace(info, created_by=command).write(store)
        yield change.made()


def _rewrite_shards(
    store: Store,
    selection: str,
    ids: pa.Array,
    removed: Removed,
    *,
    all_exported: bool,
) -> Removed:
    """Tars, then what was encoded of them, then the index and the manifest."""
    for shard in without_clips(store, selection, ids):
        removed = removed.advance(shard.changes, media_sha256=shard.media_sha256)
    state = shards_state(store, selection)
    if state is None:
        return removed
    removed = removed.advance(drop_latents(store, selection))
    if not state.num_generations:  # an export that was never finished has no index yet
        return removed
    with (
        changed_file(store, layout.shard_index(selection), 0) as index,
        changed_file(store, layout.shard_manifest(selection), 0) as manifest,
    ):
        finish_shards(store, selection, all_exported=all_exported)
    return removed.advance(
        change.made() for change in (index, manifest) if change.after != change.before
    )


def _rewrite_report(store: Store, info: CorpusInfo, selection: str) -> Iterator[Change]:
    """The page, its numbers and its galleries anew, of what the selection was made from.

    One that cannot be written goes, and what brings it back is said: nothing that has to do with a later run
    keeps a takedown from its end.
    """
    before = {
        name: sha256_of(store, name)
        for name in store.files(layout.report(selection), recursive=True)
    }
    for name in before:
        store.delete(name)
    try:
        rewrite_report(store, info, selection, ReportConfig())
    except CorpusError as error:
        logger.warning(
            "the report of selection %s was deleted, for it cannot be written without what was removed: %s; "
            "after `lavie select %s --name %s` with its rules, `lavie report %s --selection %s` writes it",
            *(selection, error, store.root, selection, store.root, selection),
        )
    for name, digest in before.items():
        after = sha256_of(store, name) if store.exists(name) else None
        if after != digest:
            yield Change(file=name, num_removed=0, sha256_before=digest, sha256_after=after)
