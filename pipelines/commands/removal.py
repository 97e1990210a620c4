"""remove."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from rich.console import Console
from tyro.conf import Positional

from curation.corpus.clip_ids import CLIP_ID
from curation.corpus.manifest import read_corpus
from curation.errors import UsageError
from curation.sources.addresses import file_address
from curation.sources.json_lines import read_objects
from curation.sources.lists import LIST_SUFFIXES, read_list
from pipelines.locking import locked
from pipelines.places import store_at
from pipelines.remove import remove


@dataclass(frozen=True, slots=True, kw_only=True)
class Remove:
    """Take sources or clips out of a corpus and of all that was made of it: takedown, opt-out.

    Layers of all settings, selections, shards, latents and reports are freed of them; what was removed from
    which file is written to removed.json, with each file's sha256 before and after. Sources go with all
    others of the same bytes, and none of them is curated again. Interrupted? Run it again.
    """

    corpus: Positional[str]
    """Folder or prefix of the corpus."""
    sources: str | None = None
    """Sources to remove: a file with an address a line (.txt), or a list (.csv .jsonl .parquet) with a
    column 'uri', spelled as for `lavie curate`."""
    clips: str | None = None
    """Clips to remove: a file with a clip_id a line (.txt), or a list with a column 'clip_id'."""

    def run(self) -> int:
        """Remove, and say what was changed."""
        uris = read_uris(self.sources) if self.sources else []
        clip_ids = read_clip_ids(self.clips) if self.clips else []
        there = store_at(self.corpus, "CORPUS")
        read_corpus(there)  # the lock makes a folder, of a mistyped name too
        with locked(there) as store:
            remove(store, uris=uris, clip_ids=clip_ids, console=Console(stderr=False))
        return 0


def read_names(path: str, flag: str) -> list[frozenset[str]]:
    """Addresses and clip ids of a list for either flag of `lavie remove`, each in all its spellings.

    Raises:
        UsageError: if it names neither; begins with the flag that it was given to.
    """
    if Path(path).suffix.lower() not in LIST_SUFFIXES:
        folder = Path(path).resolve().parent
        lines = [line for _, line in _lines(path, flag)]
        return [frozenset({line, line.lower(), _address(line, folder, flag)}) for line in lines]
    try:
        return [frozenset([uri]) for uri in read_uris(path, flag)]
    except UsageError:  # no column 'uri'
        return [frozenset([clip_id]) for clip_id in read_clip_ids(path, flag)]


def read_uris(path: str, flag: str = "--sources") -> list[str]:
    """Addresses of sources from a file; relative ones are taken from its folder.

    Raises:
        UsageError: if the file is not there, or is no list.
    """
    if Path(path).suffix.lower() in LIST_SUFFIXES:
        try:
            rows = read_list(path).select(["uri", "listing_reject"]).to_pylist()
        except UsageError as error:
            raise UsageError(f"{flag}: {error}") from error
        return [row["uri"] for row in rows if row["listing_reject"] is None]
    folder = Path(path).resolve().parent
    return [_address(line, folder, flag) for _, line in _lines(path, flag)]


def _address(line: str, folder: Path, flag: str) -> str:
    if line.lower().startswith("file://"):
        address, fault = file_address(line)
        if fault is not None:
            raise UsageError(f"{flag}: {fault}")
        return address
    return line if "://" in line else os.path.normpath(folder / line)


def read_clip_ids(path: str, flag: str = "--clips") -> list[str]:
    """Clip ids from a file.

    Raises:
        UsageError: if the file is not there, has no column 'clip_id', or holds what is no clip id.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in LIST_SUFFIXES:
        return [_clip_id(line, f"line {at}", path, flag) for at, line in _lines(path, flag)]
    try:
        if suffix == ".parquet":
            column = pq.read_table(path, columns=["clip_id"])["clip_id"].to_pylist()
        elif suffix == ".csv":
            options = pa.csv.ConvertOptions(
                include_columns=["clip_id"], column_types={"clip_id": pa.string()}
            )
            column = pa.csv.read_csv(path, convert_options=options)["clip_id"].to_pylist()
        else:
            with pa.OSFile(path) as file:
                column = [content.get("clip_id") for _, content, _ in read_objects(file, {})]
    except (OSError, pa.ArrowException, KeyError) as error:
        raise UsageError(f"{flag}: {path!r} cannot be read: {error}") from error
    ids = [
        _clip_id(str(value).strip(), f"row {at}", path, flag)
        for at, value in enumerate(column, start=1)
        if value
    ]
    if not ids:
        raise UsageError(f"{flag}: {path!r} names no clip under 'clip_id'")
    return ids


def _clip_id(text: str, place: str, path: str, flag: str) -> str:
    if not CLIP_ID.fullmatch(text):
        raise UsageError(
            f"{flag}: {place} of {path!r} is no clip id, which reads as "
            f"7a2f4a0e-4f0b-5a53-9a2b-0c7d52f1c9aa: {text!r}; --sources takes addresses"
        )
    return text.lower()


def _lines(path: str, flag: str) -> list[tuple[int, str]]:
    """Lines that name something, each with its number."""
    try:
        text = Path(path).read_text("utf-8")
    except OSError as error:
        raise UsageError(f"{flag}: {path!r} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{flag} takes a file with a name a line; {path!r} is no text. To remove that file "
            "itself, write its name into a list"
        ) from error
    lines = enumerate((line.strip() for line in text.splitlines()), start=1)
    found = [(at, line) for at, line in lines if line and not line.startswith("#")]
    if not found:
        raise UsageError(f"{flag}: {path!r} has no line that names anything")
    return found
