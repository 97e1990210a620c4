"""Texts that come late reach the shards, and what was made of them; the whole way on a real local Ray."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import ray
from rich.console import Console

from curation.corpus.shards import read_index, read_manifest, read_sample, verify_shards
from curation.corpus.store import Store
from curation.export import ExportConfig
from curation.select import select
from pipelines import curate, exporting
from pipelines.presets import tiny
from pipelines.ray_cluster import start_ray
from training.data.encode_config import EncodeConfig
from training.data.encoding import ShardEncoder, begin_layer, finish_layer
from training.models.tiny import tiny_autoencoder, tiny_text_encoder

NAMES = ("a", "b", "c")
EXPORT = ExportConfig(x264_preset="ultrafast", max_clips_per_shard=2)
ENCODE = EncodeConfig(sizes_px=((32, 48),), num_frames=8)


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    start_ray(num_cpus=1)
    yield
    ray.shutdown()


@dataclass
class Corpus:
    """A corpus whose films a list names, with their texts."""

    store: Store
    folder: Path
    texts: dict[str, dict[str, str]]

    def curate(self) -> str:
        """All that `lavie curate --until export` does; returns what it said."""
        path = self.folder / "list.jsonl"
        lines = [json.dumps({"uri": f"{name}.mp4", **own}) for name, own in self.texts.items()]
        path.write_text("\n".join(lines))
        console = Console(file=io.StringIO(), width=400)
        config = tiny()
        info, _ = curate.measure([str(path)], self.store, config.river, console=console)
        select(self.store, info, "default", config.select)
        exporting.export(self.store, info, "default", EXPORT, console=console)
        return console.file.getvalue()  # type: ignore[attr-defined]

    def tars(self) -> dict[str, bytes]:
        names = self.store.files("shards/default", recursive=True)
        return {name: self.store.read(name) for name in names if name.endswith(".tar")}

    def samples(self) -> dict[str, list[dict[str, Any]]]:
        """Film -> facts of its samples, with the caption of the index, of the .txt, and the media."""
        found: dict[str, list[dict[str, Any]]] = {}
        for row in read_index(self.store, "default").to_pylist():
            sample = read_sample(self.store, "default", row)
            own = {"txt": sample.caption, "index": row["caption"], "media": sample.media}
            own |= {"shard": row["shard"]}
            found.setdefault(Path(sample.facts["uri"]).stem, []).append(sample.facts | own)
        return found


@pytest.fixture(scope="module")
def curated(tmp_path_factory, make_video) -> Corpus:
    folder = tmp_path_factory.mktemp("films")
    for name in (*NAMES, "d"):
        scenes = [(f"red/{name}", 54), (f"teal/{name}", 54)]
        make_video(folder / f"{name}.mp4", scenes, size=(96, 64), options={"preset": "ultrafast"})
    store = Store(str(tmp_path_factory.mktemp("curated") / "corpus"))
    texts = {name: {"caption": f"the film {name}"} for name in NAMES}
    corpus = Corpus(store, folder, texts)
    corpus.curate()
    return corpus


@pytest.fixture
def corpus(curated: Corpus, tmp_path: Path) -> Corpus:
    """A copy of it for one test; the films stay where they are."""
    shutil.copytree(curated.store.root, tmp_path / "corpus")
    return replace(curated, store=Store(str(tmp_path / "corpus")), texts=dict(curated.texts))


def test_texts_of_a_later_list_reach_just_the_shards_of_their_films(corpus: Corpus) -> None:
    before, tars = corpus.samples(), corpus.tars()
    corpus.texts["a"] = {"caption": "another caption", "licence": "CC0-1.0"}
    said = corpus.curate()
    after = corpus.samples()
    assert "1 shards were written anew, as generation 2" in said
    assert "of 2 clips" in said
    for then, now in zip(before["a"], after["a"], strict=True):
        assert (now["caption"], now["txt"], now["index"]) == ("another caption",) * 3
        assert now["licence"] == "CC0-1.0"
        assert now["media"] == then["media"]
        words = {score["name"]: score["value"] for score in now["scores"]}
        assert words["caption_words"] == 2
    assert [after[name] for name in "bc"] == [before[name] for name in "bc"]
    stayed = [name for name, data in corpus.tars().items() if tars.get(name) == data]
    assert len(stayed) == len(tars) - 1 == 2
    assert list(verify_shards(corpus.store, "default")) == []
    again = corpus.tars()
    assert "written anew" not in corpus.curate()
    assert corpus.tars() == again


def test_sources_that_are_added_alone_write_no_shard_anew(corpus: Corpus) -> None:
    tars = corpus.tars()
    corpus.texts["d"] = {"caption": "the film d", "licence": "CC0-1.0"}
    said = corpus.curate()
    assert "written anew" not in said
    after = corpus.tars()
    assert {name: after[name] for name in tars} == tars
    assert len(after) == len(tars) + 1


def test_latents_of_a_shard_that_was_written_anew_are_made_anew_and_no_others(
    corpus: Corpus, tmp_path: Path
) -> None:
    tiny_autoencoder("base").save(tmp_path / "models/vae")
    tiny_text_encoder().save(tmp_path / "models")

    def encode() -> list[str]:
        digest, shards = begin_layer(corpus.store, "default", ENCODE, tmp_path / "models")
        encoder = ShardEncoder(corpus.store, "default", ENCODE, digest, tmp_path / "models")
        todo = [s for s in shards if not corpus.store.exists(f"{encoder.folder}/{s}.index.parquet")]
        encoder.setup()
        for shard in todo:
            encoder(shard)
        manifest = finish_layer(corpus.store, "default", digest, shards)
        assert manifest["shards"] == read_manifest(corpus.store, "default")["contents"]
        return todo

    assert len(encode()) == 3
    corpus.texts["b"] = {"caption": "another caption"}
    corpus.curate()
    left = [n for n in corpus.store.files("encoded", recursive=True) if n.endswith("index.parquet")]
    assert len(left) == 2
    (shard,) = {facts["shard"] for facts in corpus.samples()["b"]}
    assert encode() == [shard.removesuffix(".tar")]


def test_texts_that_changed_while_an_export_was_cut_off_reach_the_shards_it_had_made(
    corpus: Corpus,
) -> None:
    corpus.texts["c"] = {"caption": "another caption"}
    corpus.store.delete("shards/default/manifest.json")
    corpus.store.delete("shards/default/index.parquet")
    corpus.curate()
    assert {facts["txt"] for facts in corpus.samples()["c"]} == {"another caption"}
    assert list(verify_shards(corpus.store, "default")) == []
