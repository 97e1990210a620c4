"""corpus.json: what a corpus is, which layers are current, and which command made it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from curation.corpus import layout
from curation.corpus.schema import SCHEMA_VERSION
from curation.corpus.store import Store
from curation.errors import CorpusError


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys and a fixed indent: the same value gives the same bytes."""
    return (json.dumps(value, sort_keys=True, indent=1, ensure_ascii=True) + "\n").encode()


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
    schema_version: int = SCHEMA_VERSION
    """Version of `curation.corpus.schema`."""

    def write(self, store: Store) -> None:
        """Put corpus.json."""
        store.write(layout.CORPUS, canonical_json(asdict(self)))


def read_corpus(store: Store) -> CorpusInfo:
    """Read corpus.json.

    Raises:
        CorpusError: if there is none, or it is of a later schema version.
    """
    try:
        content = json.loads(store.read(layout.CORPUS))
    except FileNotFoundError as error:
        raise CorpusError(
            f"{store.root} holds no corpus (no {layout.CORPUS}); `lavie curate` makes one"
        ) from error
    version = content.get("schema_version")
    if version != SCHEMA_VERSION:
        raise CorpusError(
            f"{store.root} has schema version {version}, this program reads {SCHEMA_VERSION}"
        )
    return CorpusInfo(**content)
