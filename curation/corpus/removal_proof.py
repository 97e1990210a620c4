"""Proof that nothing of what was removed is left: every file of a corpus is looked into.

Addresses, digests and clip ids are looked for in every text of every Parquet file, in the names and the
facts of every sample, and in every other file as it stands; the bytes of every sample's media are compared
with the media that was removed. Pictures (keyframes, the report's) are told by the rows that they lie in:
they have no name of their own.
"""

from __future__ import annotations

import hashlib
import html
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curation.corpus import layout
from curation.corpus.manifest import read_corpus
from curation.corpus.parts import open_parquet
from curation.corpus.removal import Removal, Removed, without_names
from curation.corpus.store import Store
from curation.errors import CorpusError

_NOT_LOOKED_INTO = (layout.REMOVED, layout.LOCK, layout.LEASE)
_PIECE_BYTES = 4 * 1024**2


@dataclass(frozen=True, slots=True)
class Traces:
    """What to look for."""

    texts: frozenset[str]
    """Addresses and digests of sources, and clip ids."""
    media_sha256: frozenset[str]
    """Digests of media files."""

    @classmethod
    def of(cls, removed: Removed, *, named: frozenset[str] | None = None) -> Traces:
        """Of all that was removed, or of the removals that some names belong to.

        Args:
            removed: of a corpus.
            named: addresses and clip ids.
        """
        chosen = [
            one for one in removed.removals if named is None or named & {*one.uris, *one.clip_ids}
        ]
        texts = (text for one in chosen for text in (*one.uris, *one.sources_sha256, *one.clip_ids))
        media = (digest for one in chosen for digest in one.media_sha256)
        return cls(frozenset(texts), frozenset(media))


def find_traces(store: Store, traces: Traces) -> Iterator[str]:
    """Look into every file; yields a sentence for each that still holds something."""
    for name in store.files(recursive=True):
        if name in _NOT_LOOKED_INTO:
            continue
        found = _look(store, name, traces)
        if found is not None:
            yield f"{store.root}/{name} still holds {found}"


def _look(store: Store, name: str, traces: Traces) -> str | None:
    try:
        if name.endswith(".parquet"):
            return _in_parquet(store, name, traces)
        if name.endswith(".tar"):
            return _in_tar(store, name, traces)
    except (CorpusError, tarfile.TarError) as error:
        return f"what cannot be read ({error})"
    found = _in_text(store.read(name), traces)
    if found is None and name == layout.CORPUS:
        command = read_corpus(store).created_by
        removal = Removal(uris=tuple(sorted(traces.texts)), sources_sha256=(), clip_ids=())
        if without_names(command, removal) != command:
            return f"the name of a source in the command {command!r}"
    return found


def _in_parquet(store: Store, name: str, traces: Traces) -> str | None:
    wanted = pa.array(sorted(traces.texts), pa.string())
    with open_parquet(store, name) as file:
        columns = [field.name for field in file.schema_arrow if _is_text(field.type)]
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=columns, use_threads=False)
            for column in columns:
                texts = _texts(table[column])
                hits = texts.filter(pc.is_in(texts, value_set=wanted))
                if len(hits):
                    return f"{hits[0].as_py()!r} in column {column!r}"
    return None


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind):
        return _is_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    while pa.types.is_list(column.type):
        column = pc.list_flatten(column)
    return column.cast(pa.string()).drop_null()


def _in_tar(store: Store, name: str, traces: Traces) -> str | None:
    with (
        store.filesystem.open_input_file(store.path(name)) as source,
        tarfile.open(fileobj=source, mode="r:") as tar,
    ):
        for member in tar:
            key = member.name.partition(".")[0]
            clip_id = key[:36]  # a uuid; a number behind it tells clips of equal bytes apart
            if clip_id in traces.texts:
                return f"the sample {key!r}"
            file = tar.extractfile(member)
            if file is None:
                continue
            if member.name.endswith(".json"):
                found = _in_facts(json.loads(file.read()), traces)
                if found is not None:
                    return f"{found!r} in the facts of sample {key!r}"
            elif not member.name.endswith(".txt"):
                digest = hashlib.sha256()
                while piece := file.read(_PIECE_BYTES):
                    digest.update(piece)
                if digest.hexdigest() in traces.media_sha256:
                    return (
                        f"the media of a removed clip in sample {key!r}: that clip has the same "
                        "bytes, and goes if `lavie remove --clips` names it too"
                    )
    return None


def _in_facts(value: Any, traces: Traces) -> str | None:
    if isinstance(value, str):
        return value if value in traces.texts else None
    children = (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    )
    return next((found for child in children if (found := _in_facts(child, traces))), None)


def _in_text(data: bytes, traces: Traces) -> str | None:
    text = data.decode(errors="replace")
    for wanted in sorted(traces.texts):
        spellings = {wanted, html.escape(wanted), json.dumps(wanted)[1:-1]}
        if any(spelling in text for spelling in spellings):
            return repr(wanted)
    return None
