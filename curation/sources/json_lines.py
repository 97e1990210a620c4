"""A file of JSON objects, one a line, in which any line may be something else."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from curation.sources.cells import LINES_NOT_UTF8, decoded

_BLOCK_BYTES = 1024**2


def read_objects(
    file: pa.NativeFile, counts: dict[str, int]
) -> Iterator[tuple[int, dict[str, Any], str | None]]:
    """The lines of a file, blank ones left out.

    Args:
        file: from its start.
        counts: of what was odd, by what it was; added to.

    Yields:
        The line's number from 1, its object (empty where it is none), and why it is none.
    """
    buffered = io.BufferedReader(file, _BLOCK_BYTES)
    if buffered.peek(2)[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = io.TextIOWrapper(buffered, "utf-16", "replace", newline="\n")
        lines: Iterator[bytes] = (line.encode(errors="replace") for line in text)
    else:
        lines = iter(buffered)
    for number, line in enumerate(lines, start=1):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line.strip():
            continue
        content, fault = _object(line, counts)
        yield number, content, fault


def _object(line: bytes, counts: dict[str, int]) -> tuple[dict[str, Any], str | None]:
    """What one line holds."""
    try:
        content = json.loads(decoded(line, counts, what=LINES_NOT_UTF8))
    except RecursionError:
        return {}, "the line is no JSON (nested too deeply)"
    except ValueError as error:
        return {}, f"the line is no JSON ({error})"[:200]
    if not isinstance(content, dict):
        return {}, f"the line is no JSON object but {type(content).__name__}"
    return content, None
