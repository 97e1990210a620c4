"""The readers' side alone: shards made here by hand, with tarfile and pyarrow."""

import hashlib
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from curation.corpus.manifest import canonical_json
from curation.corpus.parts import to_parquet
from curation.corpus.schema import SHARD_INDEX, schema
from curation.corpus.shards import (
    manifest_digest,
    read_index,
    read_manifest,
    read_sample,
    verify_shards,
)
from curation.corpus.store import Store
from curation.errors import CorpusError, TornPart


def write_shards(store: Store, *, format_version: int = 1) -> dict[str, Any]:
    """One tar of two samples, an index of three rows (one clip could not be cut), a manifest."""
    buffer = io.BytesIO()
    rows: list[dict[str, Any]] = []
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for key in ("a-1", "b_2"):
            row = {"clip_id": key, "bucket": "wide", "shard": "wide/000000.tar", "key": key}
            row["media_name"] = f"{key}.mp4"
            for part, name, data in (
                ("media", f"{key}.mp4", b"film " + key.encode()),
                ("json", f"{key}.json", json.dumps({"clip_id": key}).encode()),
                ("txt", f"{key}.txt", f"caption of {key} \u00e9".encode()),
            ):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                row[f"{part}_offset"] = buffer.tell() + 512
                row[f"{part}_size"] = len(data)
                tar.addfile(member, io.BytesIO(data))
            rows.append(row)
    rows.append({"clip_id": "c-3", "bucket": "wide", "export_reject": "changed"})
    columns = schema(SHARD_INDEX)
    index = pa.Table.from_pylist(
        [dict.fromkeys(columns.names) | row for row in rows], schema=columns
    )
    files = {"wide/000000.tar": buffer.getvalue(), "index.parquet": to_parquet(index)}
    for name, data in files.items():
        store.write(f"shards/all/{name}", data)
    manifest: dict[str, Any] = {
        "format_version": format_version,
        "files": {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
            for name, data in files.items()
        },
    }
    manifest["digest"] = manifest_digest(manifest)
    store.write("shards/all/manifest.json", canonical_json(manifest))
    return manifest


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def test_a_sample_is_taken_out_of_a_tar_by_its_bytes(store: Store) -> None:
    write_shards(store)
    rows = read_index(store, "all").to_pylist()
    assert [row["key"] for row in rows] == ["a-1", "b_2"]
    sample = read_sample(store, "all", rows[1])
    assert (sample.key, sample.extension, sample.media) == ("b_2", "mp4", b"film b_2")
    assert sample.facts == {"clip_id": "b_2"}
    assert sample.caption == "caption of b_2 \u00e9"


def test_the_index_holds_clips_that_could_not_be_cut_only_when_asked_for(store: Store) -> None:
    write_shards(store)
    failed = read_index(store, "all", ["clip_id", "export_reject"], failed=True)
    assert failed.to_pylist()[2] == {"clip_id": "c-3", "export_reject": "changed"}
    assert read_index(store, "all", ["clip_id"])["clip_id"].to_pylist() == ["a-1", "b_2"]


def test_shards_in_an_object_store_are_read_the_same_way(s3_bucket: str) -> None:
    store = Store(f"{s3_bucket}/corpus")
    write_shards(store)
    row = read_index(store, "all").to_pylist()[0]
    assert read_sample(store, "all", row).media == b"film a-1"
    assert list(verify_shards(store, "all")) == []


def test_unfinished_shards_are_not_read(store: Store) -> None:
    for read in (read_manifest, read_index, lambda *a: list(verify_shards(*a))):
        with pytest.raises(CorpusError, match="no finished shards of selection 'all'"):
            read(store, "all")


def test_a_manifest_of_a_later_format_is_refused(store: Store) -> None:
    write_shards(store, format_version=3)
    with pytest.raises(CorpusError, match="format version 3"):
        read_manifest(store, "all")


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"files": {}', b"\xff\xfe"])
def test_a_manifest_that_is_not_ours_is_refused(text: bytes, store: Store) -> None:
    store.write("shards/all/manifest.json", text)
    with pytest.raises(TornPart):
        read_manifest(store, "all")
    assert len(list(verify_shards(store, "all"))) == 1


def test_missing_shortened_and_changed_files_are_named(store: Store) -> None:
    write_shards(store)
    assert list(verify_shards(store, "all")) == []
    tar = store.read("shards/all/wide/000000.tar")
    store.write("shards/all/wide/000000.tar", tar[:-1024])
    (fault,) = verify_shards(store, "all")
    assert f"{len(tar) - 1024} bytes, the manifest says {len(tar)}" in fault
    store.delete("shards/all/wide/000000.tar")
    store.write("shards/all/index.parquet", store.read("shards/all/index.parquet")[::-1])
    index_fault, tar_fault = sorted(verify_shards(store, "all"))
    assert "index.parquet: sha256" in index_fault
    assert "000000.tar: missing" in tar_fault
    with pytest.raises(TornPart, match=r"index\.parquet"):
        read_index(store, "all")


def test_reading_shards_loads_nothing_heavier_than_pyarrow() -> None:
    script = (
        "import sys, curation.corpus.shards; "
        "print(*sorted({'torch', 'av', 'cv2', 'ffmpeg', 'ray'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == []
