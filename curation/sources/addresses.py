"""Addresses that stand in the rows of a list: made absolute, or the reason why one cannot be used.

A row is a stranger's text. It may name a file, an object, or what a public web server holds, and nothing
else: not how a store is reached, not with which name or key. That the run's own environment says.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import pyarrow as pa

from curation.sources.hub import repository
from curation.sources.uris import SCHEMES, WITH_CREDENTIALS, redacted, spelled_out, uri_of
from curation.sources.web.addresses import is_web, web_address

BAD_ADDRESS = "bad_address"
BAD_ROW = "bad_row"
ROW_MARK = "#row-"
"""Between the name of a list and the number of a row that has no address of its own."""
MAX_CHARACTERS = 4096
"""Linux's longest path; keys of object stores have at most 1,024 bytes."""
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_BUCKET = re.compile(r"[A-Za-z0-9._-]+\Z")
_UNTIDY = re.compile(r"/(?:\.{0,2})(?:/|\Z)")


def address_columns(
    cells: Sequence[Any],
    *,
    numbers: Sequence[int],
    faults: Sequence[str | None],
    folder: str,
    name: str,
) -> tuple[pa.Array, pa.Array, pa.Array]:
    """Columns `uri`, `listing_reject` and `listing_reject_detail` of a list's rows.

    A row without a usable address gets one of its own, "<list>#row-<number>", so that it stays a row.

    Args:
        cells: what stands under 'uri'.
        numbers: of the rows, from 1.
        faults: why a row could not be read; null where it could.
        folder: of the list, from which relative paths are taken.
        name: of the list, fit to be shown.
    """
    uris: list[str] = []
    rejects: list[str | None] = []
    details: list[str | None] = []
    for cell, number, fault in zip(cells, numbers, faults, strict=True):
        reason, detail = BAD_ROW, fault
        if fault is None:
            reason = BAD_ADDRESS
            uri, detail = _address(cell, folder)
        is_bad = detail is not None
        uris.append(f"{name}{ROW_MARK}{number}" if is_bad else uri)
        rejects.append(reason if is_bad else None)
        details.append(detail)
    return (
        pa.array(uris, pa.string()),
        pa.array(rejects, pa.string()),
        pa.array(details, pa.string()),
    )


def _address(cell: Any, folder: str) -> tuple[str, str | None]:
    """The absolute address of one cell, or what is wrong with it."""
    if cell is None or (isinstance(cell, float) and cell != cell):
        return "", "the row has no address"
    if isinstance(cell, bytes):
        try:
            cell = cell.decode()
        except UnicodeDecodeError:
            return _foreign_bytes(cell, folder)
    if not isinstance(cell, str):
        return "", f"the address is no text but {type(cell).__name__}"
    text = cell.strip()
    fault = _fault(text)
    if fault is not None:
        return "", fault
    try:
        text = spelled_out(text)
    except ValueError as error:
        return "", str(error)
    if is_web(text):
        return web_address(text)
    scheme = _SCHEME.match(text)
    if scheme is None:
        return _absolute(text, folder), None
    if scheme.group(1).lower() == "file":
        return file_address(text)
    return _remote(text, scheme.group(1).lower())


def _foreign_bytes(cell: bytes, folder: str) -> tuple[str, str | None]:
    """A local file's name in another encoding: its bytes are kept."""
    name = cell.strip()
    if b"://" in name or "://" in folder:
        return "", "the address is not UTF-8"
    return uri_of(Path(os.fsdecode(os.path.join(os.fsencode(folder), name)))), None


def _fault(text: str) -> str | None:
    if not text:
        return "the row has no address"
    if len(text) > MAX_CHARACTERS:
        return f"the address has {len(text):,} characters, more than any file or object"
    if "\0" in text:
        return "the address holds a NUL character"
    if any("\ud800" <= character <= "\udfff" for character in text):
        return "the address holds half a character (a lone surrogate)"
    if not is_web(text) and re.match(WITH_CREDENTIALS, text):
        return "the address carries a user name, a password or a key; set them in the environment"
    return None


def file_address(text: str) -> tuple[str, str | None]:
    """The address of what a ``file://`` URI (RFC 8089) names, or what is wrong with it.

    One film has one address, however it is written.
    """
    host, slash, path = text.split("://", 1)[1].partition("/")
    if host.lower() not in ("", "localhost") or not path:
        return "", f"{text[:200]!r} names no file on this machine (file:///path does)"
    raw = unquote_to_bytes(slash + path)
    if b"\0" in raw:
        return "", "the address holds a NUL character"
    return uri_of(Path(_absolute(os.fsdecode(raw), "/"))), None


def _remote(text: str, scheme: str) -> tuple[str, str | None]:
    """An address in a store; what it may say is a bucket and a key."""
    if scheme not in SCHEMES:
        return (
            "",
            f"{scheme}:// is not a store that sources may lie in (s3://, gs:// and hf:// are)",
        )
    bucket, _, key = text.split("://", 1)[1].partition("/")
    if not _BUCKET.match(bucket.split("?")[0]) or not key:
        return "", f"{redacted(text)[:200]!r} names no bucket and key"
    if "?" in text:
        return "", (
            "a row may not say how its store is reached (what stands behind '?'); "
            "the run's environment does, such as AWS_ENDPOINT_URL"
        )
    if scheme == "hf":
        try:
            repository(text)
        except ValueError as error:
            return "", str(error)
    return f"{scheme}://{bucket}/{key}", None


def _absolute(path: str, folder: str) -> str:
    """A path from the list's folder; '.' and '..' in it are followed where it lies on disk."""
    joined = path if path.startswith("/") else f"{folder}/{path}"
    if "://" in folder and not path.startswith("/"):
        scheme, rest = joined.split("://", 1)
        return f"{scheme}://{os.path.normpath(rest)}" if _UNTIDY.search(rest) else joined
    if not _UNTIDY.search(joined):
        return joined
    return os.path.join(os.path.realpath(os.path.dirname(joined)), os.path.basename(joined))
