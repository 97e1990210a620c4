"""What a station is: it reads columns of clips and adds columns to them.

A station knows nothing of Ray, of files, or of its neighbours. It is made from its settings, lists the
weights it will load, loads them in `setup` (once, in the process that will do the work) and is then
called with one table after another.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import pyarrow as pa

from curation.corpus.schema import LAYER_OF, layer_schema
from curation.errors import MissingColumn
from curation.weights.catalog import Weight, digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What one worker of a station takes."""

    cpus: float = 1.0
    """Processor cores, also the number of threads the station may start."""
    gpus: float = 0.0
    """Share of a GPU, used only where the cluster has one."""
    memory_bytes: int = 2 * 1024**3
    """Resident memory it stays under; no more workers are put on a machine than have room."""
    custom: Mapping[str, float] = field(default_factory=dict)
    """Resources that a cluster has named itself: a worker goes only where they are."""

    def __post_init__(self) -> None:
        if not self.cpus > 0:
            raise ValueError(f"cpus must be greater than 0, got {self.cpus}")


Config = TypeVar("Config")


class Station(ABC, Generic[Config]):
    """One layer's maker; see the module's docstring for its life.

    A subclass gives `name`, `version`, `config_class`, `needs`, `weights`, `setup` and `__call__`, and
    whatever else it has to say of itself; the river asks for nothing beyond what stands here.

    Args:
        config: its settings; the defaults of `config_class` if not given.
    """

    name: ClassVar[str]
    """Name of its layer, a key of `curation.corpus.schema.LAYERS`, where its columns are declared."""
    version: ClassVar[int]
    """Raised by one whenever the same settings would give other values."""
    config_class: ClassVar[type[Any]]
    """The frozen dataclass of its settings; every field has a default."""
    clips_together: ClassVar[int] = 1
    """Neighbouring clips of one source that it sees in one table, from the source's first clip: all values
    of a clip may depend on these, and on no others."""

    def __init__(self, config: Config | None = None) -> None:
        self.config: Config = self.config_class() if config is None else config

    @property
    @abstractmethod
    def needs(self) -> Sequence[str]:
        """Columns it reads, of clips or of their sources."""

    @property
    def settings(self) -> Any:
        """What of `config` determines the values, a dataclass; its digest names the layer."""
        return self.config

    @property
    def resources(self) -> Resources:
        """What one worker takes."""
        return Resources()

    @property
    def promises(self) -> Mapping[str, str]:
        """Column -> the value that it will write into every row: whose embeddings they are, for one."""
        return {}

    @property
    def accepts(self) -> Mapping[str, Sequence[str]]:
        """Column -> the values that it can work with, compared with what stations before it promise."""
        return {}

    @abstractmethod
    def weights(self) -> Sequence[Weight]:
        """The model files it loads, so that missing ones are found before any work."""

    def check(self) -> None:
        """Find out before any work, in the driver, what `weights` cannot tell: is a server there?

        Raises:
            LavieError: it cannot work; says what to do.
        """
        return

    @abstractmethod
    def setup(self) -> None:
        """Load models; heavy imports happen here and nowhere earlier."""

    @abstractmethod
    def __call__(self, clips: pa.Table) -> pa.Table:
        """Add the layer's columns.

        Args:
            clips: `clip_id` and the columns of `needs`, one row a clip.

        Returns:
            `clip_id` and the layer's columns, the same rows in the same order.
        """

    def counters(self) -> Mapping[str, int]:
        """What the last call took besides time, to be summed over parts."""
        return {}


class Maker(Protocol):
    """What makes a layer: a station, or the decoding pass."""

    @property
    def name(self) -> str:
        """Name of the layer."""

    @property
    def version(self) -> int:
        """Raised by one whenever the same settings would give other values."""

    @property
    def settings(self) -> Any:
        """The frozen dataclass it was made from."""

    def weights(self) -> Sequence[Weight]:
        """The model files it loads."""


def made_by(station: Maker) -> dict[str, Any]:
    """What determines a station's values: name, version, settings, digests of its weights."""
    return {
        "name": station.name,
        "version": station.version,
        "settings": asdict(station.settings),
        "weights": {weight.name: digest(weight) for weight in station.weights()},
    }


def settings_digest(made: Mapping[str, Any], upstream: Iterable[str]) -> str:
    """Twelve hex digits that change when a setting, a weight or a layer it reads from does.

    Args:
        made: from `made_by`.
        upstream: ids of the layers that it reads.
    """
    text = json.dumps([made, sorted(upstream)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def check_order(stations: Sequence[Station[Any]]) -> None:
    """Check that every station finds its columns among those added before it.

    Raises:
        MissingColumn: naming the station, the column and who would add it.
    """
    present = {"sources", "probe", "scenes", "keyframes"}
    promised: dict[str, str] = {}
    for station in stations:
        _check_accepts(station, promised)
        for column in station.needs:
            layer = LAYER_OF.get(column)
            if layer is None:
                raise MissingColumn(f"station {station.name!r} needs {column!r}: no such column")
            if layer not in present:
                raise MissingColumn(
                    f"station {station.name!r} needs {column!r}, which {layer!r} adds: "
                    f"switch {layer!r} on, before it"
                )
        present.add(station.name)
        promised |= station.promises


def _check_accepts(station: Station[Any], promised: Mapping[str, str]) -> None:
    """Check values that are known before any work against those that the station can work with."""
    for column, values in station.accepts.items():
        if column in promised and promised[column] not in values:
            raise MissingColumn(
                f"station {station.name!r} as set needs {column} {' or '.join(map(repr, values))}, "
                f"but {LAYER_OF[column]!r} is set to {promised[column]!r}"
            )


def check_output(station: Station[Any], clips: pa.Table, added: pa.Table) -> None:
    """Check that a station gave what it declares: its columns, their types, the same rows.

    Raises:
        AssertionError: a bug in the station, never bad data.
    """
    expected = layer_schema(station.name)
    assert added.schema.equals(expected, check_metadata=False), (
        f"station {station.name!r} gave {added.schema.names}, declared {expected.names}"
    )
    assert added["clip_id"].equals(clips["clip_id"]), f"station {station.name!r} moved rows"
