"""A folder, or a prefix of an object store, with atomic puts.

A file is there whole or not at all: locally it is written beside its place, synced and renamed; object
stores make a put visible only when it is complete.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pyarrow as pa
import pyarrow.fs as pafs
from tenacity import (
    AttemptManager,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    stop_after_delay,
    wait_random_exponential,
)

from curation.corpus.waiting import waiting

TEMPORARY_PREFIX = (
    ".writing-"  # what a killed writer leaves behind; never listed, swept by the next run
)


OUTAGE_S = 300.0
"""Seconds that a store may answer nobody before it is given up; most outages are over by then."""


def _is_transient(error: BaseException) -> bool:
    """Tell a passing fault of a remote store from an answer that will not change."""
    final = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
    return isinstance(error, OSError) and not isinstance(error, final)


def _attempts() -> Retrying:
    return Retrying(
        retry=retry_if_exception(_is_transient),
        # With 10 % faulty requests, one in a million operations fails; one that is not answered at all
        # takes 100 s by itself.
        stop=stop_after_attempt(6) | stop_after_delay(OUTAGE_S),
        wait=wait_random_exponential(multiplier=0.2, max=10),
        reraise=True,
    )


class FileFacts(NamedTuple):
    """What a listing says of one file; a tuple, since a listing may have a million."""

    size_bytes: int
    """Length."""
    modified_ns: int | None
    """When it was put, by the store's clock, in nanoseconds since 1970."""

    @property
    def modified(self) -> datetime | None:
        """When it was put, to the microsecond."""
        if self.modified_ns is None:
            return None
        return datetime.fromtimestamp(self.modified_ns / 1e9, UTC)


def is_remote(uri: str) -> bool:
    """Whether ``uri`` names an object store rather than a local path."""
    return "://" in uri and not uri.startswith("file://")


