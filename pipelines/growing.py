"""What a run would do to a corpus that is there already; asked before any work.

A corpus grows by sources, and by layers. New sources bring new parts, and a layer that this run does not
make would lack them: every reader of that layer would stop there. So such a run is refused, or makes
what is missing from the settings on record, or lets the layer go; as it was told to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

from curation.corpus import layout
from curation.corpus.generations import check_grows
from curation.corpus.ledger import Ledger
from curation.corpus.manifest import CorpusInfo
from curation.corpus.settings import settings_from
from curation.corpus.store import Store
from curation.errors import CorpusError, MissingWeights, UsageError
from curation.export import ExportConfig
from curation.select import SelectConfig
from curation.stations.station import Station
from pipelines import river
from pipelines.curation_config import STATIONS, RiverConfig
from pipelines.recording import committed

OnIncomplete = Literal["refuse", "fill", "drop"]
"""What becomes of layers that a run would leave incomplete."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Incomplete:
    """A layer of earlier runs that this one would leave behind."""

    name: str
    """Of the layer, and of its station."""
    num_lacking: int
    """Parts that it would lack."""
    outdated_by: str | None
    """A layer that it was made of and that this run makes otherwise."""

    def say(self, num_parts: int) -> str:
        """In words."""
        if self.outdated_by is not None:
            return f"{self.name} was made of another {self.outdated_by} than this run makes"
        return f"{self.name} would lack {self.num_lacking} of {num_parts} parts"


@contextmanager
def preset_named(info: CorpusInfo | None, preset: str) -> Iterator[None]:
    """Name the preset of a corpus where a run with another one is refused.

    Args:
        info: contents of the corpus; None where there is none yet.
        preset: that this run's flags begin with.
    """
    try:
        yield
    except (CorpusError, UsageError, MissingWeights) as error:
        if info is None or info.preset in ("", preset):
            raise
        raise type(error)(
            f"{error}. This corpus was made with --preset {info.preset}, and this run has --preset "
            f"{preset}: give --preset {info.preset}, if nothing else is meant"
        ) from error


def lines_up(info: CorpusInfo | None, ids: Mapping[str, str]) -> bool:
    """Whether layers of earlier runs are over the scenes of this one."""
    return info is not None and info.layers.get("scenes") == ids["scenes"]


def incomplete_layers(
    ledger: Ledger, info: CorpusInfo, ids: Mapping[str, str], num_parts: int
) -> list[Incomplete]:
    """Layers that a run leaves out and that would not be whole after it, in river order.

    Args:
        ledger: of the corpus.
        info: its contents.
        ids: layer name -> id, of the run.
        num_parts: parts that the corpus will have.
    """
    if not lines_up(info, ids):
        return []  # they go with their scenes, and `changes` says so
    found: list[Incomplete] = []
    changed = {name for name, layer_id in ids.items() if layer_id != info.layers.get(name)}
    for station in STATIONS:
        name = station.name
        if name in ids or name not in info.layers:
            continue
        done = committed(ledger, layout.layer_folder(info.layers[name]), num_parts)
        read = river.upstream(_on_record(info, station))
        outdated_by = next((layer for layer in read if layer in changed), None)
        if outdated_by is not None:
            changed.add(name)
        if outdated_by is not None or len(done) < num_parts:
            lacking = num_parts - len(done)
            found.append(Incomplete(name=name, num_lacking=lacking, outdated_by=outdated_by))
    return found


def _on_record(info: CorpusInfo, station: type[Station[Any]]) -> Station[Any]:
    """A station with the settings that corpus.json has of it."""
    try:
        config = settings_from(station.config_class, info.settings.get(station.name, {}))
    except ValueError as error:
        raise CorpusError(
            f"the settings on record of {station.name} are of another version of the program "
            f"({error}): run {station.name} too (--stations), under settings of this one"
        ) from error
    return station(config)


