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


def test_sources_on_web_servers_are_dealt_so_that_a_part_asks_many_hosts(tmp_path: Path) -> None:
    rows = [f"https://host-{host}.example/{n:02d}.mp4" for host in range(4) for n in range(16)]
    (tmp_path / "list.csv").write_text("uri\n" + "\n".join([*rows, "/films/a.mp4"]))
    sources = listed([str(tmp_path / "list.csv")], ListingConfig(), Console(file=io.StringIO()))
    store = Store(str(tmp_path / "c"))
    dealing = corpus.deal_sources(Ledger(store), sources, sources_per_part=8)
    uris = dealing.new["uri"].to_pylist()
    assert sorted(uris) == sources["uri"].to_pylist()
    assert uris[0] == "/films/a.mp4"
    parts = [uris[start : start + 8] for start in dealing.starts]
    hosts = [len({uri.split("/")[2] for uri in part}) for part in parts[1:-1]]
    assert min(hosts) >= 2  # sorted, each part would ask one
    assert dealing.new.equals(corpus.deal_sources(Ledger(store), sources, sources_per_part=8).new)


def test_a_film_that_a_list_names_and_that_has_another_length_now_is_told(tmp_path: Path) -> None:
    ledger = Ledger(Store(str(tmp_path / "c")))
    (tmp_path / "a.mp4").write_text("a film")
    (tmp_path / "list.csv").write_text("uri\na.mp4\nb.mp4\n")

    def dealing() -> corpus.Dealing:
        sources = listed([str(tmp_path / "list.csv")], ListingConfig(), Console(quiet=True))
        return corpus.deal_sources(ledger, sources, sources_per_part=2)

    dealing().write(ledger)
    CorpusInfo(num_parts=1, layers={"scenes": "s"}).write(ledger.store)
    assert dealing().changed == {}
    (tmp_path / "b.mp4").write_text("came later")
    assert dealing().changed == {}
    (tmp_path / "a.mp4").write_text("another film")
    assert dealing().changed == {str(tmp_path / "a.mp4"): "6 bytes then, 12 now"}
