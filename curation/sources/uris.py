"""How a source is named: what a URI may be, which path it means, what of it may be shown."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs

from curation.corpus.schema import SOURCES, schema
from curation.sources.hub import hub, repository
from curation.sources.web.addresses import is_web, web_address

VIDEO_SUFFIXES = frozenset(
    (
        *(".mp4", ".m4v", ".mov", ".qt", ".3gp", ".mkv", ".webm", ".avi", ".ts", ".m2ts", ".mts"),
        *(
            ".mpg",
            ".mpeg",
            ".vob",
            ".flv",
            ".f4v",
            ".wmv",
            ".asf",
            ".ogv",
            ".ogg",
            ".mxf",
            ".dv",
            ".y4m",
        ),
    )
)
IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp"))

SCHEMES = ("s3", "gs", "hf")
"""Stores that sources may lie in, by scheme."""

_WITHOUT_SLASHES = re.compile(
    r"(?i)(file|s3|gs|https?|ftp|hf|data|blob|concat|subfile|pipe|cache|crypto):(?!//)"
)
"""URIs without '//', and libav's protocols: as names of files they are mistakes, or tricks."""

WITH_CREDENTIALS = (
    r"(?i)^[a-z0-9+.-]+://([^/]*@|[^?]*\?.*(key|secret|token|password|signature|credential))"
)
"""URIs with a user name, or with a query that names a secret; RE2 and Python read it alike."""


def spelled_out(address: str) -> str:
    """``file:/x`` as ``file:///x``, for which it is short (RFC 8089, as Java writes it); others as they are.

    Raises:
        ValueError: for another scheme without its '//'.
    """
    if re.match(r"(?i)file:/(?!/)", address):
        return "file://" + address[len("file:") :]
    if other := _WITHOUT_SLASHES.match(address):
        raise ValueError(f"{other[1]}: without '//' names no file and no object")
    return address


def check_uri(uri: str) -> None:
    """Refuse unknown schemes and credentials with a `ValueError`."""
    if is_web(uri):
        if fault := web_address(uri)[1]:
            raise ValueError(f"{redacted(uri)!r}: {fault}")
        return
    scheme = uri.split("://")[0] if "://" in uri else "file"
    if scheme not in (*SCHEMES, "file"):
        raise ValueError(
            "sources may lie on disk, in s3://, gs:// and hf:// stores, or on http:// and https:// "
            f"servers, got {redacted(uri)!r}"
        )
    if re.match(WITH_CREDENTIALS, uri):
        raise ValueError(
            f"a URI must not carry credentials, got {redacted(uri)!r}; set them in the environment "
            "(AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, GOOGLE_APPLICATION_CREDENTIALS, or HF_TOKEN)"
        )
    if scheme == "hf":
        repository(uri)
    if scheme != "file" and re.search(r"\?[A-Za-z_]+=", uri):
        raise ValueError(
            f"a URI must not say how its store is reached, got {redacted(uri)!r} and a query; set it in "
            "the environment (AWS_ENDPOINT_URL, AWS_DEFAULT_REGION)"
        )


def opened_store(uri: str) -> tuple[pafs.FileSystem, str]:
    """The store of an s3://, gs:// or hf:// address, and the place in it.

    Only scheme and bucket are given to pyarrow: it would take what stands behind a '?' as settings of
    the connection (which server, which key), and an address may be a stranger's text. How a store is
    reached is for the run's own environment to say.
    """
    scheme, rest = uri.split("://", 1)
    bucket, _, key = rest.partition("/")
    if not re.fullmatch(r"[A-Za-z0-9._-]+", bucket):
        raise ValueError(f"{redacted(uri)!r} names no bucket")
    if scheme == "hf":
        return hub(), f"{bucket}/{key}".rstrip("/")
    filesystem, root = pafs.FileSystem.from_uri(f"{scheme}://{bucket}")
    return filesystem, f"{root.rstrip('/')}/{key}".rstrip("/")


def redacted(text: str) -> str:
    """``text`` without user names, passwords and query strings of the URIs in it."""
    return re.sub(
        r"(?i)(\b[a-z0-9+.-]+://)(?:[^/@\s'\"]*@)?([^?\s'\"]*)(\?[^\s'\"]*)?", r"\1\2", text
    )


def uri_of(path: Path) -> str:
    """The path as text; a ``file://`` URI for names that are not UTF-8, which Arrow cannot hold."""
    raw = os.fsencode(path)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "file://" + quote_from_bytes(raw)


def local_path(uri: str) -> Path:
    """The path that a path or ``file://`` URI names."""
    if uri.startswith("file://"):
        return Path(os.fsdecode(unquote_to_bytes(uri.removeprefix("file://"))))
    return Path(uri)


def media_of(name: str) -> str | None:
    """'video' or 'image' by the suffix; None for neither."""
    suffix = os.path.splitext(name)[1].lower()
    return "video" if suffix in VIDEO_SUFFIXES else "image" if suffix in IMAGE_SUFFIXES else None


def source_rows(
    uris: pa.Array, *, sizes: pa.Array | None = None, given: dict[str, pa.Array] | None = None
) -> pa.Table:
    """Rows of the sources layer; what is not known is null."""
    images = "|".join(sorted(suffix[1:] for suffix in IMAGE_SUFFIXES))
    is_image = pc.match_substring_regex(uris, rf"(?i)\.({images})(\?|$)")
    columns = {
        "uri": uris,
        "media": pc.if_else(is_image, "image", "video"),
        "size_bytes": sizes,
        **(given or {}),
    }
    absent = {field.name: pa.nulls(len(uris), field.type) for field in schema(SOURCES)}
    absent["given_captions"] = pa.array([[]] * len(uris), absent["given_captions"].type)
    filled = {name: array for name, array in columns.items() if array is not None}
    return pa.table(absent | filled, schema=schema(SOURCES))
