"""A small corpus, made by hand, is exported; the shards are read as a researcher would."""

import hashlib
import json
import subprocess
import sys
import tarfile
import uuid
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pytest
from PIL import Image

from curation.corpus import layout
from curation.corpus.generations import record_rules, shards_state
from curation.corpus.manifest import CorpusInfo, canonical_json
from curation.corpus.parts import LAYER_METADATA, read_table, to_parquet
from curation.corpus.schema import SELECTION, SOURCES, layer_schema, schema
from curation.corpus.shards import (
    manifest_digest,
    read_index,
    read_manifest,
    read_sample,
    verify_shards,
)
from curation.corpus.store import Store
from curation.errors import CorpusError, TornPart
from curation.export import ExportConfig, ShardPlan, ShardWriter, finish_shards, plan_shards
from curation.export.clips import Media
from curation.export.facts import sample_facts
from curation.export.shard_plan import pieces
from curation.select import SelectConfig

FPS = 24
SCENE_FRAMES = 30
FAST = ExportConfig(x264_preset="ultrafast", max_clips_per_shard=3)
LAYERS = {
    name: layout.layer_id(name, version=1, digest="0" * 12) for name in ("probe", "scenes")
} | {name: layout.layer_id(name, version=1, digest="1" * 12) for name in ("safety", "captions")}
NAMESPACE = uuid.UUID(int=1)
CHOSEN: dict[str, Any] = {"version": 1, "config": asdict(SelectConfig())}


def table(names: pa.Schema, rows: list[dict[str, Any]]) -> pa.Table:
    """Rows with the columns they name, null in all others."""
    return pa.Table.from_pylist([dict.fromkeys(names.names) | row for row in rows], schema=names)


def source_rows(path: Path, media: str) -> tuple[dict[str, Any], dict[str, Any]]:
    listed = {"uri": str(path), "media": media, "size_bytes": path.stat().st_size}
    listed |= {"licence": "CC0-1.0", "author": "somebody"}
    probed = {
        "source_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "container": "mov" if media == "video" else "png_pipe",
        "codec": "h264" if media == "video" else "png",
        "source_width": 128,
        "source_height": 72,
        "rotation_deg": 0,
        "bit_depth": 8,
        "pixel_format": "yuv420p",
        "source_duration_s": 0.0,
        "source_num_frames": 1,
    }
    return listed, probed


def scene_rows(path: Path, media: str, source_row: int) -> list[dict[str, Any]]:
    """The scenes of a film of 30 frames each, or the one of an image."""
    if media == "video":
        with av.open(str(path)) as container:
            base = container.streams.video[0].time_base
            pts = [frame.pts for frame in container.decode(video=0)]
        pts.append(pts[-1] + round(Fraction(1, FPS) / base))
        spans = [(b, b + SCENE_FRAMES) for b in range(0, len(pts) - 1, SCENE_FRAMES)]
    else:
        base, pts, spans = Fraction(1, 25), [0, 0], [(0, 1)]
    return [
        {
            "clip_id": str(uuid.uuid5(NAMESPACE, f"{path.name} {begin}")),
            "source_row": source_row,
            "scene_index": index,
            "start_pts": pts[begin],
            "end_pts": pts[end],
            "time_base_num": base.numerator,
            "time_base_den": base.denominator,
            "start_s": float(pts[begin] * base),
            "end_s": float(pts[end] * base),
            "duration_s": float((pts[end] - pts[begin]) * base),
            "start_frame": begin,
            "num_frames": end - begin,
            "fps": float(FPS) if media == "video" else None,
            "width": 128,
            "height": 72,
            "colour": "smpte170m/limited/unspecified/unspecified",
            "interlaced": "progressive",
            "motion_mean": 0.25 if index % 2 else None,  # null in some: types must not waver
            "brightness_mean": 100.0,
        }
        for index, (begin, end) in enumerate(spans)
    ]


def write_corpus(root: Path | str, parts: list[list[tuple[Path, str]]]) -> tuple[Store, CorpusInfo]:
    """Sources, probe, scenes, safety and captions of some films and images, all kept."""
    store = Store(str(root))
    for part, media in enumerate(parts):
        both = [source_rows(path, kind) for path, kind in media]
        scenes = [s for row, (path, kind) in enumerate(media) for s in scene_rows(path, kind, row)]
        kinds = [kind for path, kind in media for _ in scene_rows(path, kind, 0)]
        captions = [
            {
                "clip_id": s["clip_id"],
                "caption": f"scene {s['scene_index']}" if s["motion_mean"] else None,
                "caption_engine": ("tags", "given")[part % 2] if s["motion_mean"] else None,
            }
            for s in scenes
        ]
        safety = [{"clip_id": s["clip_id"], "nsfw_score": 0.01} for s in scenes]
        verdicts = [
            {
                "clip_id": s["clip_id"],
                "keep": s["scene_index"] != 2,
                "failed_rules": ["motion"] if s["scene_index"] == 2 else [],
                "bucket": None if s["scene_index"] == 2 else f"16x9-{kind}",
                "sampling_weight": None if s["scene_index"] == 2 else 1.0,
                "split": None if s["scene_index"] == 2 else "train",
            }
            for s, kind in zip(scenes, kinds, strict=True)
        ]
        files = {
            layout.sources(part): table(schema(SOURCES), [listed for listed, _ in both]),
            layout.layer(LAYERS["probe"], part): table(
                layer_schema("probe"), [probed for _, probed in both]
            ),
            layout.layer(LAYERS["scenes"], part): table(layer_schema("scenes"), scenes),
            layout.layer(LAYERS["safety"], part): table(layer_schema("safety"), safety),
            layout.layer(LAYERS["captions"], part): table(layer_schema("captions"), captions),
            f"selections/all/{layout.part_file(part)}": table(schema(SELECTION), verdicts),
        }
        for name, content in files.items():
            store.write(name, to_parquet(content))
    rules = CHOSEN | {"num_parts": len(parts)}
    store.write("selections/all/rules.json", canonical_json(rules))
    info = CorpusInfo(num_parts=len(parts), layers=LAYERS)
    info.write(store)
    return store, info


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory, make_video: Any, texture: Any) -> list[Path]:
    """Two films of four scenes each and two images."""
    folder = tmp_path_factory.mktemp("media")
    films = [
        make_video(
            folder / f"film {number}.mp4",
            [(look, SCENE_FRAMES) for look in looks],
            size=(128, 72),
            options={"preset": "ultrafast", "threads": "1", "g": "15"},
        )
        for number, looks in enumerate(
            (("red", "teal", "olive", "navy"), ("pink", "green", "grey", "gold"))
        )
    ]
    images = [folder / "one.png", folder / "two.png"]
    for number, path in enumerate(images):
        Image.fromarray(texture(f"teal/{number}", (128, 72))).save(path)
    return [*films, *images]


