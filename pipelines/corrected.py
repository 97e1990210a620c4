"""Rows of lists that could not be used, and that stand otherwise in their list now.

Such a row is a rejected source under the name of its list and its number. Once the list was corrected in its
place, the film is a source of its own, and the old row says that it is superseded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.corpus import layout
from curation.corpus.known_sources import KnownSources
from curation.corpus.ledger import Ledger, commit_part
from curation.corpus.parts import read_table, with_rows
from curation.sources import row_prefixes

SUPERSEDED = "superseded"
_DETAIL = "its list has another row in this place now, or none"

Rejects = Mapping[str, tuple[str, str]]
"""Address of a row -> reason and detail."""


def supersede_rows(
    ledger: Ledger, specs: Sequence[str], listed: pa.Table, known: KnownSources
) -> int:
    """Bring bad rows of lists up to what the lists say now; returns how many were superseded.

    Args:
        ledger: of the corpus.
        specs: sources as they were typed.
        listed: all rows that they name.
        known: sources of the corpus.
    """
    prefixes = row_prefixes(specs)
    if not prefixes:
        return 0
    bad = listed.filter(pc.is_valid(listed["listing_reject"]))
    columns = (bad[name].to_pylist() for name in ("listing_reject", "listing_reject_detail"))
    now = dict(zip(bad["uri"].to_pylist(), zip(*columns, strict=True), strict=True))
    is_row = pa.array(np.zeros(known.table.num_rows, bool))
    for prefix in prefixes:
        is_row = pc.or_(is_row, pc.starts_with(known.table["uri"], prefix))
    parts = sorted(pc.unique(known.table["part"].filter(is_row)).to_pylist())
    num_superseded = sum(_update_part(ledger, part, prefixes, now) for part in parts)
    ledger.flush()
    return num_superseded


def _update_part(ledger: Ledger, part: int, prefixes: tuple[str, ...], now: Rejects) -> int:
    sources = read_table(ledger.store, layout.sources(part))
    told = {
        row: now.get(uri, (SUPERSEDED, _DETAIL))
        for row, uri in enumerate(sources["uri"].to_pylist())
        if uri.startswith(prefixes)
    }
    before = sources["listing_reject"].to_pylist()
    changed = {row: told[row] for row in told if before[row] != told[row][0]}
    if changed:
        # The probe first: the sources tell the next run whether there is anything to do.
        for layer_id in ledger.store.folders(layout.LAYERS):
            if layer_id.startswith("probe@") and ledger.store.exists(layout.layer(layer_id, part)):
                _put(ledger, layout.layer_folder(layer_id), part, "source_reject", changed)
        _put(ledger, layout.SOURCES, part, "listing_reject", changed)
    return sum(reason == SUPERSEDED for reason, _ in changed.values())


def _put(
    ledger: Ledger, folder: str, part: int, column: str, rejects: Mapping[int, tuple[str, str]]
) -> None:
    """Write a part with other reasons in some rows; nothing that was made of it depends on them."""
    table = read_table(ledger.store, f"{folder}/{layout.part_file(part)}")
    rows = np.array(sorted(rejects), np.int64)
    values = [
        {**value, column: rejects[row][0], f"{column}_detail": rejects[row][1]}
        for row, value in zip(rows.tolist(), table.take(pa.array(rows)).to_pylist(), strict=True)
    ]
    ledger.record([commit_part(ledger.store, folder, part, with_rows(table, rows, values))])
