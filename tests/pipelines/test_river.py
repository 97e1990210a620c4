"""Layer ids: what changes them, and what does not."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from curation.corpus.schema import LAYER_OF, LAYERS
from curation.decode.decoding_pass import DecodingPass
from curation.errors import MissingColumn
from curation.stations.station import Station
from pipelines import river
from pipelines.curation_config import STATIONS, RiverConfig, station_names
from pipelines.presets import embedded, tiny


def ids(config: RiverConfig) -> dict[str, str]:
    return river.layer_ids(DecodingPass(config.decode), river.stations(config))


def changed(before: RiverConfig, after: RiverConfig) -> set[str]:
    old, new = ids(before), ids(after)
    return {name for name in old if old[name] != new[name]}


def test_a_setting_changes_the_layer_it_makes_and_those_that_read_it() -> None:
    start = tiny().river
    captions = replace(start.captions, given_columns=("title",))
    assert changed(start, replace(start, captions=captions)) == {"captions", "caption_text"}
    text = replace(start.caption_text, max_language_characters=100)
    assert changed(start, replace(start, caption_text=text)) == {"caption_text"}


def test_another_scene_setting_changes_every_layer() -> None:
    start = tiny().river
    scenes = replace(start.decode.scenes, content_threshold=30.0)
    other = replace(start, decode=replace(start.decode, scenes=scenes))
    assert changed(start, other) == set(ids(start))


def test_settings_that_change_no_value_change_no_layer() -> None:
    start = tiny().river
    other = replace(start, sources_per_part=7, decode=replace(start.decode, threads=4))
    assert changed(start, other) == set()


def test_a_station_without_those_it_reads_is_refused_before_any_work() -> None:
    config = replace(tiny().river, stations=("caption_text",))
    with pytest.raises(
        MissingColumn, match=r"'caption_text' needs 'caption'.*switch 'captions' on"
    ):
        river.stations(config)


def test_the_aesthetic_head_is_refused_on_embeddings_that_are_not_its_own() -> None:
    config = embedded().river
    with pytest.raises(MissingColumn, match="aesthetics"):
        river.stations(replace(config, stations=("embeddings", "aesthetics")))


@pytest.mark.parametrize("station", STATIONS, ids=lambda station: station.name)
def test_a_station_declares_itself_once(station: type[Station[Any]]) -> None:
    setting = {f.name: f for f in fields(RiverConfig)}[station.name]
    assert setting.default_factory is station.config_class
    assert setting.metadata["station"] is station
    made = station(getattr(RiverConfig(), station.name))
    assert made.config == station.config_class()
    assert station.name in LAYERS
    assert set(made.needs) <= LAYER_OF.keys()


def test_the_river_runs_as_the_schema_lists_its_layers() -> None:
    names = [*river.DECODED_LAYERS, *station_names()]
    assert names == list(LAYERS)


def test_an_unknown_station_is_named_with_the_choices() -> None:
    with pytest.raises(ValueError, match=r"must be among embeddings.*got beauty"):
        RiverConfig(stations=("beauty",))
