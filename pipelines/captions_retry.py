"""Clips whose caption failed are asked about again: their rows of a committed part are replaced.

A failed caption is a row like any other, so a plain run does not touch it. When asked to, a run
puts `with_retries` over its stages: parts with failures count as not done, the captions stage asks
again about those rows alone and puts the part whole or not at all, and what was made of the old
captions is made anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curation.corpus import layout
from curation.corpus.ledger import commit_part
from curation.corpus.parts import read_clips, read_table
from curation.corpus.schema import layer_schema
from curation.corpus.store import Store
from curation.errors import TornPart
from curation.stations.station import Station, check_output, made_by
from pipelines import river
from pipelines.jobs import StationJob
from pipelines.run import Stage, UnitResult

CAPTIONS = "captions"
FAILED = "failed"


def failed_parts(store: Store, layer_id: str, parts: frozenset[int]) -> frozenset[int]:
    """Those of the committed ``parts`` in which a caption failed; reads one column each."""
    found = set()
    for part in parts:
        status = read_table(store, layout.layer(layer_id, part), ["caption_status"])
        if pc.any(pc.equal(status["caption_status"], FAILED)).as_py():
            found.add(part)
    return frozenset(found)


def made_of_captions(stations: Sequence[Station[Any]]) -> list[str]:
    """Names of the stations that read captions, or what was made of them, in river order."""
    names = [CAPTIONS]
    for station in stations:
        if station.name not in names and set(river.upstream(station)) & set(names):
            names.append(station.name)
    return names[1:]


def with_retries(
    store: Store, stages: Sequence[Stage], stations: Sequence[Station[Any]], ids: Mapping[str, str]
) -> list[Stage]:
    """The stages of a run, such that failed captions are asked for again.

    Layers made of the old captions are deleted first, part by part: killed here, a plain run makes
    them again from what captions there are.

    Args:
        store: the corpus.
        stages: of a plain run, what is committed in their `done`.
        stations: of the run, in river order.
        ids: layer name -> id.
    """
    committed = next((stage.done for stage in stages if stage.name == CAPTIONS), frozenset[int]())
    again = failed_parts(store, ids[CAPTIONS], committed) if committed else committed
    later = made_of_captions(stations)
    for name in later:
        for part in sorted(again):
            store.delete(layout.layer(ids[name], part))
    station_of = {station.name: station for station in stations}
    retried = []
    for stage in stages:
        if stage.name in (CAPTIONS, *later):
            stage = replace(stage, done=stage.done - again)
        if stage.name == CAPTIONS:
            job = RetryFailedJob(store, station_of[CAPTIONS], dict(ids))
            stage = replace(stage, job=job)
        retried.append(stage)
    return retried


@dataclass(slots=True)
class RetryFailedJob:
    """Part N of the captions layer -> the same with its failed rows asked about again.

    A part that is not there yet is made as `StationJob` makes it.
    """

    store: Store
    station: Station[Any]
    layers: Mapping[str, str]

    def setup(self) -> None:
        """Load the station's model."""
        self.station.setup()

    def run(self, unit: int, plan: Any = None) -> UnitResult:
        """Commit one part."""
        place = layout.layer(self.layers[CAPTIONS], unit)
        if not self.store.exists(place):
            return StationJob(self.store, self.station, self.layers).run(unit)
        before = read_table(self.store, place)
        clips = read_clips(self.store, self.layers, unit, self.station.needs)
        if not before["clip_id"].equals(clips["clip_id"]):
            raise TornPart(f"{self.store.root}/{place}: its rows are not those of the scenes")
        rows = np.flatnonzero(pc.equal(before["caption_status"], FAILED).to_numpy())
        if not len(rows):
            commit = commit_part(
                self.store,
                layout.layer_folder(self.layers[CAPTIONS]),
                unit,
                before,
                made_by=made_by(self.station),
            )
            return UnitResult(counts={"clips": 0}, commits=[commit])
        asked = clips.take(pa.array(rows))
        added = self.station(asked)
        check_output(self.station, asked, added)
        after = replace_rows(before, rows, added.cast(layer_schema(CAPTIONS)))
        commit = commit_part(
            self.store,
            layout.layer_folder(self.layers[CAPTIONS]),
            unit,
            after,
            made_by=made_by(self.station),
        )
        counts = {"clips": len(rows), **self.station.counters()}
        return UnitResult(counts=counts, commits=[commit])

    def close(self) -> None:
        """Nothing to let go of: the process ends with its station."""


def replace_rows(table: pa.Table, rows: NDArray[np.intp], others: pa.Table) -> pa.Table:
    """The table with the rows at ``rows`` replaced by those of ``others``, in order."""
    order = np.arange(table.num_rows)
    order[rows] = table.num_rows + np.arange(len(rows))
    both = pa.concat_tables([table.cast(others.schema), others])
    return both.take(pa.array(order)).combine_chunks()
