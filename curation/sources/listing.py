"""All sources that some files, folders, globs, prefixes and lists name."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs

from curation.corpus import layout
from curation.corpus.store import is_remote
from curation.corpus.waiting import waiting
from curation.errors import BadSource, NothingToDo, UsageError, typed
from curation.sources.folders import (
    Entry,
    Folders,
    LeftOut,
    kind_by_name,
    kind_of_refusal,
    media_by_content,
)
from curation.sources.lists import LIST_SUFFIXES, read_list
from curation.sources.merging import once_each
from curation.sources.uris import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    check_uri,
    local_path,
    media_of,
    opened_store,
    redacted,
    source_rows,
    spelled_out,
    uri_of,
)
from curation.sources.web.addresses import is_web, web_address

SNIFF_THREADS = 16  # a store answers slowly and in parallel
STAT_THREADS = 16  # so does a mounted share: a list may name a million files of it


def list_sources(
    specs: Sequence[str],
    *,
    follow_links: bool = False,
    link_roots: Sequence[str] = (),
    left_out: LeftOut | None = None,
) -> pa.Table:
    """All sources that ``specs`` name, sorted by URI, each once.

    Several rows that name the same source become one (`curation.sources.merging`): a list's before what
    a folder says.

    Args:
        specs: files, folders, globs, object or prefix URIs, and lists.
        follow_links: whether links in folders are followed that stay under the given folders.
        link_roots: further folders that such links may lead into.
        left_out: where to count what lay there and is no source.

    Returns:
        A table of the sources layer. `size_bytes` is null for objects that lists name and for what is not
        a regular file.

    Raises:
        NothingToDo: a folder or prefix holds nothing.
        UsageError: a glob that matches nothing, a list without a row, a path that does not exist, a
            folder that cannot be listed or is a corpus, a file that is no list, a URI with credentials,
            an unknown scheme.
    """
    if not specs:
        raise UsageError("sources: none were given")
    with typed("sources"):
        specs = [spec if os.path.lexists(spec) else spelled_out(spec) for spec in specs]
    roots = [*(_root(spec) for spec in specs), *(Path(root).resolve() for root in link_roots)]
    folders = Folders(
        roots=tuple(root for root in roots if root is not None),
        follow_links=follow_links,
        left_out=LeftOut() if left_out is None else left_out,
    )
    found = [_listed(spec, folders) for spec in dict.fromkeys(specs)]
    return once_each([table for table, _ in sorted(found, key=lambda entry: entry[1])])


def _is_glob(spec: str) -> bool:
    return bool(re.search(r"[*?\[]", spec))


def _root(spec: str) -> Path | None:
    """The folder that the user named by a spec, or in which its glob begins; None for others."""
    if is_remote(spec):
        return None
    path = local_path(spec)
    if path.is_dir():
        return path.resolve()
    if not _is_glob(spec) or os.path.lexists(path):
        return None
    return Path(re.split(r"[*?\[]", os.fspath(path))[0] + "x").parent.resolve()


def _listed(spec: str, folders: Folders) -> tuple[pa.Table, int]:
    """Rows of one spec, and their rank: rows of a list come before those found otherwise."""
    if not spec.strip():
        raise UsageError("sources: one of them is an empty name")
    with typed("sources"):
        check_uri(spec)
        if is_web(spec):
            return _on_web(spec), 1
        if Path(spec).suffix.lower() in LIST_SUFFIXES and not _is_glob(spec):
            return _with_lengths(read_list(spec)), 0
    before = folders.left_out.counts.total()
    table = _in_store(spec, folders.left_out) if is_remote(spec) else _on_disk(spec, folders)
    if not table.num_rows:
        known = " ".join(sorted(VIDEO_SUFFIXES | IMAGE_SUFFIXES))
        among = folders.left_out.counts.total() - before
        seen = f" among {among:,} files ({'; '.join(folders.left_out.lines())})" if among else ""
        # An empty folder may be filled later; a pattern that nothing fits was mistyped.
        kind = UsageError if _is_glob(spec) else NothingToDo
        raise kind(
            f"sources: {redacted(spec)!r} names no video or image{seen}. Known names: {known}; of other "
            "names the content decides"
        )
    return table, 1


def _on_web(spec: str) -> pa.Table:
    """The one source that an http(s) address names; nobody is asked yet."""
    address, _ = web_address(spec)
    if Path(address.partition("?")[0]).suffix.lower() in LIST_SUFFIXES:
        raise ValueError(f"{redacted(spec)!r}: a list is read from a file or a store; download it")
    return source_rows(pa.array([address], pa.string()))


def _with_lengths(listed: pa.Table) -> pa.Table:
    """Rows of a list, those of local files with the lengths that these have now."""
    uris = listed["uri"].to_pylist()
    step = -(-len(uris) // STAT_THREADS)
    runs = [uris[begin : begin + step] for begin in range(0, len(uris), step)]
    with ThreadPoolExecutor(STAT_THREADS) as pool:
        sizes = [size for run in pool.map(_lengths, runs) for size in run]
    at = listed.schema.get_field_index("size_bytes")
    return listed.set_column(at, listed.schema.field(at), pa.array(sizes, pa.int64()))


def _lengths(uris: Iterable[str]) -> list[int | None]:
    return [None if is_remote(uri) else _length(local_path(uri)) for uri in uris]


def _length(path: Path) -> int | None:
    """Bytes of a regular file; None of what is none, or is not there."""
    try:
        state = path.lstat()
    except (OSError, ValueError):  # a name that no file can have
        return None
    return state.st_size if stat.S_ISREG(state.st_mode) else None


def _on_disk(spec: str, folders: Folders) -> pa.Table:
    path = local_path(spec)
    if path.is_dir():
        if (path / layout.CORPUS).is_file() and (path / "layers").is_dir():
            raise UsageError(f"sources: {spec!r} is a corpus that lavie wrote, not footage")
        return _rows(folders.walk(path.resolve()))
    if os.path.lexists(path):
        return _rows([Entry(path.resolve(), None)])
    if not _is_glob(spec):
        raise UsageError(f"sources: {spec!r} does not exist")
    names = sorted(glob.glob(os.fspath(path.absolute()), recursive=True, include_hidden=False))
    return _rows(_matched(names, folders))


def _matched(names: Iterable[str], folders: Folders) -> Iterator[Entry]:
    for name in names:
        path = Path(name)
        if path.is_dir() and not path.is_symlink():
            yield from folders.walk(path)
        else:
            yield from folders.file(path)


def _rows(entries: Iterable[Entry]) -> pa.Table:
    uris, sizes, media = [], [], []
    for path, by_content in entries:
        uris.append(uri_of(path))
        sizes.append(_length(path))
        media.append(by_content or media_of(path.name) or "video")
    return source_rows(
        pa.array(uris, pa.string()),
        sizes=pa.array(sizes, pa.int64()),
        given={"media": pa.array(media, pa.string())},
    )


def _in_store(spec: str, left_out: LeftOut) -> pa.Table:
    is_glob = _is_glob(spec)
    scheme = spec.split("://")[0]
    fixed = re.split(r"[*?\[]", spec)[0].rsplit("/", 1)[0] if is_glob else spec
    with typed("sources"):
        filesystem, path = opened_store(fixed)
    try:
        with waiting(redacted(fixed)):
            info = filesystem.get_file_info(path)
            selector = pafs.FileSelector(path, recursive=True, allow_not_found=True)
            is_file = info.type == pafs.FileType.File
            infos = [info] if is_file else filesystem.get_file_info(selector)
    except OSError as error:
        raise NothingToDo(f"cannot list {redacted(spec)!r}: {redacted(str(error))}") from error
    files = [i for i in infos if i.type == pafs.FileType.File]
    if is_glob:
        files = [i for i in files if fnmatch.fnmatchcase(f"{scheme}://{i.path}", spec)]
    if not is_file:
        files = [i for i in files if _is_candidate(i.path, left_out)]
    media = _media_in_store(filesystem, [i.path for i in files], left_out, trusted=is_file)
    uris = [f"{scheme}://{i.path}" for i in files]
    table = source_rows(
        pa.array(uris, pa.string()),
        sizes=pa.array([i.size for i in files], pa.int64()),
        given={"media": pa.array(media, pa.string())},
    )
    return table.filter(pc.is_valid(table["media"]))


def _is_candidate(path: str, left_out: LeftOut) -> bool:
    kind = None if media_of(path) else kind_by_name(path)
    if kind is not None:
        left_out.add(kind, path)
    return kind is None


def _media_in_store(
    filesystem: pafs.FileSystem, paths: Sequence[str], left_out: LeftOut, *, trusted: bool
) -> list[str | None]:
    """'video' or 'image' of each object, None for what is neither; read where the name says nothing."""

    def look(path: str) -> str | BadSource | None:
        named = media_of(path)
        if named is not None or trusted:
            return named or "video"
        try:
            with filesystem.open_input_file(path) as file:
                return media_by_content(file)
        except BadSource as error:
            return error
        except OSError:  # the row will say so
            return "video"

    found: list[str | None] = []
    with ThreadPoolExecutor(SNIFF_THREADS) as threads:
        for path, media in zip(paths, threads.map(look, paths), strict=True):
            if isinstance(media, BadSource):
                left_out.add(kind_of_refusal(media) or media.reason, path)
            found.append(None if isinstance(media, BadSource) else media)
    return found
