"""A file of the record of committed parts.

Two lines of JSON: version, and sha256 of the second line; and what is known of the parts, column by column.
With an entry of its own for each part, 100,000 of them took ten seconds a folder to read; so, half a second.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from curation.corpus.manifest import unsealed
from curation.errors import TornPart

_FORMAT_VERSION = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is known of one committed part."""

    sha256: str
    """Of the file."""
    size_bytes: int
    """Of the file."""
    num_rows: int
    """Rows of the table."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Of probe, scenes and captions: how often each value, as "source_reject=not_found" (nothing after
    "=" for null); of scenes also "duration_ms", the sum over its clips."""
    again: bool = False
    """Whether the part is to be made anew."""


def record_file(records: Mapping[int, Record]) -> bytes:
    """Two lines of JSON: version and digest; and the records by columns."""
    parts = sorted(records)
    ordered = [records[part] for part in parts]
    counted = sorted({name for record in ordered for name in record.counts})
    columns = {
        "part": parts,
        "sha256": [record.sha256 for record in ordered],
        "size_bytes": [record.size_bytes for record in ordered],
        "num_rows": [record.num_rows for record in ordered],
        "again": [part for part in parts if records[part].again],
        "counts": {name: [record.counts.get(name) for record in ordered] for name in counted},
    }
    body = json.dumps(columns, separators=(",", ":")).encode()
    head = {"format_version": _FORMAT_VERSION, "sha256": hashlib.sha256(body).hexdigest()}
    return b"%s\n%s\n" % (json.dumps(head).encode(), body)


def read_record_file(data: bytes, name: str) -> dict[int, Record]:
    """What `record_file` was given.

    Args:
        data: the file.
        name: what to call it in an error.

    Raises:
        TornPart: if these are not the bytes that were written.
    """
    if data.startswith(b"{\n"):  # version 1: a sealed file with an entry a part
        content = unsealed(data, name)
        if content.get("format_version") != 1:
            raise TornPart(f"{name}: not a record of committed parts that this program reads")
        return {int(part): Record(**entry) for part, entry in content["parts"].items()}
    first, _, rest = data.partition(b"\n")
    body = rest.removesuffix(b"\n")
    head = {"format_version": _FORMAT_VERSION, "sha256": hashlib.sha256(body).hexdigest()}
    if first != json.dumps(head).encode() or rest != body + b"\n":
        raise TornPart(f"{name}: its bytes are not those that were written")
    return _by_part(json.loads(body))


def _by_part(columns: Mapping[str, Any]) -> dict[int, Record]:
    parts, again = columns["part"], frozenset(columns["again"])
    counts: list[dict[str, int]] = [{} for _ in parts]
    for name, numbers in columns["counts"].items():
        for of_part, number in zip(counts, numbers, strict=True):
            if number is not None:
                of_part[name] = number
    rows = zip(
        parts, columns["sha256"], columns["size_bytes"], columns["num_rows"], counts, strict=True
    )
    return {
        part: Record(
            sha256=sha256, size_bytes=size, num_rows=num, counts=counted, again=part in again
        )
        for part, sha256, size, num, counted in rows
    }
