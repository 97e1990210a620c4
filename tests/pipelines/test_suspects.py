"""The source that ends its worker becomes a row with a reason; its neighbours go on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import ray

from curation.corpus import layout
from curation.corpus.ledger import Ledger
from curation.corpus.parts import read_table
from curation.corpus.store import Store
from curation.decode.decoding_pass import DecodingPass
from curation.errors import MachineFault
from curation.sources import list_sources
from pipelines import river
from pipelines.corpus import deal_sources
from pipelines.jobs import DecodeJob
from pipelines.presets import tiny
from pipelines.ray_cluster import start_ray
from pipelines.run import Stage, run_stages
from pipelines.suspects import MAX_SUSPECTS, Suspects, blame_in_hand, read_suspects, write_suspects
from pipelines.tries import UnitsFailed


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "corpus"))


def in_hand(store: Store, row: int | None) -> None:
    write_suspects(store, 0, replace(read_suspects(store, 0), in_hand=row))


def test_a_source_is_left_out_after_it_has_ended_two_careful_tries(store: Store) -> None:
    blame = blame_in_hand(store)
    in_hand(store, 3)
    assert blame(0, "it died")
    assert read_suspects(store, 0).quarantined == {}
    in_hand(store, 3)
    assert blame(0, "it died again")
    assert read_suspects(store, 0).quarantined == {3: "it died again"}


def test_nobody_is_to_blame_for_a_worker_that_had_no_source_in_hand(store: Store) -> None:
    blame = blame_in_hand(store)
    assert not blame(0, "it did not start")
    in_hand(store, 3)
    assert blame(0, "it died")
    assert not blame(0, "it died before it touched a source")


def test_it_is_not_the_sources_where_many_of_one_part_would_be_to_blame(store: Store) -> None:
    blame = blame_in_hand(store)
    told = []
    for row in range(MAX_SUSPECTS + 1):
        in_hand(store, row)
        told.append(blame(0, "it died"))
    assert told == [True] * MAX_SUSPECTS + [False]


@dataclass(frozen=True)
class Poison:
    """What one source does to whoever decodes it."""

    name: str
    kind: str

    def __call__(self, uri: str) -> None:
        if not uri.endswith(self.name):
            return
        if self.kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.kind == "raise":
            raise RuntimeError(f"a bug shows at {self.name}")
        raise MachineFault("the disk is full")


class Poisoned(DecodingPass):
    """The decoding pass, and a source that it does not survive."""

    def __init__(self, *poisons: Poison) -> None:
        super().__init__(tiny().river.decode)
        self.poisons = poisons

    def _tables_of(self, listed: dict[str, Any], scratch: Path) -> dict[str, Any]:
        for poison in self.poisons:
            poison(listed["uri"])
        return super()._tables_of(listed, scratch)


class Silent:
    """A watcher that shows nothing."""

    def start(self, stage: str, *, total: int, done: int) -> None:
        pass

    def advance(self, stage: str, counts: Any) -> None:
        pass


@pytest.fixture(scope="module")
def films(
    tmp_path_factory: pytest.TempPathFactory, make_video: Callable[..., Path]
) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("films")
    for name in "abcd":
        make_video(folder / f"{name}.mp4", [(f"red/{name}", 40)], size=(160, 90), fps=24)
    start_ray(num_cpus=1)
    yield folder
    ray.shutdown()


def decode(folder: Path, films: Path, *poisons: Poison) -> tuple[Store, dict[str, str]]:
    store = Store(str(folder))
    sources = list_sources([str(films)])
    deal_sources(Ledger(store), sources, sources_per_part=4).write(Ledger(store))
    decoding = Poisoned(*poisons)
    ids = river.layer_ids(decoding, [])
    stage = Stage(
        name="decode",
        job=DecodeJob(store, decoding, ids),
        resources=replace(decoding.resources, memory_bytes=0),
        units=range(1),
        blame=blame_in_hand(store),
    )
    run_stages([stage], Silent())
    return store, ids


def test_a_part_with_sources_that_kill_or_raise_is_done_without_them(
    tmp_path: Path, films: Path
) -> None:
    poisons = (Poison("b.mp4", "kill"), Poison("d.mp4", "raise"))
    store, ids = decode(tmp_path / "poisoned", films, *poisons)
    probe = read_table(store, layout.layer(ids["probe"], 0)).to_pylist()
    assert [row["source_reject"] for row in probe] == [None, "quarantined", None, "quarantined"]
    assert "its worker died" in probe[1]["source_reject_detail"]
    assert "a bug shows at d.mp4" in probe[3]["source_reject_detail"]
    assert store.files(layout.SUSPECTS) == []
    whole, ids = decode(tmp_path / "whole", films)
    expected = read_table(whole, layout.layer(ids["scenes"], 0)).to_pylist()
    found = read_table(store, layout.layer(ids["scenes"], 0)).to_pylist()
    assert found == [row for row in expected if row["source_row"] in (0, 2)]


def test_a_full_disk_is_no_source_to_blame_however_often_it_is_met(
    tmp_path: Path, films: Path
) -> None:
    with pytest.raises(UnitsFailed, match="the disk is full"):
        decode(tmp_path / "full", films, Poison("b.mp4", "full disk"))
    store = Store(str(tmp_path / "full"))
    assert read_suspects(store, 0) == Suspects(in_hand=1)