@pytest.fixture
def corpus(tmp_path: Path, media: list[Path]) -> tuple[Store, CorpusInfo]:
    films = [(path, "video") for path in media[:2]]
    images = [(path, "image") for path in media[2:]]
    return write_corpus(tmp_path / "corpus", [[films[0], images[0]], [films[1], images[1]]])


def export(
    store: Store, info: CorpusInfo, config: ExportConfig = FAST
) -> tuple[dict[str, Any], list[ShardPlan]]:
    plans = list(plan_shards(store, info, "all", config))
    writer = ShardWriter(store, info, "all", config)
    writer.setup()
    for plan in plans:
        if not writer.is_done(plan):
            writer(plan)
    return finish_shards(store, "all"), plans


@pytest.fixture(scope="session")
def exported(
    tmp_path_factory: pytest.TempPathFactory, media: list[Path]
) -> tuple[Store, dict[str, Any]]:
    """A finished export that tests only read."""
    root = tmp_path_factory.mktemp("exported")
    parts = [[(media[0], "video"), (media[2], "image")], [(media[1], "video"), (media[3], "image")]]
    store, info = write_corpus(root, parts)
    manifest, _ = export(store, info)
    return store, manifest


def retry(store: Store, info: CorpusInfo) -> tuple[dict[str, Any], list[ShardPlan]]:
    """Export also what failed for reasons that may pass."""
    plans = list(plan_shards(store, info, "all", FAST, retry_failed=True))
    writer = ShardWriter(store, info, "all", FAST)
    writer.setup()
    for plan in plans:
        writer(plan)
    return finish_shards(store, "all"), plans


def tars(store: Store, bucket: str) -> list[str]:
    folder = f"shards/all/{bucket}"
    return [store.path(name) for name in store.files(folder) if name.endswith(".tar")]


def files_of(store: Store) -> dict[str, bytes]:
    return {name: store.read(name) for name in store.files("shards", recursive=True)}


def test_clips_are_dealt_bucket_by_bucket_in_the_order_of_the_corpus(
    corpus: tuple[Store, CorpusInfo],
) -> None:
    store, info = corpus
    plans = list(plan_shards(store, info, "all", FAST))
    # Rows of a part: four scenes of a film, of which the third is rejected, then an image.
    assert [(p.name, p.clips.to_pydict()) for p in plans] == [
        ("16x9-image/000000", {"part": [0, 1], "row": [4, 4]}),
        ("16x9-video/000000", {"part": [0, 0, 0], "row": [0, 1, 3]}),
        ("16x9-video/000001", {"part": [1, 1, 1], "row": [0, 1, 3]}),
    ]


def test_where_bars_are_cut_off_buckets_are_by_what_is_left(
    corpus: tuple[Store, CorpusInfo],
) -> None:
    store, info = corpus
    place = layout.layer(LAYERS["scenes"], 0)
    scenes = read_table(store, place).to_pylist()
    for row, area in ((0, [40, 0, 44, 72]), (1, [0, 0, 128, 72])):
        scenes[row]["picture_area"] = area
    store.write(place, to_parquet(table(layer_schema("scenes"), scenes)))
    plans = list(plan_shards(store, info, "all", replace(FAST, crop_borders=True)))
    # Of 128x72 are all but the first clip, whose bars leave 44x72; what was not measured counts as whole.
    assert [(p.name, p.clips.to_pydict()) for p in plans] == [
        ("16x9-under320p-image/000000", {"part": [0, 1], "row": [4, 4]}),
        ("16x9-under320p-under2s/000000", {"part": [0, 0, 1], "row": [1, 3, 0]}),
        ("16x9-under320p-under2s/000001", {"part": [1, 1], "row": [1, 3]}),
        ("9x16-under320p-under2s/000000", {"part": [0], "row": [0]}),
    ]
    writer = ShardWriter(store, info, "all", replace(FAST, crop_borders=True))
    writer.setup()
    writer(plans[-1])
    with tarfile.open(tars(store, "9x16-under320p-under2s")[0]) as tar:
        (name,) = (name for name in tar.getnames() if name.endswith(".json"))
        facts = json.load(tar.extractfile(name))
    assert facts["bucket"] == "9x16-under320p-under2s"
    assert (facts["media_width"], facts["media_height"]) == (44, 72)


