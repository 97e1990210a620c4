import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from curation.corpus.shards import read_index, read_manifest
from curation.corpus.store import Store
from training.data.catalog import open_catalog
from training.data.filtering import ClipRequirements, IndexReader
from training.data.pace import Pace

REQUIREMENTS = {
    "sizes_px": ((32, 48), (48, 32)),
    "pace": Pace(num_frames=8, fps=8.0, name="even", tolerance=0.25),
    "fit": "cover",
    "kinds": ("video", "image"),
    "holdout_share": 0.1,
    "holdout_by": "clip",
    "seed": 0,
}


def index_of(corpus: Path) -> IndexReader:
    return IndexReader(
        Store(str(corpus)),
        "shards/default/index.parquet",
        "digest",
        ClipRequirements(**REQUIREMENTS),
    )


def test_every_row_of_the_index_is_in_one_pool_with_where_its_bytes_lie(small_corpus, tmp_path):
    rows = {
        row["clip_id"]: row for row in read_index(Store(str(small_corpus)), "default").to_pylist()
    }
    catalog = open_catalog(index_of(small_corpus), source=3, cache=tmp_path)
    seen = []
    for split in ("train", "held_out"):
        for kind in ("video", "image"):
            for pool in catalog.pools(split, kind):
                assert pool.name == f"3-{kind}-{pool.size_px[0]}x{pool.size_px[1]}"
                for number in range(pool.num_rows):
                    row = pool.row(number)
                    seen.append(row["clip_id"])
                    assert row.items() <= rows[row["clip_id"]].items()
                    assert row["media_name"].endswith(".mp4" if kind == "video" else ".jpg")
    assert sorted(seen) == sorted(rows)
    assert sum(counts.total for counts in catalog.counts.values()) == len(rows)


def test_a_catalog_is_made_once(small_corpus, tmp_path):
    first = open_catalog(index_of(small_corpus), source=0, cache=tmp_path)
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    again = open_catalog(index_of(small_corpus), source=0, cache=tmp_path)
    assert again == first
    assert made == {path: path.stat().st_mtime_ns for path in made}


def test_builders_that_want_the_same_catalog_at_once_get_one(small_corpus, tmp_path):
    # flock belongs to the open file, so threads stand for processes here.
    def build(_: int) -> Path:
        return open_catalog(index_of(small_corpus), source=0, cache=tmp_path).folder

    with ThreadPoolExecutor(4) as pool:
        (folder,) = set(pool.map(build, range(4)))
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [folder.name]
    made = {path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert build(0) == folder
    assert made == {path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_what_a_killed_builder_left_does_not_count(small_corpus, tmp_path):
    (tmp_path / ".writing-0123").mkdir(parents=True)
    (tmp_path / ".writing-0123/pools.json").write_text("[")
    begin = time.monotonic()
    catalog = open_catalog(index_of(small_corpus), source=0, cache=tmp_path)
    assert (catalog.folder / "pools.json").stat().st_mtime > 0
    assert time.monotonic() - begin < 60  # it waits for no lock of the dead


def test_another_manifest_is_another_catalog(small_corpus):
    store = Store(str(small_corpus))
    digest = read_manifest(store, "default")["digest"]
    name = "shards/default/index.parquet"
    digests = {
        IndexReader(store, name, own, ClipRequirements(**REQUIREMENTS)).digest
        for own in (digest, "other")
    }
    assert len(digests) == 2
