"""Rejected sources by name: all of them in a file beside the page, some of each reason on the page."""

from __future__ import annotations

import csv
import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow.compute as pc

from curation.corpus.manifest import CorpusInfo
from curation.corpus.parts import read_sources
from curation.corpus.scratch import scratch_folder
from curation.corpus.store import Store
from curation.report.text import cut_text, safe_command, safe_uri

COLUMNS = ("uri", "reason", "detail")
SHOWN_PER_REASON = 20
"""Names on the page; there are some fifteen reasons, and the file has every name."""
MAX_URI_CHARS = 4096
MAX_DETAIL_CHARS = 300

Reject = dict[str, str]
"""`COLUMNS` of one source."""


def write_rejects(
    store: Store, info: CorpusInfo, parts: Sequence[int], path: str
) -> tuple[dict[str, list[Reject]], dict[str, Any]]:
    """Write a CSV with every rejected source, in the order of the corpus.

    It is written where nothing was rejected too, with its header alone: a file of an earlier report
    must not stay.

    Args:
        store: the corpus.
        info: its corpus.json.
        parts: numbers of the parts that are reported on.
        path: of the file, relative to the corpus.

    Returns:
        Reason -> the first `SHOWN_PER_REASON` of its sources; and sha256 and length of the file.
    """
    shown: dict[str, list[Reject]] = defaultdict(list)
    with scratch_folder("lavie-report-") as scratch:
        local = scratch / "rejects.csv"
        # A million names are too many to hold, so they go through a file.
        with local.open("w", encoding="utf-8", newline="") as file:
            out = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            out.writeheader()
            for reject in _rejects(store, info, parts):
                out.writerow(reject)
                if len(shown[reject["reason"]]) < SHOWN_PER_REASON:
                    shown[reject["reason"]].append(reject)
        with local.open("rb") as data:
            digest = hashlib.file_digest(data, "sha256").hexdigest()
        entry = {"sha256": digest, "size_bytes": local.stat().st_size}
        store.put_file(path, local)
    return dict(shown), entry


def _rejects(store: Store, info: CorpusInfo, parts: Sequence[int]) -> Iterator[Reject]:
    for part in parts:
        columns = ["uri", "source_reject", "source_reject_detail"]
        sources = read_sources(store, info.layers, part, columns)
        for row in sources.filter(pc.is_valid(sources["source_reject"])).to_pylist():
            yield {
                "uri": cut_text(safe_uri(row["uri"]), MAX_URI_CHARS),
                "reason": row["source_reject"],
                "detail": cut_text(
                    safe_command(row["source_reject_detail"] or ""), MAX_DETAIL_CHARS
                ),
            }
