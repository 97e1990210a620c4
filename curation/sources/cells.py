"""Cells of a list as texts: whatever stands there, as it stands, as text that Arrow can hold."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

NOT_UTF8 = "cells hold bytes that are not UTF-8 and were read as Windows-1252"
LINES_NOT_UTF8 = "lines hold bytes that are not UTF-8 and were read as Windows-1252"
LONE_SURROGATES = "cells hold halves of characters, written as U+FFFD"
_SURROGATE = re.compile("[\ud800-\udfff]")


def one_line(text: str, num_chars: int) -> str:
    """The beginning of what stands in a list, fit for a terminal: what cannot be printed is escaped."""
    shown = "".join(
        c if c.isprintable() and c != "\ufffd" else ascii(c)[1:-1] for c in text[:num_chars]
    )
    return shown[:num_chars] + ("..." if len(shown) > num_chars or len(text) > num_chars else "")


def as_list(cells: Any) -> list[Any]:
    """The cells of a column, in whatever form it comes."""
    return cells.to_pylist() if isinstance(cells, pa.Array | pa.ChunkedArray) else list(cells)


def texts(cells: Any, counts: dict[str, int]) -> pa.Array:
    """A column as texts without surrounding blanks; empty ones are null.

    Args:
        cells: an Arrow column of any type, or a list of anything.
        counts: of what was odd, by what it was; added to.
    """
    fast = _as_strings(cells)
    if fast is not None:
        trimmed = pc.utf8_trim_whitespace(fast)
        return pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, pa.string()), trimmed)
    return pa.array([as_text(cell, counts) for cell in as_list(cells)], pa.string())


def captions_of(cells: Any, counts: dict[str, int]) -> pa.Array:
    """A column of captions as lists of texts: a cell may hold one, or a list of several."""
    fast = _as_strings(cells)
    if fast is not None:
        found = texts(cells, counts)
        lengths = pc.cast(pc.is_valid(found), pa.int32())
        offsets = pa.concat_arrays([pa.array([0], pa.int32()), pc.cumulative_sum(lengths)])
        return pa.ListArray.from_arrays(offsets, found.drop_null())
    rows = []
    for cell in as_list(cells):
        several = cell if isinstance(cell, list) else [cell]
        rows.append([text for one in several if (text := as_text(one, counts)) is not None])
    return pa.array(rows, pa.list_(pa.string()))


def _as_strings(cells: Any) -> pa.Array | None:
    """A column of well-formed strings in one piece; None for any other."""
    if not isinstance(cells, pa.Array | pa.ChunkedArray):
        return None
    if isinstance(cells, pa.ChunkedArray):
        cells = cells.combine_chunks()
    kind = cells.type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if not is_text and not pa.types.is_binary(kind):
        return None
    try:
        strings = cells.cast(pa.string())
        strings.validate(full=True)  # a Parquet file may hold anything under the name of a string
    except pa.ArrowInvalid:
        return None
    return strings


def as_text(cell: Any, counts: dict[str, int]) -> str | None:
    """One cell as text; None where it holds nothing: null, NaN, blanks."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return None
    if isinstance(cell, bytes):
        text = decoded(cell, counts)
    elif isinstance(cell, str):
        text = cell
    elif isinstance(cell, bool):
        text = "true" if cell else "false"
    elif isinstance(cell, list | dict):
        text = json.dumps(cell, ensure_ascii=False, default=str)
    else:
        text = str(cell)
    if _SURROGATE.search(text):
        counts[LONE_SURROGATES] = counts.get(LONE_SURROGATES, 0) + 1
        text = _SURROGATE.sub("\ufffd", text)
    return text.strip() or None


def decoded(data: bytes, counts: dict[str, int], *, what: str = NOT_UTF8) -> str:
    """Bytes as text: UTF-8, else Windows-1252, which is counted under ``what``."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        counts[what] = counts.get(what, 0) + 1
        return data.decode("cp1252", errors="replace")
