"""What one worker does with one unit: read its files, call the station, commit its layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from curation.corpus import layout
from curation.corpus.ledger import commit_part
from curation.corpus.parts import read_clips, read_table
from curation.corpus.schema import layer_schema
from curation.corpus.store import Store
from curation.decode.decoding_pass import DecodingPass
from curation.export import ShardPlan, ShardWriter
from curation.sources import SeenFolders
from curation.stations.station import Station, check_output, made_by
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

    def setup(self) -> None:
        """Start the decoder's child process."""
        self.decoding.setup()

    def run(self, unit: int, plan: Any = None) -> UnitResult:
        """Commit one part; `scenes` last, since it is the file that says the unit is done."""
        sources = read_table(self.store, layout.sources(unit))
        for uri in sources["uri"].to_pylist():
            self.seen.check(uri)
        tables = self.decoding(sources)
        probe, scenes = tables["probe"], tables["scenes"]
        assert probe.num_rows == sources.num_rows, "every source has one probe row"
        assert sum(probe["num_scenes"].to_pylist()) == scenes.num_rows, "every scene has its source"
        made = made_by(self.decoding)
        commits = []
        for name in ("probe", "keyframes", "scenes"):
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
            "sources": sources.num_rows,
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
        """Commit one part."""
        clips = read_clips(self.store, self.layers, unit, self.station.needs)
        added = self.station(clips)
        check_output(self.station, clips, added)
        name = self.station.name
        commit = commit_part(
            self.store,
            layout.layer_folder(self.layers[name]),
            unit,
            added.cast(layer_schema(name)),
            made_by=made_by(self.station),
        )
        counts = {"clips": clips.num_rows, **self.station.counters()}
        return UnitResult(counts=counts, commits=[commit])

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
