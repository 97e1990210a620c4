"""corpus.json: what a corpus is, which layers are current, and which command made it.

Small files that say what is so are sealed: they carry the sha256 of themselves, so that a changed byte is
noticed by whoever reads them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from curation.corpus import layout
from curation.corpus.schema import SCHEMA_VERSION
from curation.corpus.store import Store
from curation.errors import CorpusError, NothingThere, TornPart


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys and a fixed indent: the same value gives the same bytes."""
    return (json.dumps(value, sort_keys=True, indent=1, ensure_ascii=True) + "\n").encode()


def seal_of(content: Mapping[str, Any]) -> str:
    """The sha256 of the canonical JSON of ``content`` without its own "digest"."""
    return hashlib.sha256(
        canonical_json({key: value for key, value in content.items() if key != "digest"})
    ).hexdigest()


def sealed(content: Mapping[str, Any]) -> bytes:
    """Canonical JSON with the digest of itself as "digest"."""
    return canonical_json(dict(content) | {"digest": seal_of(content)})


def unsealed(data: bytes, name: str) -> dict[str, Any]:
    """What `sealed` was given; a file from before there were seals is taken as it is.

    Args:
        data: the file.
        name: what to call it in an error.

    Raises:
        TornPart: if these are not the bytes that were written.
    """
    try:
        content = json.loads(data)
    except ValueError as error:
        raise TornPart(f"{name}: not JSON ({error})") from error
    if not isinstance(content, dict) or canonical_json(content) != data:
        raise TornPart(f"{name}: its bytes are not those that were written")
    if content.pop("digest", None) not in (None, seal_of(content)):
        raise TornPart(f"{name}: its bytes are not those that were written (digest)")
    return content


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusInfo:
    """Contents of corpus.json."""

    num_parts: int
    """How many parts the sources were dealt into."""
    layers: dict[str, str]
    """Layer name -> id of the current layer of this name."""
    settings: dict[str, Any] = field(default_factory=dict)
    """The effective configuration of the last `lavie curate`."""
    created_by: str = ""
    """The command that made it."""
    preset: str = ""
    """Name of the preset that its flags began with; '' where there was none."""
    num_refused: int = 0
    """Sources that its list named and that are other files than were curated."""
    schema_version: int = SCHEMA_VERSION
    """Version of `curation.corpus.schema`."""

    def write(self, store: Store) -> None:
        """Put corpus.json."""
        store.write(layout.CORPUS, sealed(asdict(self)))


def read_corpus(store: Store) -> CorpusInfo:
    """Read corpus.json.

    Raises:
        NothingThere: if there is none.
        CorpusError: if it is of another schema version.
        TornPart: if its bytes are not those that were written.
    """
    try:
        data = store.read(layout.CORPUS)
    except FileNotFoundError as error:
        raise NothingThere(
            f"{store.root} holds no corpus (no {layout.CORPUS}); `lavie curate` makes one"
        ) from error
    content = unsealed(data, f"{store.root}/{layout.CORPUS}")
    version = content.get("schema_version")
    if version != SCHEMA_VERSION:
        raise CorpusError(
            f"{store.root} has schema version {version}, this program reads {SCHEMA_VERSION}: use the "
            "version of lavie that made it, or curate into a new folder"
        )
    unknown = set(content) - set(CorpusInfo.__dataclass_fields__)
    if unknown:  # such as "digest" with a changed letter
        raise TornPart(
            f"{store.root}/{layout.CORPUS}: unknown entries {', '.join(sorted(unknown))}"
        )
    return CorpusInfo(**content)
