"""The recipe of lavie-mini: its captions are of films that are there, and a film goes from top to bottom."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise

import pytest
from rich.console import Console

from benchmarks.films import FILMS
from curation.corpus.manifest import CorpusInfo
from curation.select import check_selection
from curation.stations.captions import CaptionsConfig
from curation.weights.catalog import hash_file
from examples.mini import CAPTIONS, SELECTION, Recipe, curation, latents, main
from pipelines import river
from training.data.films import FramesConfig
from training.models.exported import read_objective, read_samples
from training.presets import mini

LINES = [json.loads(line) for line in CAPTIONS.read_text(encoding="utf-8").splitlines()]


def test_every_caption_is_of_a_film_that_packages_ship_and_says_its_licence():
    known = {film.sha256: film for film in FILMS.values()}
    for line in LINES:
        film = known[line["source_sha256"]]
        assert (line["film"], line["licence"]) == (film.name, film.licence)


def test_stretches_of_a_film_do_not_overlap():
    of_film = defaultdict(list)
    for line in LINES:
        assert line["start_s"] < line["end_s"]
        of_film[line["film"]].append((line["start_s"], line["end_s"]))
    for spans in of_film.values():
        assert all(end <= start for (_, end), (start, _) in pairwise(sorted(spans)))


def test_a_stretch_has_a_short_and_a_longer_sentence_and_no_two_share_one():
    assert (
        len({line["short"] for line in LINES})
        == len({line["long"] for line in LINES})
        == len(LINES)
    )
    for line in LINES:
        assert 3 <= len(line["short"].split()) < len(line["long"].split())


def test_the_settings_of_the_recipe_go_together():
    config = curation()
    names = [*river.DECODED_LAYERS, *(s.name for s in river.stations(config.river))]
    check_selection(
        CorpusInfo(num_parts=0, layers={name: f"{name}@1-0" for name in names}),
        SELECTION,
        config.select,
    )
    encoded = latents(mini("base"))
    assert (encoded.sizes_px, encoded.num_frames, encoded.fps) == (((64, 112),), 8, 8.0)


@pytest.mark.slow
def test_a_film_goes_from_top_to_bottom_and_again_without_work(make_video, tmp_path):
    film = make_video(
        tmp_path / "f.mp4", [("red", 60), ("teal", 72), ("gold", 66)], size=(320, 180)
    )
    timed = tmp_path / "timed.jsonl"
    line = {
        "source_sha256": hash_file(film),
        "start_s": 0,
        "end_s": 9,
        "short": "A field of red.",
    }
    timed.write_text(json.dumps(line))
    whole = Recipe()
    captions = CaptionsConfig(engines=("timed",), timed=str(timed))
    recipe = Recipe(
        curation=replace(whole.curation, river=replace(whole.curation.river, captions=captions)),
        autoencoder=replace(
            whole.autoencoder, frames=FramesConfig(size_px=(32, 48), fps=2), steps=2
        ),
        base=replace(
            whole.base,
            phases=(replace(whole.base.phases[0], steps=2, sizes_px=((32, 48),)),),
            data=replace(whole.base.data, batch_size=2, micro_batch_size=2, holdout_share=0.0),
        ),
    )
    console = Console(quiet=True)
    runs = main([str(film)], tmp_path / "mini", recipe, console)
    model = runs / "base" / "model"
    assert read_objective(model).prediction == "velocity"
    assert read_samples(model).width == 48
    companions = {p: p.stat().st_mtime_ns for p in (tmp_path / "mini/companions").rglob("*.*")}
    main([str(film)], tmp_path / "mini", recipe, console)
    assert {path: path.stat().st_mtime_ns for path in companions} == companions