def test_shards_fill_up_to_both_limits_and_a_long_clip_has_its_own() -> None:
    config = ExportConfig(max_clips_per_shard=3, max_seconds_per_shard=10.0)
    seconds = np.array([4, 4, 2, 1, 1, 1, 1, 12, 5, 5, 5])
    bounds = list(pieces(seconds * 1_000_000, config))
    assert bounds == [(0, 3), (3, 6), (6, 7), (7, 8), (8, 10), (10, 11)]


def test_every_selected_clip_has_one_row_and_the_counts_add_up(
    exported: tuple[Store, dict[str, Any]],
) -> None:
    store, manifest = exported
    assert (manifest["num_selected"], manifest["num_clips"], manifest["num_failed"]) == (8, 8, 0)
    assert manifest["num_shards"] == 3
    index = read_index(store, "all", failed=True)
    assert index.num_rows == 8
    assert len(set(index["clip_id"].to_pylist())) == 8
    assert index["width"].to_pylist() == [128] * 8
    assert index["num_frames"].to_pylist() == [1, 1, 30, 30, 30, 30, 30, 30]
    assert index["fps"].to_pylist() == [None, None, *[pytest.approx(24)] * 6]
    assert index["duration_s"].to_pylist() == [0, 0, *[pytest.approx(1.25)] * 6]


def test_the_manifest_counts_the_clips_that_each_engine_captioned(
    exported: tuple[Store, dict[str, Any]],
) -> None:
    # Of each film the scenes 1 and 3 have captions: tags wrote those of the first, a list of the other.
    store, manifest = exported
    assert manifest["caption_engines"] == {"given": 2, "tags": 2}
    index = read_index(store, "all", ["caption", "caption_engine"]).to_pylist()
    assert sorted(row["caption_engine"] for row in index if row["caption"]) == [
        *("given", "given", "tags", "tags")
    ]


def test_offsets_are_those_that_tarfile_finds_and_ranges_give_the_members(
    exported: tuple[Store, dict[str, Any]],
) -> None:
    store, _ = exported
    for row in read_index(store, "all").to_pylist():
        name = f"shards/all/{row['shard']}"
        with tarfile.open(store.path(name)) as tar:
            found = {m.name: m for m in tar.getmembers() if m.name.startswith(row["key"])}
            for part, member in (
                ("media", found[row["media_name"]]),
                ("json", found[f"{row['key']}.json"]),
                ("txt", found[f"{row['key']}.txt"]),
            ):
                assert row[f"{part}_offset"] == member.offset_data
                assert row[f"{part}_size"] == member.size
                file = tar.extractfile(member)
                assert file is not None
                assert file.read() == store.read_range(
                    name, offset=row[f"{part}_offset"], size_bytes=row[f"{part}_size"]
                )


def test_tar_members_are_regular_files_without_owner_or_clock(
    exported: tuple[Store, dict[str, Any]],
) -> None:
    store, _ = exported
    for path in tars(store, "16x9-video") + tars(store, "16x9-image"):
        with tarfile.open(path) as tar:
            for member in tar.getmembers():
                assert member.isreg()
                owner = (member.uid, member.gid, member.uname, member.gname)
                assert (member.mtime, *owner) == (0, 0, 0, "", "")


def test_a_sample_read_by_its_bytes_is_the_scene_it_says(
    exported: tuple[Store, dict[str, Any]], media: list[Path]
) -> None:
    store, _ = exported
    rows = [r for r in read_index(store, "all").to_pylist() if r["bucket"] == "16x9-video"]
    sample = read_sample(store, "all", rows[1])
    facts = sample.facts
    assert (sample.extension, sample.caption) == ("mp4", "scene 1")
    assert facts["clip_id"] == sample.key == str(uuid.uuid5(NAMESPACE, "film 0.mp4 30"))
    assert facts["uri"] == str(media[0])
    assert facts["source_sha256"] == hashlib.sha256(media[0].read_bytes()).hexdigest()
    assert facts["media_sha256"] == hashlib.sha256(sample.media).hexdigest()
    assert (facts["licence"], facts["author"], facts["title"]) == ("CC0-1.0", "somebody", "")
    assert (facts["start_frame"], facts["num_frames"], facts["bucket"]) == (30, 30, "16x9-video")
    scores = {score["name"]: score["value"] for score in facts["scores"]}
    assert scores["nsfw_score"] == pytest.approx(0.01)
    assert scores["motion_mean"] == pytest.approx(0.25)
    unknown = {s["name"] for s in read_sample(store, "all", rows[0]).facts["scores"]}
    assert "motion_mean" not in unknown


def test_no_value_of_the_json_is_null_or_an_empty_list(
    exported: tuple[Store, dict[str, Any]],
) -> None:
    store, _ = exported
    shapes = set()
    for row in read_index(store, "all").to_pylist():
        facts = read_sample(store, "all", row).facts
        assert all(value is not None and value != [] for value in facts.values())
        shapes.add(tuple((key, type(value)) for key, value in facts.items()))
    assert len(shapes) == 1


