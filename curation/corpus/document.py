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
)

_ABOUT: dict[str, str] = {
    "sources": "One row a source, written when sources are listed.",
    "probe": "One row a source: what the file is, or why it was rejected.",
    "scenes": "One row a scene: its span, motion and picture statistics, all from one decoding pass.",
    "keyframes": "The sampled frames of each scene, from the same pass; later stations read only these.",
    "embeddings": "What the keyframes look like, as vectors.",
    "aesthetics": "How pleasing the keyframes are.",
    "overlay_text": "How much of the picture is text.",
    "safety": "How likely explicit content is.",
    "taxonomy": "Category and tags.",
    "captions": "A sentence for the clip, and who wrote it.",
    "caption_text": "What can be said of the sentence without the picture.",
    "alignment": "How well the sentence fits the picture.",
    "selections": "One row a scene, in the order of the scenes: kept or not, and why not.",
    "shards": "`index.parquet`: one row a selected clip, with the place of its bytes.",
    "encoded": "Latents and text states of `lavie encode`: a file a shard, a row group a start of a clip.",
    "encoded index": "`index.parquet` of a layer of latents: one row an exported clip.",
}


def _table(columns: tuple[Column, ...]) -> str:
    rows = ["| column | type | unit | meaning |", "| --- | --- | --- | --- |"]
    rows += [f"| `{c.name}` | {c.type} | {c.unit} | {c.doc} |" for c in columns]
    return "\n".join(rows)


def corpus_page() -> str:
    """The whole page as Markdown."""
    tree = (layout.__doc__ or "").split("::\n\n")[1].rstrip()
    sections = {
        "sources": SOURCES,
        **LAYERS,
        "selections": SELECTION,
        "shards": SHARD_INDEX,
        "encoded": ENCODED,
        "encoded index": ENCODED_INDEX,
    }
    body = "\n\n".join(
        f"## {name}\n\n{_ABOUT[name]}\n\n{_table(columns)}" for name, columns in sections.items()
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
