"""search: clips that are like a clip, a picture or a text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tyro.conf import Positional

from curation.corpus.gap import find_gap
from curation.corpus.ledger import Ledger
from curation.corpus.manifest import CorpusInfo, read_corpus
from curation.corpus.parts import read_clips
from curation.corpus.schema import LAYER_OF
from curation.corpus.selection import read_rules
from curation.corpus.store import Store
from curation.errors import BadSource, UsageError, typed
from curation.report import ReportConfig
from curation.report.sheet import contact_sheet
from curation.report.text import cut_text, safe_uri
from curation.select.scan import Corpus
from curation.select.search import Found, closest, vector_of
from pipelines.commands.steps import check_name
from pipelines.places import check_new, store_at

SHOWN = ("uri", "start_s", "end_s", "caption", "keyframes", "nsfw_score")
"""Columns that are shown, as far as the corpus has them."""
MAX_CAPTION_CHARS = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """Find the clips that are most like a clip, a picture or a text, by their embeddings.

    $ lavie search corpus --like photo.jpg --sheet found.jpg
    $ lavie search corpus --like 0f0e7c4a-2c2b-5c0e-9c51-2d7e4a1f3b60 --selection default
    $ lavie search corpus --like "a boat on a lake"      (where a CLIP made the embeddings)

    Every embedding is read once: seconds for 100,000 clips.
    """

    corpus: Positional[str]
    """Folder or prefix of the corpus."""
    like: str
    """A clip id, else the path of a picture (JPEG, PNG, WebP), else a text."""
    num: int = 20
    """How many clips."""
    selection: str | None = None
    """Only clips that this selection keeps."""
    sheet: Path | None = None
    """Write a contact sheet of them, a JPEG picture, row by row in the order of the list."""

    def run(self) -> int:
        """Print the clips, the closest first."""
        if self.num < 1:
            raise UsageError(f"--num: at least 1 clip, got {self.num}")
        store = store_at(self.corpus, "CORPUS")
        info = read_corpus(store)
        if self.selection is not None:
            check_name(self.selection, "--selection")
            read_rules(store, self.selection)
        if self.sheet is not None:
            check_new(self.sheet, "--sheet")
        corpus = Corpus(store, info, find_gap(Ledger(store), info), threads=2)
        try:
            with typed("--like"):
                asked_D = vector_of(corpus, self.like, info.settings)
        except BadSource as bad:
            raise UsageError(f"--like: {self.like}: {bad.reason} ({bad.detail})") from bad
        found = closest(corpus, asked_D, self.num, selection=self.selection, but=self.like.lower())
        clips = [_clip(store, info, each) for each in found]
        Console().print(_table(found, clips))
        if self.sheet is not None and clips:
            self.sheet.write_bytes(contact_sheet(clips, ReportConfig()))
        return 0


def _clip(store: Store, info: CorpusInfo, found: Found) -> dict[str, Any]:
    there = {"sources", *info.layers}
    columns = [column for column in SHOWN if LAYER_OF[column] in there]
    (clip,) = read_clips(store, info.layers, found.part, columns, rows=[found.row]).to_pylist()
    return dict(clip)


def _table(found: list[Found], clips: list[dict[str, Any]]) -> Table:
    table = Table(box=SIMPLE_HEAD)
    table.add_column("cosine", justify="right")
    table.add_column("clip", no_wrap=True)
    for header in ("source, seconds", "caption"):
        table.add_column(header, overflow="fold")
    for each, clip in zip(found, clips, strict=True):
        name = safe_uri(clip["uri"]).rstrip("/").rpartition("/")[2]
        table.add_row(
            f"{each.cosine:.3f}",
            clip["clip_id"],
            Text(f"{cut_text(name, 60)}, {clip['start_s']:.1f} to {clip['end_s']:.1f}"),
            Text(cut_text(clip.get("caption") or "", MAX_CAPTION_CHARS)),
        )
    return table