def test_webdataset_reads_the_shards(exported: tuple[Store, dict[str, Any]]) -> None:
    import webdataset as wds

    store, _ = exported
    urls = [f"file:{path}" for path in tars(store, "16x9-video")]
    samples = list(wds.WebDataset(urls, shardshuffle=False))
    assert len(samples) == 6
    for sample in samples:
        facts = json.loads(sample["json"])
        assert sample["__key__"] == facts["clip_id"]
        assert hashlib.sha256(sample["mp4"]).hexdigest() == facts["media_sha256"]
        assert sample["txt"].decode() in ("", "scene 1", "scene 3")


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize(("bucket", "field"), [("16x9-video", "mp4"), ("16x9-image", "jpg")])
def test_huggingface_datasets_reads_the_shards(
    bucket: str,
    field: str,
    streaming: bool,
    exported: tuple[Store, dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    store, _ = exported
    kept = datasets.load_dataset(
        "webdataset",
        data_files={"train": tars(store, bucket)},
        split="train",
        streaming=streaming,
        cache_dir=str(tmp_path),
    )
    kind = datasets.Video if field == "mp4" else datasets.Image
    rows = list(kept.cast_column(field, kind(decode=False)))
    assert len(rows) == (6 if field == "mp4" else 2)
    for row in rows:
        assert row["__key__"] == row["json"]["clip_id"]
        data = row[field]["bytes"]
        assert hashlib.sha256(data).hexdigest() == row["json"]["media_sha256"]


def test_pyarrow_dataset_reads_the_index_with_a_filter(
    exported: tuple[Store, dict[str, Any]],
) -> None:
    store, _ = exported
    index = pads.dataset(store.path("shards/all/index.parquet"))
    found = index.to_table(
        columns=["clip_id", "shard", "media_offset", "media_size"],
        filter=(pads.field("num_frames") >= 16) & pads.field("caption").is_valid(),
    )
    assert found.num_rows == 4
    assert index.schema.field("media_offset").metadata[b"unit"] == b"bytes"


def test_the_same_corpus_gives_the_same_bytes(
    corpus: tuple[Store, CorpusInfo], exported: tuple[Store, dict[str, Any]]
) -> None:
    store, info = corpus
    export(store, info)
    assert files_of(store) == files_of(exported[0])


def test_a_run_killed_anywhere_and_run_again_gives_the_same_bytes_and_redoes_no_shard(
    corpus: tuple[Store, CorpusInfo],
    exported: tuple[Store, dict[str, Any]],
) -> None:
    store, info = corpus
    wanted = files_of(exported[0])
    plans = list(plan_shards(store, info, "all", FAST))
    # As after a kill behind the second shard's tar: one shard is done, a tar has no rows yet.
    writer = ShardWriter(store, info, "all", FAST)
    writer.setup()
    writer(plans[0])
    store.write(f"shards/all/{plans[1].name}.tar", b"other bytes")
    untouched = Path(store.path(f"shards/all/{plans[0].name}.tar")).stat().st_mtime_ns
    assert [writer.is_done(plan) for plan in plans] == [True, False, False]
    with pytest.raises(CorpusError, match="2 of 3 shards are missing"):
        finish_shards(store, "all")
    export(store, info)
    assert Path(store.path(f"shards/all/{plans[0].name}.tar")).stat().st_mtime_ns == untouched
    assert files_of(store) == wanted


def test_a_process_killed_in_mid_shard_leaves_nothing_that_counts_as_done(
    corpus: tuple[Store, CorpusInfo], exported: tuple[Store, dict[str, Any]]
) -> None:
    store, info = corpus
    script = """
import os, signal, sys
from curation.corpus.manifest import read_corpus
from curation.corpus.store import Store
from curation.export import ExportConfig, ShardWriter, plan_shards
import curation.export.write as write
store = Store(sys.argv[1])
config = ExportConfig(x264_preset="ultrafast", max_clips_per_shard=3)
writer = ShardWriter(store, read_corpus(store), "all", config)
plans = list(plan_shards(store, read_corpus(store), "all", config))
writer.setup()
writer(plans[1])
cut, cuts = write.cut, []
def cut_then_die(*arguments):
    cuts.append(1)
    if len(cuts) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return cut(*arguments)
write.cut = cut_then_die
writer(plans[2])
"""
    done = subprocess.run([sys.executable, "-c", script, store.root], check=False, timeout=60)
    assert done.returncode == -9
    writer = ShardWriter(store, info, "all", FAST)
    plans = list(plan_shards(store, info, "all", FAST))
    assert [writer.is_done(plan) for plan in plans] == [False, True, False]
    export(store, info)
    assert files_of(store) == files_of(exported[0])


def test_shards_made_otherwise_are_named_with_what_differs_and_nothing_is_touched(
    corpus: tuple[Store, CorpusInfo],
) -> None:
    store, info = corpus
    export(store, info)
    before = files_of(store)
    with pytest.raises(CorpusError, match=r"export\.crf: 18 then, 30 now"):
        list(plan_shards(store, info, "all", replace(FAST, crf=30)))
    other = replace(info, layers=info.layers | {"safety": "safety@2-222222222222"})
    with pytest.raises(CorpusError, match=r"not complete now.*: parts 0, 1 without safety"):
        list(plan_shards(store, other, "all", FAST))
    for part in range(info.num_parts):
        data = store.read(layout.layer(info.layers["safety"], part))
        store.write(layout.layer(other.layers["safety"], part), data)
    before = files_of(store)
    with pytest.raises(CorpusError, match=r"layers\.safety: .*1111.* then, .*2222.* now"):
        list(plan_shards(store, other, "all", FAST))
    config = asdict(SelectConfig(quality_column="nsfw_score"))
    other_rules = CHOSEN | {"config": config, "num_parts": info.num_parts}
    store.write("selections/all/rules.json", canonical_json(other_rules))
    with pytest.raises(CorpusError, match=r"rules\.quality_column: none then, \"nsfw_score\" now"):
        list(plan_shards(store, info, "all", FAST))
    assert files_of(store) == before


def test_clips_that_cannot_be_cut_are_rows_with_a_reason(tmp_path: Path, media: list[Path]) -> None:
    gone, changed, damaged = (tmp_path / f"{name}.mp4" for name in ("gone", "changed", "damaged"))
    film = media[0].read_bytes()
    for path in (gone, changed, damaged):
        path.write_bytes(film)
    parts = [[(gone, "video"), (changed, "video"), (damaged, "video"), (media[1], "video")]]
    store, info = write_corpus(tmp_path / "corpus", parts)
    gone.unlink()
    changed.write_bytes(film + b"\0")
    # The decoder's verdict changes although the bytes do not: the plan asks for a frame too many.
    name = layout.layer(LAYERS["scenes"], 0)
    rows = read_table(store, name).to_pylist()
    for row in rows[8:12]:
        row["num_frames"] += 1
    store.write(name, to_parquet(table(layer_schema("scenes"), rows)))
    manifest, _ = export(store, info)
    assert (manifest["num_selected"], manifest["num_clips"], manifest["num_failed"]) == (12, 3, 9)
    assert manifest["failed"] == {"changed": 3, "frames_missing": 3, "not_found": 3}
    # Three shards of the four hold no sample: they have rows but no tar.
    assert manifest["num_shards"] == 1
    index = read_index(store, "all", failed=True)
    failed = index.filter(index["shard"].is_null())
    assert failed["export_reject"].to_pylist() == [
        *["not_found"] * 3,
        *["changed"] * 3,
        *["frames_missing"] * 3,
    ]
    assert all(failed["export_reject_detail"].to_pylist())
    assert read_index(store, "all").num_rows == 3
    assert list(verify_shards(store, "all")) == []


def test_clips_that_failed_in_passing_are_cut_by_a_later_export_that_is_told_to(
    tmp_path: Path, media: list[Path]
) -> None:
    gone = tmp_path / "gone.mp4"
    gone.write_bytes(media[0].read_bytes() + b"\0")
    parts = [[(gone, "video"), (media[1], "video")]]
    store, info = write_corpus(tmp_path / "corpus", parts)
    name = layout.layer(LAYERS["scenes"], 0)
    rows = read_table(store, name).to_pylist()
    of_gone = [row["clip_id"] for row in rows if row["source_row"] == 0]
    rows[-1]["num_frames"] += 1  # lasting: no such frame
    store.write(name, to_parquet(table(layer_schema("scenes"), rows)))
    film = gone.read_bytes()
    gone.unlink()
    first, _ = export(store, info)
    num_passing, before = first["failed"]["not_found"], files_of(store)
    assert first["failed"] == {"not_found": num_passing, "frames_missing": 1}
    assert export(store, info)[1] == []
    manifest, plans = retry(store, info)  # it is still gone
    assert sum(len(plan.clips) for plan in plans) == num_passing
    assert manifest["failed"] == first["failed"]
    assert manifest["num_selected"] == first["num_selected"]
    gone.write_bytes(film)
    plans = list(plan_shards(store, info, "all", FAST, retry_failed=True))
    writer = ShardWriter(store, info, "all", FAST)
    writer.setup()
    writer(plans[0])  # and killed: a plain export ends what was begun
    manifest, _ = export(store, info)
    assert manifest["failed"] == {"frames_missing": 1}
    assert manifest["num_clips"] == first["num_clips"] + num_passing
    index = read_index(store, "all", failed=True)
    tried = dict(zip(index["clip_id"].to_pylist(), index["tried_before"].to_pylist(), strict=True))
    assert len(tried) == index.num_rows == first["num_selected"]
    assert {clip_id for clip_id, number in tried.items() if number == 2} <= {*of_gone}
    assert sorted(number for number in tried.values() if number) == [2] * num_passing
    assert retry(store, info)[1] == []
    assert list(verify_shards(store, "all")) == []
    finished = {name: data for name, data in before.items() if name.count("/") == 3}
    assert {name: files_of(store)[name] for name in finished} == finished


def test_the_same_bytes_listed_twice_give_two_samples_with_keys_of_their_own(
    tmp_path: Path, media: list[Path]
) -> None:
    twin = tmp_path / media[0].name  # clip_ids of this file's helper go by the name
    twin.write_bytes(media[0].read_bytes())
    parts = [[(media[0], "video"), (twin, "video")]]
    store, info = write_corpus(tmp_path / "corpus", parts)
    export(store, info, replace(FAST, max_clips_per_shard=10))
    index = read_index(store, "all").to_pylist()
    assert [row["key"] for row in index[3:]] == [f"{row['clip_id']}-1" for row in index[:3]]
    with tarfile.open(tars(store, "16x9-video")[0]) as tar:
        names = tar.getnames()
    assert len(names) == len(set(names)) == 18


def test_a_corpus_in_an_object_store_gives_the_same_shards(
    s3_bucket: str, media: list[Path], exported: tuple[Store, dict[str, Any]]
) -> None:
    parts = [[(media[0], "video"), (media[2], "image")], [(media[1], "video"), (media[3], "image")]]
    store, info = write_corpus(f"{s3_bucket}/corpus", parts)
    export(store, info)
    assert files_of(store) == files_of(exported[0])
    assert list(verify_shards(store, "all")) == []


def test_a_kept_selection_without_a_clip_has_no_shards(corpus: tuple[Store, CorpusInfo]) -> None:
    store, info = corpus
    for part in range(info.num_parts):
        place = f"selections/all/{layout.part_file(part)}"
        rows = read_table(store, place).to_pylist()
        verdicts = [row | {"keep": False, "failed_rules": ["motion"]} for row in rows]
        store.write(place, to_parquet(table(schema(SELECTION), verdicts)))
    assert list(plan_shards(store, info, "all", FAST)) == []


def test_an_unfinished_selection_is_not_exported(corpus: tuple[Store, CorpusInfo]) -> None:
    store, info = corpus
    store.delete("selections/all/rules.json")
    with pytest.raises(CorpusError, match="no finished selection"):
        list(plan_shards(store, info, "all", FAST))


def test_copied_shards_hold_playable_clips(corpus: tuple[Store, CorpusInfo]) -> None:
    store, info = corpus
    config = replace(FAST, cut="copy", min_copied_s=0.5, min_copied_frames=8)
    manifest, _ = export(store, info, config)
    assert manifest["num_failed"] == 0
    for row in read_index(store, "all").to_pylist():
        if row["media_name"].endswith("mp4"):
            data = read_sample(store, "all", row).media
            path = Path(store.root) / "clip.mp4"
            path.write_bytes(data)
            with av.open(str(path)) as container:
                assert len(list(container.decode(video=0))) == row["num_frames"] <= 30


def test_a_flipped_byte_is_found_wherever_it_is(
    corpus: tuple[Store, CorpusInfo], exported: tuple[Store, dict[str, Any]]
) -> None:
    store, _ = corpus
    for name, data in files_of(exported[0]).items():
        store.write(name, data)
    assert list(verify_shards(store, "all")) == []
    names = [*read_manifest(store, "all")["files"], "manifest.json"]
    assert len(names) == 9  # three tars, their rows, the index, the plan, the manifest
    for name in names:
        place = f"shards/all/{name}"
        data = bytearray(store.read(place))
        for position in (0, len(data) // 3, len(data) // 2, len(data) - 1):
            data[position] ^= 1
            store.write(place, bytes(data))
            faults = list(verify_shards(store, "all"))
            assert len(faults) == 1, (name, position)
            assert name in faults[0]
            data[position] ^= 1
        store.write(place, bytes(data[:-1]))
        assert len(list(verify_shards(store, "all"))) == 1
        store.write(place, bytes(data))


def test_rows_of_another_plan_are_not_taken_into_the_index(
    corpus: tuple[Store, CorpusInfo],
) -> None:
    store, info = corpus
    _, plans = export(store, info)
    name = f"shards/all/{plans[0].name}.parquet"
    other = to_parquet(read_index(store, "all"), made_by={"export": "ffffffffffff", "tar": None})
    store.write(name, other)
    store.delete("shards/all/manifest.json")
    with pytest.raises(TornPart, match="not made from a plan of these shards"):
        finish_shards(store, "all")


@pytest.fixture
def deliveries(media: list[Path]) -> list[list[tuple[Path, str]]]:
    """Two parts that come one after the other."""
    return [
        [(media[0], "video"), (media[2], "image")],
        [(media[1], "video"), (media[3], "image")],
    ]


def change_verdicts(store: Store, part: int, change: Any) -> None:
    """Put ``change(row, number)`` in the place of each verdict on one part."""
    name = f"selections/all/{layout.part_file(part)}"
    rows = read_table(store, name).to_pylist()
    changed = [row | change(row, number) for number, row in enumerate(rows)]
    store.write(name, to_parquet(table(schema(SELECTION), changed)))


REJECTED = {
    "keep": False,
    "failed_rules": ["motion"],
    "bucket": None,
    "sampling_weight": None,
    "split": None,
}


def test_a_second_delivery_is_a_generation_of_its_own_and_finished_files_stay(
    tmp_path: Path, deliveries: list[list[tuple[Path, str]]]
) -> None:
    store, info = write_corpus(tmp_path / "corpus", deliveries[:1])
    first, _ = export(store, info)
    before = files_of(store)
    store, info = write_corpus(tmp_path / "corpus", deliveries)
    manifest, plans = export(store, info)
    after = files_of(store)
    assert [plan.name for plan in plans] == ["16x9-image/000001", "16x9-video/000001"]
    kept = {name for name in before if name.count("/") == 3} | {"shards/all/plan.json"}
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    generations = [(g["generation"], g["num_clips"]) for g in manifest["generations"]]
    assert generations == [(1, 4), (2, 4)]
    assert manifest["generations"][0] == first["generations"][0]
    assert (manifest["num_selected"], manifest["num_clips"]) == (8, 8)
    index = read_index(store, "all")
    assert dict(zip(index["shard"].to_pylist(), index["generation"].to_pylist(), strict=True)) == {
        "16x9-image/000000.tar": 1,
        "16x9-image/000001.tar": 2,
        "16x9-video/000000.tar": 1,
        "16x9-video/000001.tar": 2,
    }
    once, info = write_corpus(tmp_path / "once", deliveries)
    export(once, info)
    whole = read_index(once, "all")["clip_id"].to_pylist()
    assert sorted(index["clip_id"].to_pylist()) == sorted(whole)
    for row in index.to_pylist():
        assert read_sample(store, "all", row).facts["clip_id"] == row["clip_id"]
    assert list(verify_shards(store, "all")) == []


def test_exporting_again_with_nothing_new_rewrites_nothing(
    tmp_path: Path, deliveries: list[list[tuple[Path, str]]]
) -> None:
    for parts in (deliveries[:1], deliveries):
        store, info = write_corpus(tmp_path / "corpus", parts)
        export(store, info)
    paths = [path for path in (tmp_path / "corpus/shards").rglob("*") if path.is_file()]
    times = {path: path.stat().st_mtime_ns for path in paths}
    manifest, plans = export(store, info)
    assert (plans, len(manifest["generations"])) == ([], 2)
    assert {path: path.stat().st_mtime_ns for path in paths} == times


def test_a_delivery_without_a_kept_clip_changes_nothing_that_is_read(
    tmp_path: Path, deliveries: list[list[tuple[Path, str]]]
) -> None:
    store, info = write_corpus(tmp_path / "corpus", deliveries[:1])
    first, _ = export(store, info)
    store, info = write_corpus(tmp_path / "corpus", deliveries)
    change_verdicts(store, 1, lambda row, number: REJECTED)
    state = shards_state(store, "all")
    assert state is not None
    assert not state.is_own
    manifest, plans = export(store, info)
    assert plans == []
    assert manifest["contents"] == first["contents"]
    assert len(manifest["generations"]) == 1
    state = shards_state(store, "all")
    assert state is not None
    assert (state.is_own, state.is_unfinished, state.num_generations) == (True, False, 1)


def test_clips_that_fall_out_stay_in_their_tars_and_the_index_says_so(
    tmp_path: Path, deliveries: list[list[tuple[Path, str]]]
) -> None:
    store, info = write_corpus(tmp_path / "corpus", deliveries[:1])
    export(store, info)
    before = files_of(store)
    store, info = write_corpus(tmp_path / "corpus", deliveries)
    change_verdicts(store, 0, lambda row, number: REJECTED if number == 0 else {"tier": "high"})
    manifest, _ = export(store, info)
    assert (manifest["num_selected"], manifest["num_no_longer_selected"]) == (7, 1)
    assert manifest["num_clips"] == 8
    rows = read_index(store, "all", dropped=True).to_pylist()
    (fallen,) = [row for row in rows if not row["still_selected"]]
    assert (fallen["shard"], fallen["tier"]) == ("16x9-video/000000.tar", None)
    assert {row["tier"] for row in rows if row["generation"] == 1} == {None, "high"}
    assert fallen["clip_id"] not in read_index(store, "all")["clip_id"].to_pylist()
    assert read_sample(store, "all", fallen).facts["clip_id"] == fallen["clip_id"]
    name = "shards/all/16x9-video/000000.tar"
    assert store.read(name) == before[name]
    # A clip that comes back is there already.
    change_verdicts(store, 0, lambda row, number: {"keep": True, "bucket": "16x9-video"})
    change_verdicts(store, 0, lambda row, number: REJECTED if number == 2 else {})
    manifest, plans = export(store, info)
    assert (plans, manifest["num_no_longer_selected"], manifest["num_selected"]) == ([], 0, 8)


def test_a_generation_killed_in_the_middle_ends_with_the_same_bytes(
    tmp_path: Path, deliveries: list[list[tuple[Path, str]]]
) -> None:
    stores = []
    for name in ("undisturbed", "killed"):
        store, info = write_corpus(tmp_path / name, deliveries[:1])
        export(store, info)
        store, info = write_corpus(tmp_path / name, deliveries)
        stores.append(store)
    undisturbed, killed = stores
    export(undisturbed, info)
    manifest = read_manifest(killed, "all")
    plans = list(plan_shards(killed, info, "all", FAST))
    writer = ShardWriter(killed, info, "all", FAST)
    writer.setup()
    writer(plans[0])
    killed.write(f"shards/all/{plans[1].name}.tar", b"a tar whose rows were never written")
    assert read_manifest(killed, "all") == manifest  # readers still have the first generation
    assert read_index(killed, "all").num_rows == 4
    _, again = export(killed, info)
    assert [plan.name for plan in again] == [plan.name for plan in plans]
    assert files_of(killed) == files_of(undisturbed)


def test_what_an_export_made_before_its_selection_changed_is_kept_and_not_cut_twice(
    tmp_path: Path, deliveries: list[list[tuple[Path, str]]]
) -> None:
    store, info = write_corpus(tmp_path / "corpus", deliveries[:1])
    plans = list(plan_shards(store, info, "all", FAST))
    writer = ShardWriter(store, info, "all", FAST)
    writer.setup()
    writer(plans[0])
    done = store.read(f"shards/all/{plans[0].name}.tar")
    store.write(f"shards/all/{plans[1].name}.tar", b"a tar whose rows were never written")
    store, info = write_corpus(tmp_path / "corpus", deliveries)
    manifest, _ = export(store, info)
    assert store.read(f"shards/all/{plans[0].name}.tar") == done
    assert [(g["generation"], g["num_clips"]) for g in manifest["generations"]] == [(1, 1), (2, 7)]
    ids = read_index(store, "all")["clip_id"].to_pylist()
    assert len(ids) == len(set(ids)) == 8
    assert list(verify_shards(store, "all")) == []
    tars = {name for name in files_of(store) if name.endswith(".tar")}
    assert tars == {f"shards/all/{name}" for name in manifest["files"] if name.endswith(".tar")}


def test_an_export_that_had_made_nothing_is_planned_anew(
    tmp_path: Path, deliveries: list[list[tuple[Path, str]]]
) -> None:
    store, info = write_corpus(tmp_path / "corpus", deliveries[:1])
    list(plan_shards(store, info, "all", FAST))
    store, info = write_corpus(tmp_path / "corpus", deliveries)
    export(store, info)
    once, info = write_corpus(tmp_path / "once", deliveries)
    export(once, info)
    assert files_of(store).keys() == files_of(once).keys()
    assert len(read_manifest(store, "all")["generations"]) == 1


def test_a_plan_of_which_nothing_was_made_does_not_bind_other_settings(
    tmp_path: Path, deliveries: list[list[tuple[Path, str]]]
) -> None:
    store, info = write_corpus(tmp_path / "corpus", deliveries[:1])
    list(plan_shards(store, info, "all", FAST))
    other = replace(FAST, crf=30)
    manifest, _ = export(store, info, other)
    assert manifest["made_by"]["settings"]["crf"] == 30
    assert len(manifest["generations"]) == 1
    with pytest.raises(CorpusError, match=r"export\.crf: 30 then, 18 now"):
        export(store, info)


def as_format_1(store: Store) -> None:
    """Turn a finished export of one generation into what the format before was."""
    manifest = read_manifest(store, "all")
    plan = json.loads(store.read("shards/all/plan.json"))
    plan = {k: v for k, v in plan.items() if k not in ("digest", "generation", "rules")} | {
        "format_version": 1
    }
    for counts in plan["buckets"].values():
        del counts["first_shard"]
    index = read_table(store, "shards/all/index.parquet")
    index = index.drop_columns(["generation", "still_selected", "caption_engine"])
    for name in store.files("shards/all", recursive=True):
        if name.count("/") == 3 and name.endswith(".parquet"):
            rows = read_table(store, name).drop_columns(["caption_engine"])
            made = json.loads(rows.schema.metadata[LAYER_METADATA])
            store.write(name, to_parquet(rows.replace_schema_metadata(None), made_by=made))
    store.write("shards/all/plan.json", canonical_json(plan))
    store.write("shards/all/index.parquet", to_parquet(index))
    files = {}
    for name, entry in manifest["files"].items():
        if name != "plan.json":
            data = store.read(f"shards/all/{name}")
            files[name] = {k: v for k, v in entry.items() if k != "generation"}
            files[name] |= {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
    counted = {k: manifest[k] for k in ("num_clips", "num_failed", "failed", "num_shards")}
    old = plan | counted | {"files": files}
    store.write("shards/all/manifest.json", canonical_json(old | {"digest": manifest_digest(old)}))


def test_shards_of_format_1_are_read_left_alone_and_grow(
    tmp_path: Path, deliveries: list[list[tuple[Path, str]]]
) -> None:
    store, info = write_corpus(tmp_path / "corpus", deliveries[:1])
    export(store, info)
    whole = read_index(store, "all")
    as_format_1(store)
    before = files_of(store)
    engine = whole.column_names.index("caption_engine")
    nobody = pa.nulls(whole.num_rows, pa.string())
    assert read_index(store, "all").equals(
        whole.set_column(engine, whole.schema.field("caption_engine"), nobody)
    )
    assert list(verify_shards(store, "all")) == []
    assert (
        export(store, info)[0]["contents"]
        == json.loads(before["shards/all/manifest.json"])["digest"]
    )
    assert files_of(store) == before
    record_rules(store, "all")  # as `select` does before it replaces the verdicts
    store, info = write_corpus(tmp_path / "corpus", deliveries)
    manifest, _ = export(store, info)
    assert (manifest["format_version"], len(manifest["generations"])) == (2, 2)
    assert manifest["caption_engines"] == {"given": 2, "unknown": 2}
    after = files_of(store)
    shards = [name for name in before if name.count("/") == 3]
    assert {name: after[name] for name in shards} == {name: before[name] for name in shards}
    assert list(verify_shards(store, "all")) == []


def test_shards_of_format_1_whose_selection_was_replaced_do_not_grow(
    tmp_path: Path, deliveries: list[list[tuple[Path, str]]]
) -> None:
    store, info = write_corpus(tmp_path / "corpus", deliveries[:1])
    export(store, info)
    as_format_1(store)
    store, info = write_corpus(tmp_path / "corpus", deliveries)
    with pytest.raises(CorpusError, match="their selection has been replaced"):
        list(plan_shards(store, info, "all", FAST))


def test_a_finished_shard_that_is_gone_stops_growth_and_no_number_is_given_twice(
    tmp_path: Path, deliveries: list[list[tuple[Path, str]]]
) -> None:
    store, info = write_corpus(tmp_path / "corpus", deliveries[:1])
    _, plans = export(store, info)
    store.delete(f"shards/all/{plans[0].name}.parquet")
    store, info = write_corpus(tmp_path / "corpus", deliveries)
    before = files_of(store)
    with pytest.raises(TornPart, match=r"1 finished shards .* the first is 16x9-image/000000"):
        export(store, info)
    assert files_of(store) == before


def test_a_twin_of_an_exported_clip_is_exported_where_both_are_kept(
    tmp_path: Path, media: list[Path]
) -> None:
    twin = tmp_path / media[0].name  # clip_ids of this file's helper go by the name
    twin.write_bytes(media[0].read_bytes())
    parts = [[(media[0], "video")], [(twin, "video")]]
    store, info = write_corpus(tmp_path / "corpus", parts[:1])
    export(store, info)
    store, info = write_corpus(tmp_path / "corpus", parts)
    manifest, _ = export(store, info)
    assert (manifest["num_clips"], manifest["num_selected"]) == (6, 6)
    change_verdicts(store, 1, lambda row, number: REJECTED)
    manifest, _ = export(store, info)
    assert (manifest["num_clips"], manifest["num_no_longer_selected"]) == (6, 3)


def test_facts_leave_out_vectors_and_name_unknown_texts_as_empty() -> None:
    media = Media(
        extension="mp4", data=b"x", num_frames=16, fps=8.0, duration_s=2.0, width=2, height=2
    )
    row = {"clip_id": "a", "category": None, "tags": [], "category_score": None, "num_frames": 17}
    facts = sample_facts(row, media, media_sha256="0", export="1")
    assert (facts["category"], facts["tags"], facts["num_frames"]) == ("", [""], 17)
    assert facts["scores"] == [{"name": "media_bytes", "value": 1.0}]
