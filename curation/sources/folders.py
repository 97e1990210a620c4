"""Entries of local folders that may be sources, and what was left out.

A known suffix makes a file a source: whatever is wrong with it becomes a reason in its row. Where the
suffix says nothing, the first bytes decide, as they do at the gate. What is left out is counted by
kind and named, so that nothing disappears in silence.
"""

from __future__ import annotations

import os
import stat
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

from curation.corpus import layout
from curation.errors import BadSource, UsageError
from curation.media.containers import IMAGE_DEMUXERS, SNIFF_BYTES, sniff
from curation.media.probe import open_regular
from curation.sources.uris import media_of

_NAMED = 3
_SUFFIXES = {
    "text": ".txt .md .json .jsonl .ndjson .csv .tsv .xml .yaml .yml .toml .ini .log .html .htm .nfo "
    ".url .md5 .sha1 .sha256 .sfv .py .sh",
    "subtitles": ".srt .vtt .ass .ssa .sub .idx .sup .ttml .lrc",
    "audio": ".mp3 .wav .flac .m4a .aac .opus .oga .wma .aif .aiff .mka .ac3 .dts",
    "data": ".zip .gz .tgz .bz2 .xz .zst .7z .rar .tar .parquet .arrow .npy .npz .pt .pth .pkl "
    ".safetensors .h5 .hdf5 .db .sqlite .pdf .doc .docx .xls .xlsx",
    "unfinished download": ".part .partial .crdownload .download .ytdl .aria2 .tmp",
}
_KIND_OF = {suffix: kind for kind, suffixes in _SUFFIXES.items() for suffix in suffixes.split()}
"""Suffixes that say enough: such files are counted and not opened."""
_SNIFFED = {
    "empty": "empty",
    "playlist": "playlist",
    "no_video": "audio",
    "unknown_format": "no video or image by content",
}


class Entry(NamedTuple):
    """A file that is a source."""

    path: Path
    media: str | None
    """'video' or 'image' by content; None where the name says it."""


@dataclass(slots=True)
class LeftOut:
    """What lay among the sources and is none: how many of each kind, and the first names."""

    counts: Counter[str] = field(default_factory=Counter)
    names: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, kind: str, name: str) -> None:
        """Count one."""
        self.counts[kind] += 1
        if len(self.names[kind]) < _NAMED:
            self.names[kind].append(name)

    def lines(self) -> list[str]:
        """A line a kind, most frequent first: '8 text: a.txt, b.txt, c.txt, ...'."""
        ranked = sorted(self.counts.items(), key=lambda pair: (-pair[1], pair[0]))
        return [
            f"{count:,} {kind}: {', '.join(self.names[kind])}{', ...' if count > _NAMED else ''}"
            for kind, count in ranked
        ]


def kind_by_name(name: str) -> str | None:
    """What a file is that its suffix alone leaves out; None where its content must say."""
    return _KIND_OF.get(os.path.splitext(name)[1].lower())


def media_by_content(file: BinaryIO) -> str:
    """'video' or 'image' by the first bytes of an open file.

    Raises:
        BadSource: what else it is.
    """
    return "image" if sniff(file.read(SNIFF_BYTES)) in IMAGE_DEMUXERS else "video"


def kind_of_refusal(error: BadSource) -> str | None:
    """What `LeftOut` calls a file that is no media; None if that is not known and a row must tell."""
    return _SNIFFED.get(error.reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Folders:
    """How folders are read."""

    roots: tuple[Path, ...]
    """Folders that links may lead into, without links in their own paths."""
    follow_links: bool = False
    """Whether links are followed that stay under `roots`; else they stay what they are."""
    left_out: LeftOut = field(default_factory=LeftOut)
    """Where to count what is no source."""

    def walk(self, folder: Path) -> Iterator[Entry]:
        """Sources in a folder, at any depth; each folder once, so that links may form rings.

        Raises:
            UsageError: if a folder cannot be listed.
        """
        yield from self._walk(folder, set())

    def _walk(self, folder: Path, seen: set[tuple[int, int]]) -> Iterator[Entry]:
        for base, folders, files in os.walk(folder, onerror=_refuse_folder):
            state = os.stat(base)
            is_corpus = layout.CORPUS in files and "layers" in folders
            if is_corpus:
                self.left_out.add("folder that holds a corpus, not entered", base)
            if is_corpus or (state.st_dev, state.st_ino) in seen:
                folders.clear()
                continue
            seen.add((state.st_dev, state.st_ino))
            folders.sort()
            for name in files:
                yield from self.file(Path(base, name))
            for name in folders:
                if os.path.islink(linked := os.path.join(base, name)):
                    yield from self._linked_folder(Path(linked), seen)

    def _linked_folder(self, link: Path, seen: set[tuple[int, int]]) -> Iterator[Entry]:
        target = self._target(link)
        if target is not None:
            yield from self._walk(target, seen)
        else:
            self.left_out.add(self._link_kind("linked folder"), str(link))

    def file(self, path: Path) -> Iterator[Entry]:
        """The source that a file is, if it is one."""
        if path.is_symlink():
            target = self._target(path)
            if target is None and media_of(path.name) is not None:
                yield Entry(path, None)  # the gate refuses it, by name
                return
            if target is None:
                self.left_out.add(self._link_kind("link"), str(path))
                return
            path = target
        if media_of(path.name) is not None:
            yield Entry(path, None)
        elif (kind := kind_by_name(path.name)) is not None:
            self.left_out.add(kind, str(path))
        else:
            yield from self._by_content(path)

    def _by_content(self, path: Path) -> Iterator[Entry]:
        try:
            if not stat.S_ISREG(path.lstat().st_mode):
                self.left_out.add("no regular file", str(path))
                return
            with open_regular(path) as file:
                yield Entry(path, media_by_content(file))
        except FileNotFoundError:
            return  # gone since the folder was read
        except BadSource as error:
            kind = kind_of_refusal(error)
            if kind is None:  # such as a file without the right to read it: the row will say so
                yield Entry(path, None)
            else:
                self.left_out.add(kind, str(path))

    def _target(self, link: Path) -> Path | None:
        """Where a link leads, if it may be followed."""
        if not self.follow_links:
            return None
        try:
            target = link.resolve(strict=True)
        except (OSError, RuntimeError):  # it leads nowhere, or in a ring
            return None
        return target if any(target.is_relative_to(root) for root in self.roots) else None

    def _link_kind(self, what: str) -> str:
        if self.follow_links:
            return (
                f"{what} that leads nowhere, or out of the given folders and those of --link-roots"
            )
        return f"{what}, followed only with --follow-links (and --link-roots, if it leads outside)"


def _refuse_folder(error: OSError) -> None:
    raise UsageError(f"cannot list {error.filename}: {error.strerror}") from error
