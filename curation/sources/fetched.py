"""The bytes of one source: a regular local file, hashed, for as long as they are needed."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import socket
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tenacity import (
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    stop_after_delay,
    wait_random_exponential,
)

from curation.corpus.store import OUTAGE_S, is_remote
from curation.errors import BadSource, MachineFault, StoreUnavailable, machine_fault
from curation.media.probe import open_regular
from curation.sources.hub import repository
from curation.sources.seen import holds_something
from curation.sources.uris import SCHEMES, local_path, opened_store, redacted
from curation.sources.web import FromWeb, WebClient, is_web

_BLOCK_BYTES = 4 * 1024**2
_FETCH_PREFIX = ".fetching-"

_ASK_AGAIN_S = 10.0
_DOWN = re.compile(r"HTTP status (5\d\d|429)|SLOW_DOWN|NETWORK_CONNECTION|UNAVAILABLE|THROTTL")
"""In an error of pyarrow's stores: not an answer about this object."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A source as a local regular file."""

    path: Path
    """Where it lies; a scratch file for sources in object stores, gone afterwards."""
    file: BinaryIO
    """The same, open, at its start: hand this on, since a path may come to name something else."""
    sha256: str
    """Digest of the bytes."""
    size_bytes: int
    """Their number."""
    from_web: FromWeb | None = None
    """What the web server said beside them; None for sources from elsewhere."""


@contextlib.contextmanager
def fetched(
    uri: str,
    *,
    max_bytes: int,
    scratch: Path,
    outage_s: float = OUTAGE_S,
    web: WebClient | None = None,
) -> Iterator[Fetched]:
    """The bytes of one source, local and hashed, for as long as the context lasts.

    Args:
        uri: as in the sources layer.
        max_bytes: larger ones are refused before they are read.
        scratch: existing folder for copies of remote sources.
        outage_s: seconds to wait for a store that answers nobody.
        web: asks web servers; by its default settings if it is not given.

    Raises:
        BadSource: 'not_found', 'not_regular', 'empty', 'too_large' or 'unreadable'; of what web servers
            hold, any reason of `WebClient.fetch`.
        MachineFault: this machine cannot hold the copy: its disk is full, for example.
        StoreUnavailable: the store did not answer for `outage_s`.
    """
    if not is_remote(uri):
        with _opened(local_path(uri)) as file:
            size_bytes = _check_size(os.fstat(file.fileno()).st_size, max_bytes)
            digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
            file.seek(0)
            yield Fetched(local_path(uri), file, digest, size_bytes)
        return
    suffix = os.path.splitext(uri.split("?")[0])[1]
    with tempfile.NamedTemporaryFile(dir=scratch, prefix=_FETCH_PREFIX, suffix=suffix) as copy:
        from_web = None
        if is_web(uri):
            client = WebClient() if web is None else web
            sha256, from_web = client.fetch(uri, copy, max_bytes=max_bytes)  # type: ignore[arg-type]
        else:
            sha256 = _download(uri, copy, max_bytes, outage_s)  # type: ignore[arg-type]
        size_bytes = copy.tell()
        copy.seek(0)
        yield Fetched(Path(copy.name), copy, sha256, size_bytes, from_web)  # type: ignore[arg-type]


def _opened(path: Path) -> BinaryIO:
    """`open_regular`, which says of a file that is not there whether its folder is."""
    try:
        return open_regular(path)
    except BadSource as error:
        if error.reason != "not_found" or holds_something(path.parent):
            raise
        what = "is empty" if path.parent.is_dir() else "does not exist either"
        raise BadSource(
            "not_found",
            f"{error.detail}, and its folder {path.parent} {what} on {socket.gethostname()}: a wrong path in "
            "a list, or a folder that is not mounted",
        ) from error


def _check_size(size_bytes: int, max_bytes: int) -> int:
    if size_bytes == 0:
        raise BadSource("empty", "0 bytes")
    if size_bytes > max_bytes:
        raise BadSource("too_large", f"{size_bytes} bytes, the limit is {max_bytes}")
    return size_bytes


def _download(uri: str, target: BinaryIO, max_bytes: int, outage_s: float) -> str:
    """Copy a remote object, again from its start after a fault; returns its sha256."""
    scheme = uri.split("://")[0]
    if scheme not in SCHEMES:
        raise BadSource("unreadable", f"{scheme}:// is not a store that sources may lie in")
    deadline_s = time.monotonic() + outage_s
    while True:
        attempts = Retrying(
            retry=retry_if_exception(_is_passing),
            # With 10 % faulty requests, one in a million sources fails; one that is not answered at all
            # takes 100 s by itself.
            stop=stop_after_attempt(6) | stop_after_delay(outage_s),
            wait=wait_random_exponential(multiplier=0.2, max=10),
            reraise=True,
        )
        try:
            return attempts(_download_once, uri, target, max_bytes)
        except FileNotFoundError as error:
            raise BadSource("not_found", "the store has no such object") from error
        except OSError as error:
            if fault := machine_fault(error):
                place = os.path.dirname(target.name)
                raise MachineFault(f"copying {redacted(uri)} to {place}: {fault}") from error
            seen = redacted(str(error))[:300]
            if _answers(uri):
                raise BadSource("unreadable", seen) from error
            if time.monotonic() > deadline_s:
                raise StoreUnavailable(
                    f"{redacted(uri)}: the store gave errors to every request for {outage_s:.0f} s "
                    f"({seen}). See that it can be reached from the workers, and run the same "
                    "command again: what is committed stays"
                ) from error
        time.sleep(min(_ASK_AGAIN_S, outage_s))


def _answers(uri: str) -> bool:
    """Whether the store says anything of the bucket, be it a refusal: then it is not down."""
    try:
        filesystem, path = opened_store(uri)
        of_hub = uri.startswith("hf://")  # which knows no place above its repositories
        filesystem.get_file_info(repository(uri) if of_hub else path.split("/")[0])
    except OSError as error:
        return not _DOWN.search(str(error))
    return True


def _is_passing(error: BaseException) -> bool:
    """Tell a passing fault of a store from an answer that will not change."""
    final = isinstance(error, FileNotFoundError | PermissionError) or "ACCESS_DENIED" in str(error)
    return isinstance(error, OSError) and not final and machine_fault(error) is None


def _download_once(uri: str, target: BinaryIO, max_bytes: int) -> str:
    target.seek(0)
    target.truncate()
    digest = hashlib.sha256()
    filesystem, path = opened_store(uri)
    with filesystem.open_input_file(path) as source:
        expected = _check_size(source.size(), max_bytes)
        while block := source.read(_BLOCK_BYTES):
            digest.update(block)
            target.write(block)
    target.flush()
    if target.seek(0, io.SEEK_END) != expected:
        raise OSError(f"the store sent {target.tell()} of {expected} bytes")
    return digest.hexdigest()
