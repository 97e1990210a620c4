"""Small files of a corpus that carry their own digest, or lie beside one that does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from curation.corpus import layout
from curation.corpus.manifest import canonical_json, seal_of, unsealed
from curation.corpus.removal import read_removed
from curation.corpus.shards import file_fault
from curation.corpus.store import Store
from curation.errors import CorpusError, TornPart

MANIFEST = "manifest.json"
"""Of shards, and of latents."""


def faults_of_notes(store: Store) -> Iterator[tuple[str, str | None]]:
    """Notes on what is to be made anew, on suspects, on removals, and the file of all known sources.

    Yields:
        The name of each, and what is wrong with it; None where it is whole.
    """
    sealed = [*store.files(layout.AGAIN), *store.files(layout.SUSPECTS)]
    sealed += [name for name in (layout.REMOVED,) if store.exists(name)]
    for name in sealed:
        what = seal_fault(store, name)
        yield name, _unfinished(store) if what is None and name == layout.REMOVED else what
    for name in store.files(layout.SOURCES):
        if layout.is_known_sources(name):
            is_own = layout.known_sources(hashlib.sha256(store.read(name)).hexdigest()) == name
            yield name, None if is_own else "its bytes are not those that its name says"


def fault_of_facts(store: Store, selection: str) -> tuple[str, str | None] | None:
    """Of the note on what a selection's samples tell; None where there is none."""
    name = layout.shard_facts(selection)
    return (name, seal_fault(store, name)) if store.exists(name) else None


def faults_of_report(store: Store, selection: str) -> Iterator[tuple[str, str | None]]:
    """Files of a report, as its statistics.json says; as `faults_of_notes`.

    Raises:
        FileNotFoundError: if it was not finished, or was made before its files were on record.
    """
    folder, name = layout.report(selection), layout.report_statistics(selection)
    try:
        content = unsealed(store.read(name), f"{store.root}/{name}")
    except TornPart as error:
        yield name, _words(error, name)
        return
    if "files" not in content:
        raise FileNotFoundError(name)
    yield name, None
    files: dict[str, Any] = content["files"]
    for file, entry in files.items():
        yield f"{folder}/{file}", file_fault(store, f"{folder}/{file}", entry)


def seal_fault(store: Store, name: str) -> str | None:
    """What is wrong with a small file that carries its own digest; None if nothing is."""
    try:
        unsealed(store.read(name), f"{store.root}/{name}")
    except TornPart as error:
        return _words(error, name)
    return None


def _unfinished(store: Store) -> str | None:
    try:
        read_removed(store).check_finished()
    except CorpusError as error:
        return str(error)
    return None


def _words(error: TornPart, name: str) -> str:
    return str(error).partition(f"{name}: ")[2]


def read_sealed_manifest(store: Store, name: str) -> dict[str, Any]:
    """The manifest of shards or latents.

    Raises:
        FileNotFoundError: if there is none.
        TornPart: if its bytes are not those that were written.
    """
    data = store.read(name)
    try:
        content: dict[str, Any] = json.loads(data)
        is_whole = canonical_json(content) == data and content.get("digest") == seal_of(content)
    except (ValueError, AttributeError) as error:
        raise TornPart(f"{store.root}/{name}: not JSON ({error})") from error
    if not is_whole:
        raise TornPart(f"{store.root}/{name}: its bytes are not those that were written")
    return content
