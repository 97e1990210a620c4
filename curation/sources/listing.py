"""All sources that some files, folders, globs, prefixes and lists name."""

from __future__ import annotations

import fnmatch
import glob
import logging
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs

from curation.corpus.schema import SOURCES, schema
from curation.corpus.store import is_remote
from curation.errors import NothingToDo
from curation.sources.lists import LIST_SUFFIXES, read_list
from curation.sources.uris import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    check_uri,
    local_path,
    media_of,
    redacted,
    source_rows,
    uri_of,
)

logger = logging.getLogger(__name__)


def list_sources(specs: Sequence[str]) -> pa.Table:
    """All sources that ``specs`` name, sorted by URI, each once.

    Where a list and a folder name the same source, the list's row stays, for it says more.

    Args:
        specs: files, folders, globs, object or prefix URIs, and lists.

    Returns:
        A table of the sources layer. `size_bytes` is null for rows of lists and for what is not a
        regular file.

    Raises:
        NothingToDo: a spec matches nothing.
        ValueError: a list without the column 'uri', a URI with credentials, an unknown scheme.
    """
    if not specs:
        raise NothingToDo("no sources were given")
    found = [_listed(spec) for spec in specs]
    rows = pa.concat_tables(
        table.append_column("rank", pa.repeat(pa.scalar(rank, pa.int8()), table.num_rows))
        for table, rank in found
    )
    rows = rows.sort_by([("uri", "ascending"), ("rank", "ascending")]).combine_chunks()
    uris = rows["uri"].combine_chunks()
    if len(uris) > 1:
        is_new = pc.not_equal(uris[1:], uris[:-1])
        rows = rows.filter(pa.concat_arrays([pa.array([True]), is_new]))
    return rows.drop_columns("rank").cast(schema(SOURCES)).combine_chunks()


def _listed(spec: str) -> tuple[pa.Table, int]:
    """Rows of one spec, and their rank: rows of a list come before those found otherwise."""
    check_uri(spec)
    suffix = Path(spec).suffix.lower()
    is_glob = bool(re.search(r"[*?\[]", spec))
    if suffix in LIST_SUFFIXES and not is_glob:
        return read_list(spec), 0
    table = _in_store(spec, is_glob=is_glob) if is_remote(spec) else _on_disk(spec)
    if not table.num_rows:
        known = " ".join(sorted(VIDEO_SUFFIXES | IMAGE_SUFFIXES))
        raise NothingToDo(f"{redacted(spec)!r} names no video or image (known names: {known})")
    return table, 1


def _on_disk(spec: str) -> pa.Table:
    path = local_path(spec)
    if path.is_dir():
        return _rows(_walk(path.resolve()))
    if os.path.lexists(path):
        return _rows([path.resolve()])
    names = sorted(glob.glob(os.fspath(path.absolute()), recursive=True, include_hidden=False))
    return _rows(_matched(names))


def _matched(names: Iterable[str]) -> Iterator[Path]:
    for name in names:
        path = Path(name)
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)
        elif media_of(name) is not None:
            yield path


def _walk(folder: Path) -> Iterator[Path]:
    """Entries of a folder and of those in it that are named like media; links are not entered."""
    num_linked_folders = 0
    for base, folders, files in os.walk(folder, onerror=_refuse_folder):
        folders.sort()
        for name in (*files, *folders):
            path = Path(base, name)
            if name in folders:
                num_linked_folders += path.is_symlink()
            elif media_of(name) is not None:
                yield path
    if num_linked_folders:
        logger.warning("%s: %d linked folders were not entered", folder, num_linked_folders)


def _refuse_folder(error: OSError) -> None:
    raise NothingToDo(f"cannot list {error.filename}: {error.strerror}") from error


def _rows(paths: Iterable[Path]) -> pa.Table:
    uris, sizes = [], []
    for path in paths:
        state = path.lstat()
        uris.append(uri_of(path))
        sizes.append(state.st_size if stat.S_ISREG(state.st_mode) else None)
    return source_rows(pa.array(uris, pa.string()), sizes=pa.array(sizes, pa.int64()))


def _in_store(spec: str, *, is_glob: bool) -> pa.Table:
    place, mark, query = spec.partition("?") if not is_glob else (spec, "", "")
    scheme = place.split("://")[0]
    fixed = re.split(r"[*?\[]", place)[0].rsplit("/", 1)[0] if is_glob else place
    try:
        filesystem, path = pafs.FileSystem.from_uri(fixed + mark + query)
        info = filesystem.get_file_info(path)
        selector = pafs.FileSelector(path, recursive=True, allow_not_found=True)
        is_file = info.type == pafs.FileType.File
        infos = [info] if is_file else filesystem.get_file_info(selector)
    except OSError as error:
        raise NothingToDo(f"cannot list {redacted(spec)!r}: {redacted(str(error))}") from error
    files = [i for i in infos if i.type == pafs.FileType.File and (is_file or media_of(i.path))]
    if is_glob:
        files = [i for i in files if fnmatch.fnmatchcase(f"{scheme}://{i.path}", place)]
    uris = [f"{scheme}://{i.path}{mark}{query}" for i in files]
    sizes = [i.size for i in files]
    return source_rows(pa.array(uris, pa.string()), sizes=pa.array(sizes, pa.int64()))
