"""What one worker does with one unit: read its files, call the station, commit its layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curation.corpus import layout
from curation.corpus.ledger import commit_part
from curation.corpus.parts import num_clips, read_clips, read_table
from curation.corpus.removal import Removed, read_removed, without_removed
from curation.corpus.schema import layer_schema
from curation.corpus.store import Store
from curation.decode.decoding_pass import LAYERS as DECODED
from curation.decode.decoding_pass import DecodingPass
from curation.errors import MissingPart, TornPart
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
from pipelines.metrics import KEPT_S, VIDEO_S
from pipelines.run import UnitResult
from pipelines.suspects import forget_suspects, read_suspects, write_suspects

ROWS_PER_GROUP = {"keyframes": 64}  # about 10 MB of pictures: a gallery reads a few clips of a part


Places = NDArray[np.int64]
"""Numbers of rows."""
Decode = Callable[[pa.Table, Sequence[int]], dict[str, pa.Table]]
"""Sources and their rows in the part -> tables of the decoded layers."""
CLIPS_AT_ONCE = 256
"""Clips of which a station has the pictures in memory: 423 KB each on average, 4 groups of rows."""


def block_starts(sources: Places, together: int) -> Places:
    """Places at which clips may be told apart that a station must see together.

    Args:
        sources: ``[N]`` source of each clip; clips of one source follow each other.
        together: clips of a source, from its first.

    >>> block_starts(np.array([3, 3, 3, 3, 3, 8, 8]), 2).tolist()
    [0, 2, 4, 5]
    """
    first = np.flatnonzero(np.diff(sources, prepend=-1))
    within = np.arange(len(sources)) - np.repeat(first, np.diff(np.append(first, len(sources))))
    return np.flatnonzero(within % together == 0)


def rejected_counts(probe: pa.Table) -> dict[str, int]:
    """How many sources were rejected for which reason, as counters "rejected: <reason>"."""
    counts = probe["source_reject"].value_counts().to_pylist()
    return {f"rejected: {c['values']}": c["counts"] for c in counts if c["values"] is not None}


def _seconds(probe: pa.Table, scenes: pa.Table) -> dict[str, int]:
    """Whole seconds of video that were read, and of those in scenes that are long enough."""
    kept = scenes.filter(pc.is_null(scenes["scene_reject"]))["duration_s"]
    return {
        VIDEO_S: round(pc.sum(probe["source_duration_s"]).as_py() or 0),
        KEPT_S: round(pc.sum(kept).as_py() or 0),
    }


@dataclass(slots=True)
class DecodeJob:
    """Part N of the sources -> part N of probe, scenes and keyframes."""

    store: Store
    decoding: DecodingPass
    layers: Mapping[str, str]
    seen: SeenFolders = field(default_factory=SeenFolders)
    """Folders of the sources where they were listed."""
    moved: Mapping[str, str] = field(default_factory=dict)
    """Address of a source that is not there any more -> where the same bytes lie."""
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
        return self._run(unit, plan, lambda sources, rows: self.decoding(sources))

    def run_carefully(self, unit: int, plan: Any = None) -> UnitResult:
        """As `run`, for a part that failed: each source is written down before it is touched.

        Those that have ended careful tries before are left out (`pipelines.suspects`).
        """
        known = replace(read_suspects(self.store, unit), in_hand=None)
        write_suspects(self.store, unit, known)

        def decode(sources: pa.Table, rows: Sequence[int]) -> dict[str, pa.Table]:
            def before(place: int) -> None:
                write_suspects(self.store, unit, replace(known, in_hand=rows[place]))

            why = known.quarantined
            left_out = {place: why[row] for place, row in enumerate(rows) if row in why}
            return self.decoding(sources, left_out=left_out, before=before)

        result = self._run(unit, plan, decode)
        forget_suspects(self.store, unit)
        return result

    def _run(self, unit: int, plan: Any, decode: Decode) -> UnitResult:
        sources = read_table(self.store, layout.sources(unit))
        again = read_again(self.store, unit) if plan else None
        tables = self._decoded_again(unit, sources, again, decode) if again else {}
        # The last one says that it is done: to those who look for parts, and to who goes on with a note.
        names = ("scenes", "keyframes", "probe") if tables else ("probe", "keyframes", "scenes")
        tables = tables or self._decoded(sources, range(sources.num_rows), decode)
        result = self._commit(unit, {name: tables[name] for name in names}, sources.num_rows)
        if again:
            write_again(self.store, unit, again.decoded(tables["probe"]["num_scenes"].to_pylist()))
        return result

    def _decoded(
        self, sources: pa.Table, rows: Sequence[int], decode: Decode
    ) -> dict[str, pa.Table]:
        places = [self.moved.get(uri, uri) for uri in sources["uri"].to_pylist()]
        at = sources.schema.get_field_index("uri")
        sources = sources.set_column(at, sources.schema.field(at), pa.array(places, pa.string()))
        for uri in sources.filter(pc.is_null(sources["listing_reject"]))["uri"].to_pylist():
            self.seen.check(uri)
        tables = decode(sources, rows)
        if self.removed is not None and self.removed.removals:
            tables = without_removed(self.removed, tables)
        return tables

    def _decoded_again(
        self, unit: int, sources: pa.Table, again: Again, decode: Decode
    ) -> dict[str, pa.Table]:
        """The three layers with those sources decoded anew that may do better now; empty if not there."""
        try:
            before = {
                name: read_table(self.store, layout.layer(self.layers[name], unit))
                for name in DECODED
            }
        except (MissingPart, TornPart):
            return {}
        reasons = before["probe"]["source_reject"].to_pylist()
        rows = [row for row in again.sources if reasons[row] is not None]
        some = sources.take(pa.array(rows, pa.int64()))
        return decoded_again(before, self._decoded(some, rows, decode), rows)

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
            **_seconds(probe, scenes),
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
        table, counts = made or self._made(unit)
        commit = commit_part(
            self.store,
            layout.layer_folder(self.layers[self.station.name]),
            unit,
            table,
            made_by=made_by(self.station),
        )
        return UnitResult(counts=counts, commits=[commit])

    def _made(self, unit: int, rows: Rows | None = None) -> tuple[pa.Table, Counter[str]]:
        """Rows of the station's layer for the clips of a part, or for some; and what they took."""
        where = None if rows is None else np.flatnonzero(rows)
        made, counted = [layer_schema(self.station.name).empty_table()], Counter[str]()
        for some in self._some_at_once(unit, where):
            clips = read_clips(self.store, self.layers, unit, self.station.needs, rows=some)
            added = self.station(clips)
            check_output(self.station, clips, added)
            made.append(added.cast(layer_schema(self.station.name)))
            counted.update(self.station.counters())
        table = pa.concat_tables(made).combine_chunks()
        counted["clips"] = table.num_rows
        return table, counted

    def _some_at_once(self, unit: int, where: Places | None) -> Iterator[Places | None]:
        """Rows to read together: all, but of pictures only so many as fit into memory.

        Args:
            unit: number of the part.
            where: the rows that are wanted, rising; None for all.
        """
        if "keyframes" not in self.station.needs:
            yield where
            return
        if where is None:
            where = np.arange(num_clips(self.store, self.layers, unit))
        if len(where) <= CLIPS_AT_ONCE:
            yield where
            return
        together = self.station.clips_together
        begins = np.arange(len(where))
        if together > 1:
            clips = read_clips(self.store, self.layers, unit, ["source_row"], rows=where)
            begins = block_starts(clips["source_row"].to_numpy(), together)
        start = 0
        while start < len(where):
            later = begins[begins > start + CLIPS_AT_ONCE - together]
            end = int(later[0]) if len(later) else len(where)
            yield where[start:end]
            start = end

    def _made_again(self, unit: int, again: Again) -> tuple[pa.Table, Counter[str]] | None:
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
            return before.cast(layer_schema(name)), Counter()
        made, counts = self._made(unit, anew)
        return spliced(before, there, made, anew), counts

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
