"""docs/corpus.md, written from the schema: `python -m curation.corpus.document docs/corpus.md`."""

from __future__ import annotations

import sys
from pathlib import Path

from curation.corpus import layout
from curation.corpus.schema import (
    ENCODED,
    ENCODED_INDEX,
    LAYERS,
    SCHEMA_VERSION,
    SELECTION,
    SHARD_INDEX,
    SOURCES,
    Column,
    Layer,
)

_SECTIONS: dict[str, Layer] = {
    "sources": Layer(
        "One row a source, written when sources are listed.",
        SOURCES,
    ),
    **LAYERS,
    "selections": Layer(
        "One row a scene, in the order of the scenes: kept or not, and why not.",
        SELECTION,
    ),
    "shards": Layer(
        "`index.parquet`: one row a selected clip, with the place of its bytes.",
        SHARD_INDEX,
    ),
    "encoded": Layer(
        "Latents and text states of `lavie encode`: a file a shard, a row group a start of a clip.",
        ENCODED,
    ),
    "encoded index": Layer(
        "`index.parquet` of a layer of latents: one row an exported clip.",
        ENCODED_INDEX,
    ),
}
"""Heading -> what it is about."""


def _table(columns: tuple[Column, ...]) -> str:
    rows = ["| column | type | unit | meaning |", "| --- | --- | --- | --- |"]
    rows += [f"| `{c.name}` | {c.type} | {c.unit} | {c.doc} |" for c in columns]
    return "\n".join(rows)


def corpus_page() -> str:
    """The whole page as Markdown."""
    tree = (layout.__doc__ or "").split("::\n\n")[1].rstrip()
    body = "\n\n".join(
        f"## {name}\n\n{layer.about}\n\n{_table(layer.columns)}"
        for name, layer in _SECTIONS.items()
    )
    return (
        "# The corpus: files and columns\n\n"
        "Written by `make docs` from `curation/corpus/schema.py`; a test compares the two.\n"
        f"Schema version {SCHEMA_VERSION}.\n\n"
        "```\n"
        f"{tree}\n"
        "```\n\n"
        "A layer holds what one station added; its folder is named after the station, its version and a\n"
        "digest of its settings and of the layers that it read. All layers of a part have the rows of its\n"
        "scenes layer, in the same order, so they are laid side by side without a join.\n\n"
        f"{body}\n"
    )


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(corpus_page(), encoding="utf-8")
