"""Places that the user names: a store, a file or folder to write. Looked at before any work."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from curation.corpus.store import Store
from curation.errors import UsageError, typed
from curation.sources.uris import spelled_out

STORES = ("s3", "gs")
"""Stores that can be written to, by scheme."""
SHOWN = 3  # names of foreign files in a message


@contextmanager
def named_file(flag: str) -> Iterator[None]:
    """Put the flag before what is wrong with the file that it names: gone, unreadable, of another kind.

    For the lines that read what the user named, as `curation.errors.typed` is for what he typed.
    """
    try:
        yield
    except (ValueError, OSError) as error:
        raise UsageError(f"{flag}: {error}") from error


def store_at(root: str, flag: str) -> Store:
    """The folder or object-store prefix that a flag names.

    Raises:
        UsageError: it is neither.
    """
    if not root.strip():
        raise UsageError(f"{flag}: an empty name is no place")
    if not os.path.lexists(root):
        with typed(flag):
            root = spelled_out(root)
    scheme, _, place = root.partition("://") if "://" in root else ("file", "", root)
    if scheme not in (*STORES, "file"):
        raise UsageError(f"{flag}: it lies in a folder, s3:// or gs://, got {root!r}")
    if scheme in STORES and not place.partition("?")[0].partition("/")[0]:
        raise UsageError(f"{flag}: {root!r} names no bucket")
    with typed(flag):
        store = Store(root)
    if store.is_local:
        path = Path(store.path())
        there = next(each for each in (path, *path.parents) if os.path.lexists(each))
        if not there.is_dir():
            raise UsageError(f"{flag}: {there} is a file where a folder is due")
    return store


def check_out_folder(store: Store, flag: str, *, ours: Sequence[str], overwrite: bool) -> None:
    """Refuse a folder that cannot be written, or that holds what this command did not put there.

    Args:
        store: where the command will write.
        flag: what named it.
        ours: entries of which a folder that this command has made holds at least one.
        overwrite: write beside foreign files all the same.

    Raises:
        UsageError: says what is there.
    """
    if store.is_local and Path(store.path()).is_file():
        raise UsageError(f"{flag}: {store.root} is a file where a folder is due")
    held = sorted({*store.folders(), *store.files()})
    if held and not overwrite and not set(held) & set(ours):
        names = ", ".join(held[:SHOWN]) + (", ..." if len(held) > SHOWN else "")
        raise UsageError(
            f"{flag}: {store.root} was not made by this command, it holds {names}; name another "
            f"folder, or give --overwrite to write into it"
        )
    if store.is_local:
        check_writable(Path(store.path()), flag)


def check_out_files(files: Sequence[Path], flag: str, *, overwrite: bool) -> None:
    """Refuse files, or folders of frames, that are there already or cannot be written.

    A folder of frames must be empty: --overwrite replaces files alone.

    Raises:
        UsageError: names the first one.
    """
    for file in files:
        if file.is_dir() and not file.suffix:
            if any(file.iterdir()):  # whose files they are cannot be told: none is deleted
                raise UsageError(f"{flag}: the folder {file} holds files; name a new one")
        elif file.exists() and not overwrite:
            raise UsageError(f"{flag}: {file} is there already; --overwrite replaces it")
        if file.is_dir() and file.suffix:
            raise UsageError(f"{flag}: {file} is a folder where a file is due")
        check_writable(file.parent, flag)


def check_new(place: Path, flag: str) -> None:
    """Refuse a result that is there already, or whose folder cannot be written.

    Raises:
        UsageError: names the place.
    """
    if place.exists():
        raise UsageError(f"{flag}: {place} is there already; name a new one")
    check_writable(place.parent, flag)


def check_writable(folder: Path, flag: str) -> None:
    """Make a folder and try to write into it.

    Raises:
        UsageError: neither can be done here.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except FileExistsError as error:
        raise UsageError(f"{flag}: {folder} is a file where a folder is due") from error
    except OSError as error:
        raise UsageError(f"{flag}: {folder} cannot be written: {error.strerror}") from error
