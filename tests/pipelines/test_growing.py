"""A later run over a corpus that is there: which layers it would leave behind, what it makes anew."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pyarrow as pa
import pytest

from curation.corpus import layout
from curation.corpus.ledger import Ledger
from curation.corpus.manifest import CorpusInfo
from curation.corpus.parts import to_parquet
from curation.corpus.store import Store
from curation.errors import CorpusError
from pipelines.curate import configure
from pipelines.curation_config import RiverConfig
from pipelines.growing import (
    changes,
    check_filled,
    filled,
    incomplete_layers,
    layers_after,
    refusal,
    settings_on_record,
)
from pipelines.presets import PRESETS

TINY = PRESETS["tiny"]().river
SHORTER = replace(TINY, stations=("captions",))


def corpus_of(root: Path, config: RiverConfig, num_parts: int) -> tuple[Ledger, CorpusInfo]:
    """A corpus whose layers have so many parts, of nothing."""
    store, layers = Store(str(root)), configure(config).layers
    empty = to_parquet(
        pa.table(
            {
                "source_reject": pa.array([], pa.string()),
                "scene_reject": pa.array([], pa.string()),
                "duration_s": pa.array([], pa.float32()),
                "caption_status": pa.array([], pa.string()),
            }
        )
    )
    for layer_id in layers.values():
        for part in range(num_parts):
            store.write(layout.layer(layer_id, part), empty)
    info = CorpusInfo(num_parts=num_parts, layers=layers, settings=asdict(config))
    return Ledger(store), info


def test_a_run_that_would_leave_layers_behind_is_refused_with_their_names_and_the_ways_out(
    tmp_path: Path,
) -> None:
    ledger, info = corpus_of(tmp_path, TINY, 2)
    ids = configure(SHORTER).layers
    assert incomplete_layers(ledger, info, ids, 2) == []  # no new part: nothing is left behind
    incomplete = incomplete_layers(ledger, info, ids, 5)
    error = str(refusal("corpus", incomplete, SHORTER, 5))
    assert "caption_text would lack 3 of 5 parts" in error
    assert "--stations captions caption_text" in error
    assert "--incomplete-layers fill" in error


def test_a_layer_made_of_one_that_this_run_makes_otherwise_is_left_behind_too(
    tmp_path: Path,
) -> None:
    ledger, info = corpus_of(tmp_path, TINY, 2)
    ids = {**info.layers, "captions": "captions@1-other"}
    del ids["caption_text"]
    (layer,) = incomplete_layers(ledger, info, ids, 2)
    assert layer.say(2) == "caption_text was made of another captions than this run makes"


def test_filling_takes_the_settings_on_record_not_those_of_the_run(tmp_path: Path) -> None:
    kept = replace(TINY, caption_text=replace(TINY.caption_text, max_language_characters=123))
    ledger, info = corpus_of(tmp_path, kept, 1)
    incomplete = incomplete_layers(ledger, info, configure(SHORTER).layers, 2)
    run = filled(info, incomplete, SHORTER)
    assert run.stations == ("captions", "caption_text")
    assert run.caption_text == kept.caption_text
    assert configure(run).layers == info.layers
    check_filled(info, incomplete, configure(run).layers)


def test_settings_on_record_that_do_not_make_the_layer_are_said(tmp_path: Path) -> None:
    ledger, info = corpus_of(tmp_path, TINY, 1)
    incomplete = incomplete_layers(ledger, info, configure(SHORTER).layers, 2)
    ids = {**info.layers, "caption_text": "caption_text@9-other"}
    with pytest.raises(CorpusError, match="do not make caption_text@"):
        check_filled(info, incomplete, ids)


def test_a_station_that_is_left_out_keeps_its_settings_on_record(tmp_path: Path) -> None:
    kept = replace(TINY, caption_text=replace(TINY.caption_text, max_language_characters=123))
    _, info = corpus_of(tmp_path, kept, 1)
    settings = settings_on_record(info, asdict(SHORTER))
    assert settings["caption_text"]["max_language_characters"] == 123
    assert settings["stations"] == ("captions",)


def test_other_decoding_says_what_is_done_again_and_what_is_no_longer_current(
    tmp_path: Path,
) -> None:
    ledger, info = corpus_of(tmp_path, TINY, 3)
    other = replace(SHORTER, decode=replace(TINY.decode, sample_fps=1.0))
    ids = configure(other).layers
    assert incomplete_layers(ledger, info, ids, 4) == []
    decoded, captions, lost = changes(ledger, info, ids)
    assert "all sources of 3 parts are decoded again" in decoded
    assert "captions" in captions
    assert lost.startswith("caption_text: of other scenes")
    assert layers_after(info, ids) == ids


def test_a_run_that_only_adds_says_nothing(tmp_path: Path) -> None:
    ledger, info = corpus_of(tmp_path, SHORTER, 3)
    ids = configure(TINY).layers
    assert list(changes(ledger, info, ids)) == []
    assert layers_after(info, ids) == ids
    assert "caption_text" not in layers_after(info, configure(SHORTER).layers, ["caption_text"])
