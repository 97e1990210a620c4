"""What one worker does with one unit: read its files, call the station, commit its layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.corpus import layout
from curation.corpus.ledger import commit_part
from curation.corpus.parts import read_clips, read_table
from curation.corpus.removal import Removed, read_removed, without_removed
from curation.corpus.schema import layer_schema
from curation.corpus.store import Store
from curation.decode.decoding_pass import LAYERS as DECODED
from curation.decode.decoding_pass import DecodingPass
from curation.errors import PASSING, MissingPart, TornPart
from curation.export import ShardPlan, ShardWriter
from curation.sources import SeenFolders
from curation.stations.station import Station, check_output, made_by
from pipelines.again import (
    Again,
    Rows,
    decoded_again,
    read_again,
    read_places,
    rows_of,
    rows_there,
    spliced,
    write_again,
)
from pipelines.run import UnitResult

ROWS_PER_GROUP = {"keyframes": 64}  # about 10 MB of pictures: a gallery reads a few clips of a part


def rejected_counts(probe: pa.Table) -> dict[str, int]:
    """How many sources were rejected for which reason, as counters "rejected: <reason>"."""
    counts = probe["source_reject"].value_counts().to_pylist()
    return {f"rejected: {c['values']}": c["counts"] for c in counts if c["values"] is not None}


@dataclass(slots=True)
class DecodeJob:
    """Part N of the sources -> part N of probe, scenes and keyframes."""

    store: Store
    decoding: DecodingPass
    layers: Mapping[str, str]
    seen: SeenFolders = field(default_factory=SeenFolders)
    """Folders of the sources where they were listed."""
    removed: Removed | None = None
    """What was taken out of the corpus; read by `setup`."""

    def setup(self) -> None:
        """Start the decoder's child process."""
        self.removed = read_removed(self.store)
        self.decoding.setup()

    def run(self, unit: int, plan: Any = None) -> UnitResult:
        """Commit one part; of a noted one that is there, only the sources noted are decoded.

        Args:
            unit: number of the part.
            plan: whether there is a note of it (`pipelines.again`).
        """
        sources = read_table(self.store, layout.sources(unit))
        again = read_again(self.store, unit) if plan else None
        tables = self._decoded_again(unit, sources, again) if again else {}
        # The last one says that it is done: to those who look for parts, and to who goes on with a note.
        names = ("scenes", "keyframes", "probe") if tables else ("probe", "keyframes", "scenes")
        tables = tables or self._decoded(sources)
        result = self._commit(unit, {name: tables[name] for name in names}, sources.num_rows)
        if again:
            write_again(self.store, unit, again.decoded(tables["probe"]["num_scenes"].to_pylist()))
        return result

    def _decoded(self, sources: pa.Table) -> dict[str, pa.Table]:
        for uri in sources.filter(pc.is_null(sources["listing_reject"]))["uri"].to_pylist():
            self.seen.check(uri)
        tables = self.decoding(sources)
        if self.removed is not None and self.removed.removals:
            tables = without_removed(self.removed, tables)
        return tables

    def _decoded_again(self, unit: int, sources: pa.Table, again: Again) -> dict[str, pa.Table]:
        """The three layers with those sources decoded anew that may do better now; empty if not there."""
        try:
            before = {
                name: read_table(self.store, layout.layer(self.layers[name], unit))
                for name in DECODED
            }
        except (MissingPart, TornPart):
            return {}
        reasons = before["probe"]["source_reject"].to_pylist()
        rows = [row for row in again.sources if reasons[row] in PASSING]
        some = sources.take(pa.array(rows, pa.int64()))
        return decoded_again(before, self._decoded(some), rows)

    def _commit(self, unit: int, tables: Mapping[str, pa.Table], num_sources: int) -> UnitResult:
        probe, scenes = tables["probe"], tables["scenes"]
        assert probe.num_rows == num_sources, "every source has one probe row"
        assert sum(probe["num_scenes"].to_pylist()) == scenes.num_rows, "every scene has its source"
        made = made_by(self.decoding)
        commits = []
        for name in tables:
            assert tables[name].schema.equals(layer_schema(name), check_metadata=False), name
            table = tables[name].cast(layer_schema(name))
            commits.append(
                commit_part(
                    self.store,
                    layout.layer_folder(self.layers[name]),
                    unit,
                    table,
                    made_by=made,
                    rows_per_group=ROWS_PER_GROUP.get(name),
                )
            )
        counts = {
            "sources": num_sources,
            "scenes": scenes.num_rows,
            "too short": scenes.num_rows - scenes["scene_reject"].null_count,
            **rejected_counts(probe),
        }
        return UnitResult(counts=counts, commits=commits)

    def close(self) -> None:
        """End the decoder's child process."""
        self.decoding.close()


@dataclass(slots=True)
class StationJob:
    """Part N of the layers a station reads -> part N of the layer it adds."""

    store: Store
    station: Station[Any]
    layers: Mapping[str, str]

    def setup(self) -> None:
        """Load the station's models."""
        self.station.setup()

    def run(self, unit: int, plan: Any = None) -> UnitResult:
        """Commit one part; of a noted one that is there, only the rows noted are made.

        Args:
            unit: number of the part.
            plan: whether there is a note of it (`pipelines.again`).
        """
        again = read_again(self.store, unit) if plan else None
        made = self._made_again(unit, again) if again else None
        table, num_made = made or self._made(unit)
        commit = commit_part(
            self.store,
            layout.layer_folder(self.layers[self.station.name]),
            unit,
            table,
            made_by=made_by(self.station),
        )
        counts = {"clips": num_made, **self.station.counters()}
        return UnitResult(counts=counts, commits=[commit])

    def _made(self, unit: int, rows: Rows | None = None) -> tuple[pa.Table, int]:
        """Rows of the station's layer for the clips of a part, or for some; and their number."""
        where = None if rows is None else np.flatnonzero(rows)
        clips = read_clips(self.store, self.layers, unit, self.station.needs, rows=where)
        added = self.station(clips)
        check_output(self.station, clips, added)
        return added.cast(layer_schema(self.station.name)), clips.num_rows

    def _made_again(self, unit: int, again: Again) -> tuple[pa.Table, int] | None:
        """The layer with the noted rows made anew; None if it is not there or is of other clips."""
        name = self.station.name
        places = read_places(self.store, self.layers, unit)
        try:
            before = read_table(self.store, layout.layer(self.layers[name], unit))
        except (MissingPart, TornPart):
            return None
        there = rows_there(before["clip_id"], places, again)
        if there is None or not (again.fresh or name in again.clips):
            return None
        anew = ~there | rows_of(again.clips.get(name, ()), places)
        if not anew.any():
            return before.cast(layer_schema(name)), 0
        made, num_made = self._made(unit, anew)
        return spliced(before, there, made, anew), num_made

    def close(self) -> None:
        """Nothing to let go of: the process ends with its station."""


@dataclass(slots=True)
class ExportJob:
    """Shard N of a plan -> one tar and its index rows."""

    writer: ShardWriter

    def setup(self) -> None:
        """Find the encoder."""
        self.writer.setup()

    def run(self, unit: int, plan: ShardPlan) -> UnitResult:
        """Commit one shard."""
        return UnitResult(counts=self.writer(plan))

    def close(self) -> None:
        """End the child process that reads the sources."""
        self.writer.close()
