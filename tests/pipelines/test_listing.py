"""The sources of a run: a trial of the first few, and the run that goes on with the others."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pytest
from rich.console import Console

from curation.corpus import layout
from curation.corpus.ledger import Ledger
from curation.corpus.manifest import CorpusInfo
from curation.corpus.parts import read_table
from curation.corpus.store import Store
from pipelines import corpus
from pipelines.listing import ListingConfig, listed


def test_a_limit_takes_the_first_and_a_later_run_goes_on_with_the_others(tmp_path: Path) -> None:
    folder, store, said = tmp_path / "films", Store(str(tmp_path / "c")), io.StringIO()
    folder.mkdir()
    for name in "dbeac":
        (folder / f"{name}.mp4").write_text(name)

    def run(limit: int | None) -> list[list[str]]:
        sources = listed([str(folder)], ListingConfig(limit=limit), Console(file=said, width=200))
        dealing = corpus.deal_sources(Ledger(store), sources, sources_per_part=2)
        dealing.write(Ledger(store))
        num_parts = dealing.num_parts
        CorpusInfo(num_parts=num_parts, layers={"scenes": "s"}).write(store)
        tables: list[pa.Table] = [read_table(store, layout.sources(n)) for n in range(num_parts)]
        return [[Path(uri).stem for uri in table["uri"].to_pylist()] for table in tables]

    assert run(3) == [["a", "b"], ["c"]]
    assert "the first 3 of 5 sources" in said.getvalue()
    assert run(3) == [["a", "b"], ["c"]]
    assert run(None) == [["a", "b"], ["c"], ["d", "e"]]


def test_settings_that_cannot_be_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="limit must be at least 1, got 0"):
        ListingConfig(limit=0)
    with pytest.raises(ValueError, match="link_roots has no effect"):
        ListingConfig(link_roots=("/",))
