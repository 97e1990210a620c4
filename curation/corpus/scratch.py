"""Folders for what is written on the way: gone afterwards, and named where their disk is full."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@contextmanager
def scratch_folder(prefix: str, *, place: Path | None = None) -> Iterator[Path]:
    """A temporary folder.

    Args:
        prefix: of its name.
        place: where it lies; where TMPDIR says, or the system, if not given.

    Raises:
        OSError: as whoever writes into it; a full disk with the folder as its file.
    """
    with tempfile.TemporaryDirectory(prefix=prefix, dir=place) as folder, full_disk_named(folder):
        yield Path(folder)


@contextmanager
def full_disk_named(place: str | os.PathLike[str]) -> Iterator[None]:
    """Say where a disk was full: the error of a write into an open file names none."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL and error.filename is None:
            raise OSError(error.errno, os.strerror(error.errno), os.fspath(place)) from error
        raise
