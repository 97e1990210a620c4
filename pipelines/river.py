"""The stations in their order, and the ids of the layers they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from curation.corpus import layout
from curation.corpus.schema import LAYER_OF
from curation.decode.decoding_pass import DecodingPass
from curation.stations.station import Station, check_order, made_by, settings_digest
from pipelines.curation_config import STATIONS, RiverConfig

DECODED_LAYERS = ("probe", "scenes", "keyframes")


def stations(config: RiverConfig) -> list[Station[Any]]:
    """The keyframe stations that are on, in the order in which a clip meets them.

    Raises:
        MissingColumn: if one reads a column that none before it adds.
    """
    chosen = [
        station(getattr(config, station.name))
        for station in STATIONS
        if station.name in config.stations
    ]
    check_order(chosen)
    return chosen


def upstream(station: Station[Any]) -> list[str]:
    """Names of the layers that a station reads, in river order."""
    read = {LAYER_OF[column] for column in station.needs} | {"scenes"}
    return sorted(read - {"sources"})


def layer_ids(decoding: DecodingPass, chosen: Sequence[Station[Any]]) -> dict[str, str]:
    """Layer name -> id of its folder, for one configuration.

    The digest in an id covers the station's settings, its weights and the ids of the layers it reads: a
    setting changed upstream changes every id downstream of it, and nothing else.
    """
    digest = settings_digest(made_by(decoding), ())
    ids = {
        name: layout.layer_id(name, version=decoding.version, digest=digest)
        for name in DECODED_LAYERS
    }
    for station in chosen:
        digest = settings_digest(made_by(station), [ids[name] for name in upstream(station)])
        ids[station.name] = layout.layer_id(station.name, version=station.version, digest=digest)
    return ids


def stage_after(station: Station[Any], ids: Mapping[str, str]) -> tuple[str, ...]:
    """Stages that must have committed a part before this station can read it."""
    after = ["decode" if name in DECODED_LAYERS else name for name in upstream(station)]
    assert all(name == "decode" or name in ids for name in after)
    return tuple(dict.fromkeys(after))
