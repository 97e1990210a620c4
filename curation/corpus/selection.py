"""Read a selection: the verdicts of `lavie select`, only if it was finished."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from curation.corpus import layout
from curation.corpus.gap import Gap, find_gap
from curation.corpus.ledger import Ledger
from curation.corpus.manifest import CorpusInfo, unsealed
from curation.corpus.parts import read_table
from curation.corpus.schema import SELECTION
from curation.corpus.store import Store
from curation.errors import MissingPart, NothingThere, TornPart

RULES = "rules.json"
"""Written last: its presence says that the selection is whole."""
FUNNEL = "funnel.json"


_LATER = ("cluster", "cluster_distance", "semantic_duplicate_of", "caption_count", "split")
"""Columns that verdicts of an earlier program lack; null there."""


def read_rules(store: Store, name: str) -> dict[str, Any]:
    """The effective configuration of a selection, and the layers that it read.

    Raises:
        CorpusError: if there is no finished selection of this name.
        TornPart: if a byte of the file has changed.
    """
    path = f"{layout.selection(name)}/{RULES}"
    try:
        data = store.read(path)
    except FileNotFoundError as error:
        raise NothingThere(
            f"{store.root} holds no finished selection {name!r}; `lavie select` makes one"
        ) from error
    try:
        return unsealed(data, f"{store.root}/{path}")
    except TornPart as error:
        raise TornPart(
            f"{error}; `lavie verify --repair` makes it again if shards of this name have its rules on "
            f"record, else run `lavie select --name {name}` again with its rules"
        ) from error


def read_funnel(store: Store, name: str) -> dict[str, Any]:
    """The counts of a selection.

    Raises:
        CorpusError: if there is no finished selection of this name.
        TornPart: if a byte of the file has changed, or it is gone.
    """
    read_rules(store, name)
    path = f"{layout.selection(name)}/{FUNNEL}"
    try:
        data = store.read(path)
    except FileNotFoundError as error:
        raise TornPart(
            f"{store.root}/{path}: missing; `lavie verify --repair` makes it again"
        ) from error
    return unsealed(data, f"{store.root}/{path}")


def selected_parts(store: Store, info: CorpusInfo, name: str) -> list[int]:
    """Numbers of the parts that a selection has verdicts on, for whoever reads their clips too.

    Parts that were not complete when it was made are not among them.

    Args:
        store: the corpus.
        info: its contents.
        name: of the selection.

    Raises:
        CorpusError: if there is no finished selection of this name.
        MissingPart: if the corpus has parts that came later, or one of these is not complete any more.
    """
    of_selection = Gap.of_selection(read_rules(store, name))
    if later := info.num_parts - of_selection.num_parts:
        raise MissingPart(
            f"selection {name!r} of {store.root} lacks {later} parts that came later: `lavie select "
            f"{store.root} --name {name}` with its rules takes them in"
        )
    parts = of_selection.complete
    now = find_gap(Ledger(store), info)
    if now.numbers.intersection(parts):
        raise MissingPart(
            f"selection {name!r} of {store.root} has verdicts on parts that are not complete now, as a run "
            f"over them has not ended or has failed: {now}. Run the same `lavie curate` again, or `lavie "
            f"select {store.root} --name {name}` with its rules, which leaves them out until then"
        )
    return parts


def read_verdicts(
    store: Store,
    name: str,
    part: int,
    columns: Iterable[str] | None = None,
    *,
    clip_ids: pa.ChunkedArray | None = None,
) -> pa.Table:
    """Verdicts on one part's clips, in the order of the scenes layer; check `read_rules` first.

    Args:
        store: the corpus.
        name: of the selection.
        part: number of the part.
        columns: names of `SELECTION`; all if not given.
        clip_ids: of the part's clips, to compare row by row, for whoever lays verdicts beside clips.

    Raises:
        MissingPart: if the selection lacks this part.
        TornPart: if the file is damaged, or its rows are not those of the clips.
    """
    place = f"{layout.selection(name)}/{layout.part_file(part)}"
    wanted = [column.name for column in SELECTION] if columns is None else list(columns)
    if clip_ids is None:
        return _with_later_columns(read_table(store, place, wanted, later=_LATER), wanted)
    verdicts = read_table(store, place, dict.fromkeys(("clip_id", *wanted)), later=_LATER)
    if not verdicts["clip_id"].equals(clip_ids):
        raise TornPart(
            f"{store.root}/{place}: its rows are not those of the scenes layer; "
            "run `lavie select` again"
        )
    return _with_later_columns(verdicts, wanted)


def _with_later_columns(verdicts: pa.Table, wanted: list[str]) -> pa.Table:
    """The columns asked for, null where an earlier program wrote none."""
    for column in SELECTION:
        if column.name in _LATER and column.name not in verdicts.column_names:
            nulls = pa.nulls(verdicts.num_rows, column.type)
            verdicts = verdicts.append_column(column.field, nulls)
    return verdicts.select(wanted)


def verdicts_digest(store: Store, name: str) -> str:
    """The sha256 over a selection's parts, one behind the other: what shards say they were made from.

    Raises:
        CorpusError: if there is no finished selection of this name.
    """
    on_record = read_rules(store, name).get("verdicts_sha256")
    if on_record is not None:
        return str(on_record)
    digest = hashlib.sha256()
    for path in verdict_parts(store, name):
        digest.update(store.read(path))
    return digest.hexdigest()


def verdict_parts(store: Store, name: str) -> list[str]:
    """Paths of a selection's parts, in the order of their numbers."""
    paths = (path for path in store.files(layout.selection(name)) if path.endswith(".parquet"))
    return sorted(paths, key=lambda path: (len(path), path))
