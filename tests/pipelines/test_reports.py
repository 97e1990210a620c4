"""A report is written from every corpus that curate can make: real files, real layers, no Ray."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from curation.corpus.ledger import Ledger
from curation.corpus.manifest import CorpusInfo
from curation.corpus.store import Store
from curation.report import ReportConfig, write_report
from curation.select import SelectConfig, parse_rule, select
from curation.sources import list_sources
from pipelines import corpus as corpora
from pipelines import curate
from pipelines.jobs import DecodeJob, StationJob
from pipelines.presets import tiny


def film(make_video: Callable[..., Path], path: Path) -> None:
    make_video(path, [("red", 54), ("teal", 54)], size=(128, 72), options={"preset": "ultrafast"})


def picture(path: Path, seed: int) -> None:
    Image.effect_noise((200, 120), 40 + seed).convert("RGB").save(path)


@pytest.fixture
def measured(tmp_path: Path) -> Callable[..., tuple[Store, CorpusInfo]]:
    """``measured(folder, stations, sources_per_part=2)``: every layer of a corpus of its files."""

    def make(
        folder: Path, stations: Sequence[type] | None = None, *, sources_per_part: int = 2
    ) -> tuple[Store, CorpusInfo]:
        store = Store(str(tmp_path / "corpus"))
        river = curate.configure(tiny().river)
        dealing = corpora.deal_sources(
            Ledger(store), list_sources([str(folder)]), sources_per_part=sources_per_part
        )
        dealing.write(Ledger(store))
        num_parts = dealing.num_parts
        chosen = river.stations if stations is None else []
        layers = {
            name: layer
            for name, layer in river.layers.items()
            if stations is None or name in ("probe", "scenes", "keyframes")
        }
        info = CorpusInfo(num_parts=num_parts, layers=layers, created_by="tests")
        info.write(store)
        jobs: list[Any] = [DecodeJob(store, river.decoding, river.layers)]
        jobs += [StationJob(store, station, river.layers) for station in chosen]
        for job in jobs:
            job.setup()
            for part in range(num_parts):
                job.run(part, None)
            job.close()
        return store, info

    return make


def report(store: Store, info: CorpusInfo, *rules: str) -> tuple[dict[str, Any], str]:
    """Statistics and page of a selection with some typed rules, where copies stay."""
    config = SelectConfig(
        rules=tuple(parse_rule(text) for text in rules), dedup=tiny().select.dedup
    )
    select(store, info, "default", config)
    paths = write_report(store, info, "default", ReportConfig())
    return json.loads(store.read(paths.statistics)), store.read(paths.page).decode()


def test_the_same_bytes_under_several_names_have_a_card_for_each(tmp_path, make_video, measured):
    """Three names in two parts: ids repeat within a part and between parts."""
    folder = tmp_path / "films"
    folder.mkdir()
    film(make_video, folder / "a.mp4")
    for name in ("b.mp4", "c.mp4"):
        (folder / name).write_bytes((folder / "a.mp4").read_bytes())
    statistics, page = report(*measured(folder))
    kept = statistics["contact_sheet"]["kept"]
    assert sorted(card["name"] for card in kept) == ["a.mp4"] * 2 + ["b.mp4"] * 2 + ["c.mp4"] * 2
    assert len({card["clip_id"] for card in kept}) == 2
    assert page.count("data:image/jpeg;base64,") == 6


def test_images_alone_and_a_rule_on_motion_does_not_drop_them(tmp_path, measured):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        picture(folder / f"{number}.png", number)
    store, info = measured(folder)
    statistics, page = report(store, info, "motion_mean>=q0.25", "duration_s>=2")
    assert statistics["funnel"]["kept"]["clips"] == 3
    assert "(videos)" in page
    statistics, _ = report(store, info, "motion_mean(all)>=0.01")
    assert statistics["funnel"]["kept"]["clips"] == 0


def test_one_clip_nothing_kept_and_no_captions(tmp_path, make_video, measured):
    folder = tmp_path / "films"
    folder.mkdir()
    make_video(folder / "a.mp4", [("red", 60)], size=(128, 72))
    store, info = measured(folder, stations=())
    statistics, page = report(store, info)
    assert statistics["headline"]["clips"] == 1
    assert "caption" in {entry["column"].split("_")[0] for entry in statistics["left_out"]}
    statistics, page = report(store, info, "fps>=1000")
    assert statistics["headline"]["kept_clips"] == 0
    assert "keeps no clip" in page


def test_all_sources_rejected(tmp_path, measured):
    folder = tmp_path / "films"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.mp4").write_text(f"no film {number}")
    store, info = measured(folder)
    statistics, page = report(store, info)
    assert statistics["headline"]["clips"] == 0
    assert [len(entry["named"]) for entry in statistics["rejected_sources"]] == [3]
    assert "2.mp4" in page
    rows = csv.DictReader(io.StringIO(store.read("reports/default/rejected_sources.csv").decode()))
    assert [row["reason"] for row in rows] == ["unknown_format"] * 3


def test_a_container_without_a_duration(tmp_path, make_video, measured, run_ffmpeg):
    """A raw transport stream and a live Matroska say nothing of their length."""
    folder = tmp_path / "films"
    folder.mkdir()
    make_video(tmp_path / "a.mp4", [("red", 60)], size=(128, 72))
    run_ffmpeg("-i", tmp_path / "a.mp4", "-c", "copy", "-f", "mpegts", folder / "a.ts")
    run_ffmpeg(
        "-i", tmp_path / "a.mp4", "-c", "copy", "-live", "1", "-f", "matroska", folder / "b.mkv"
    )
    statistics, _ = report(*measured(folder))
    assert statistics["headline"]["kept_clips"] == 2