@dataclass(frozen=True, slots=True)
class Store:
    """One root under which a corpus lies; all paths given to it are relative, with ``/``.

    Args:
        root: a local path, ``file://``, ``s3://`` or ``gs://`` URI (those that pyarrow's filesystems reach).
        guard: called before every write and deletion of this process, to refuse it by raising; it
            does not travel to other processes.
    """

    root: str
    guard: Callable[[], None] | None = field(default=None, repr=False, compare=False)
    _fs: pafs.FileSystem = field(init=False, repr=False, compare=False)
    _base: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if is_remote(self.root) or self.root.startswith("file://"):
            filesystem, base = pafs.FileSystem.from_uri(self.root)
        else:
            filesystem, base = pafs.LocalFileSystem(), str(Path(self.root).absolute())
        object.__setattr__(self, "_fs", filesystem)
        object.__setattr__(self, "_base", base.rstrip("/"))

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        return Store, (self.root,)

    def _allow_change(self) -> None:
        if self.guard is not None:
            self.guard()

    def _attempts(self, name: str) -> Iterator[AttemptManager]:
        """Tries of one operation; a person is told when a store does not answer."""
        if self.is_local:
            yield from _attempts()
            return
        place = re.sub(r"//[^/@]*@", "//", self.root.split("?")[0])  # without a key
        with waiting(f"{place}/{name}"):
            yield from _attempts()

    @property
    def is_local(self) -> bool:
        """Whether the root is a folder of this machine's file system."""
        return isinstance(self._fs, pafs.LocalFileSystem)

    @property
    def filesystem(self) -> pafs.FileSystem:
        """The pyarrow filesystem, for readers such as `pyarrow.dataset`; pair it with `path`."""
        return self._fs

    def path(self, name: str = "") -> str:
        """The place of ``name`` as the filesystem spells it.

        Raises:
            ValueError: if ``name`` is absolute or climbs out of the root.
        """
        parts = PurePosixPath(name).parts
        if name.startswith("/") or ".." in parts:
            raise ValueError(
                f"a name inside the store must be relative and without '..', got {name!r}"
            )
        return f"{self._base}/{name}" if name else self._base

    def read(self, name: str) -> bytes:
        """All bytes of one file.

        Raises:
            FileNotFoundError: if there is none of this name.
            OSError: if the store failed on every try.
        """
        for attempt in self._attempts(name):
            with attempt:
                return self._read_once(name)
        raise AssertionError("tenacity re-raises")

    def _read_once(self, name: str) -> bytes:
        with self._fs.open_input_file(self.path(name)) as file:
            expected = file.size()
            data: bytes = file.read()
        if len(data) != expected:
            raise OSError(f"{name}: the store sent {len(data)} of {expected} bytes")
        return data

    def read_range(self, name: str, *, offset: int, size_bytes: int) -> bytes:
        """``size_bytes`` bytes of one file from ``offset``: how one clip is taken out of a shard."""
        for attempt in self._attempts(name):
            with attempt, self._fs.open_input_file(self.path(name)) as file:
                data: bytes = file.read_at(size_bytes, offset)
                if len(data) != size_bytes:
                    raise OSError(f"{name}: {len(data)} of {size_bytes} bytes at offset {offset}")
                return data
        raise AssertionError("tenacity re-raises")

    def size_bytes(self, name: str) -> int:
        """Length of one file.

        Raises:
            FileNotFoundError: if there is none of this name.
        """
        for attempt in self._attempts(name):
            with attempt:
                info = self._fs.get_file_info(self.path(name))
                if info.type != pafs.FileType.File:
                    raise FileNotFoundError(f"{self.root}/{name}")
                return int(info.size)
        raise AssertionError("tenacity re-raises")

    def write(self, name: str, data: bytes | pa.Buffer) -> None:
        """Put one file, whole or not at all, over whatever was there."""
        self._allow_change()
        for attempt in self._attempts(name):
            with attempt:
                if self.is_local:
                    self._write_local(name, data)
                else:
                    with self._fs.open_output_stream(self.path(name)) as stream:
                        stream.write(data)

    def _write_local(self, name: str, data: bytes | pa.Buffer) -> None:
        target = Path(self.path(name))
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.parent / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}"
        try:
            with error_names(str(target)), temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(target.parent)

    def put_file(self, name: str, local: Path) -> None:
        """Put a large local file in pieces, whole or not at all; the local one stays."""
        self._allow_change()
        for attempt in self._attempts(name):
            with attempt:
                self._put_file_once(name, local)

    def _put_file_once(self, name: str, local: Path) -> None:
        place = self.path(name)
        if self.is_local:
            target = Path(place)
            target.parent.mkdir(parents=True, exist_ok=True)
            place = str(target.parent / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}")
        with error_names(self.path(name)):
            pafs.copy_files(str(local), place, pafs.LocalFileSystem(), self._fs)
        if self.is_local:
            with open(place, "rb") as file:
                os.fsync(file.fileno())
            Path(place).replace(self.path(name))
            _sync_folder(Path(self.path(name)).parent)

    def exists(self, name: str) -> bool:
        """Whether a file of this name is there."""
        for attempt in self._attempts(name):
            with attempt:
                info = self._fs.get_file_info(self.path(name))
                return bool(info.type == pafs.FileType.File)
        raise AssertionError("tenacity re-raises")

    def files(self, folder: str = "", *, recursive: bool = False) -> list[str]:
        """Names of the files under ``folder``, sorted; empty where there is no such folder."""
        return sorted(self.listing(folder, recursive=recursive))

    def listing(self, folder: str = "", *, recursive: bool = False) -> dict[str, FileFacts]:
        """Name -> length and age of the files under ``folder``; empty where there is no such folder."""
        selector = pafs.FileSelector(self.path(folder), allow_not_found=True, recursive=recursive)
        start = len(self._base) + 1
        for attempt in self._attempts(folder):
            with attempt:
                return {
                    info.path[start:]: FileFacts(info.size, info.mtime_ns)
                    for info in self._fs.get_file_info(selector)
                    if info.is_file and not info.base_name.startswith(TEMPORARY_PREFIX)
                }
        raise AssertionError("tenacity re-raises")

    def folders(self, folder: str = "") -> list[str]:
        """Names (last component) of the folders directly under ``folder``, sorted."""
        selector = pafs.FileSelector(self.path(folder), allow_not_found=True)
        for attempt in self._attempts(folder):
            with attempt:
                infos = self._fs.get_file_info(selector)
                return sorted(i.base_name for i in infos if i.type == pafs.FileType.Directory)
        raise AssertionError("tenacity re-raises")

    def delete(self, name: str) -> None:
        """Remove one file; no error where there is none."""
        self._allow_change()
        if self.exists(name):
            self._fs.delete_file(self.path(name))

    def sweep(self) -> int:
        """Remove what killed writers left behind; returns how many files that were.

        Only for the single run that holds the corpus: a running writer's file looks the same.
        """
        if not self.is_local:
            return 0
        left = [
            Path(folder, name)
            for folder, _, names in os.walk(self._base)
            for name in names
            if name.startswith(TEMPORARY_PREFIX)
        ]
        for file in left:
            file.unlink(missing_ok=True)
        return len(left)


@contextmanager
def error_names(place: str) -> Iterator[None]:
    """Say where a disk was full: an error of a write names no file."""
    try:
        yield
    except OSError as error:
        if error.errno and error.filename is None:
            error.filename = place
        raise


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