def refusal(
    root: str, incomplete: Sequence[Incomplete], config: RiverConfig, num_parts: int
) -> CorpusError:
    """Why a run is refused, and the ways out."""
    names = {layer.name for layer in incomplete} | set(config.stations)
    together = " ".join(station.name for station in STATIONS if station.name in names)
    return CorpusError(
        f"{root} has layers that this run leaves out and that would not be whole after it: "
        f"{'; '.join(layer.say(num_parts) for layer in incomplete)}. Run their stations too "
        f"(--stations {together}), or let the settings on record do it (--incomplete-layers fill), or "
        f"give these layers up (--incomplete-layers drop); nothing was changed"
    )


def filled(info: CorpusInfo, incomplete: Sequence[Incomplete], config: RiverConfig) -> RiverConfig:
    """The run with the stations of incomplete layers, as they are on record."""
    names = {layer.name for layer in incomplete} | set(config.stations)
    recorded = {
        station.name: _on_record(info, station).config
        for station in STATIONS
        if station.name not in config.stations and station.name in info.layers
    }
    return replace(
        config,
        stations=tuple(station.name for station in STATIONS if station.name in names),
        **recorded,
    )


def check_filled(
    info: CorpusInfo, incomplete: Sequence[Incomplete], ids: Mapping[str, str]
) -> None:
    """Raise if the settings on record do not make the layers that the corpus has.

    Raises:
        CorpusError: names the first.
    """
    for layer in incomplete:
        if layer.outdated_by is None and ids[layer.name] != info.layers[layer.name]:
            raise CorpusError(
                f"the settings and model files on record do not make {info.layers[layer.name]}, they "
                f"make {ids[layer.name]}: give --stations {layer.name} with the settings that it had, "
                f"or give the layer up (--incomplete-layers drop); nothing was changed"
            )


def settings_on_record(info: CorpusInfo | None, config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings for corpus.json: those of the run, and of a station it leaves out those of its layer."""
    before = {} if info is None else info.settings
    names = {station.name for station in STATIONS} - set(config["stations"])
    kept = {name: before[name] for name in names & set(before)}
    return {**config, **kept}


def changes(ledger: Ledger, info: CorpusInfo, ids: Mapping[str, str]) -> Iterator[str]:
    """What a run with other settings makes anew, in words; nothing where it only adds."""
    for name in ("scenes", *(station.name for station in STATIONS)):
        if name not in ids or info.layers.get(name) in (None, ids[name]):
            continue
        done = committed(ledger, layout.layer_folder(ids[name]), info.num_parts)
        todo = info.num_parts - len(done)
        if todo and name == "scenes":
            yield (
                f"decode: other settings than the corpus was decoded with: all sources of {todo} parts "
                f"are decoded again, and every station works anew"
            )
        elif todo:
            yield f"{name}: other settings, model files or input than before: {todo} parts are made anew"
    lost = [] if lines_up(info, ids) else [name for name in info.layers if name not in ids]
    if lost:
        yield (
            f"{', '.join(sorted(lost))}: of other scenes, so no longer current; their files stay until "
            f"they are deleted"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedShards:
    """What the measured corpus is for: shards that are there must be able to grow by it."""

    selection: str
    """Name of the selection, of its shards and its report."""
    rules: SelectConfig
    """By which clips are selected."""
    export: ExportConfig
    """By which they are cut and packed."""

    def check(self, store: Store, layers: Mapping[str, str]) -> None:
        """Raise if there are shards of this name that were made otherwise.

        Raises:
            CorpusError: names what differs and the ways out.
        """
        check_grows(store, self.selection, rules=self.rules, layers=layers, export=self.export)


def layers_after(
    info: CorpusInfo | None, ids: Mapping[str, str], dropped: Sequence[str] = ()
) -> dict[str, str]:
    """Layers that are current after a run: its own, and those of earlier runs over the same scenes."""
    earlier = info.layers if info is not None and lines_up(info, ids) else {}
    return {name: layer for name, layer in {**earlier, **ids}.items() if name not in dropped}
