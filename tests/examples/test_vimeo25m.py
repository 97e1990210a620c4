"""The recipe runs: its own settings are checked, and a small film goes from top to bottom."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from curation.corpus.manifest import CorpusInfo
from curation.corpus.shards import read_index, verify_shards
from curation.corpus.store import Store
from curation.errors import MissingColumn
from curation.select import Rule, check_selection
from examples.vimeo25m import SELECTION, main, settings
from pipelines import river
from pipelines.presets import tiny


def test_the_settings_of_the_recipe_go_together() -> None:
    config = settings()
    names = [*river.DECODED_LAYERS, *(s.name for s in river.stations(config.river))]
    layers = {name: f"{name}@1-0" for name in names}
    check_selection(CorpusInfo(num_parts=0, layers=layers), SELECTION, config.select)
    assert config.river.captions.model_engine == "endpoint"


def test_a_film_becomes_shards_and_a_report_and_nothing_is_printed(
    tmp_path: Path, make_video: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    films = tmp_path / "films"
    films.mkdir()
    make_video(films / "film.mp4", [("red", 60), ("teal", 72), ("gold", 66)], size=(320, 180))
    row = {"uri": "film.mp4", "caption": "a field of red, then teal, then gold"}
    (films / "list.jsonl").write_text(json.dumps(row))
    corpus = str(tmp_path / "corpus")

    paths = main([str(films / "list.jsonl")], corpus, tiny())

    store = Store(corpus)
    clips = read_index(store, SELECTION)
    assert clips.num_rows == 3
    assert set(clips["caption"].to_pylist()) == {row["caption"]}
    assert list(verify_shards(store, SELECTION)) == []
    assert b"<html" in store.read(paths.page)
    assert json.loads(store.read(paths.statistics))["headline"]
    assert capfd.readouterr().out == ""


def test_a_rule_over_a_column_that_nobody_adds_stops_the_recipe_before_any_work(
    tmp_path: Path,
) -> None:
    config = tiny()
    pretty = replace(config.select, rules=(Rule(column="aesthetic_score", min=4.5),))
    with pytest.raises(MissingColumn, match="station 'aesthetics'"):
        main([str(tmp_path / "none.mp4")], str(tmp_path / "c"), replace(config, select=pretty))
    assert not (tmp_path / "c").exists()
