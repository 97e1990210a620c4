import numpy as np
import pyarrow as pa
import pytest

from curation.corpus.parts import to_parquet
from curation.corpus.schema import SHARD_INDEX, schema
from curation.corpus.store import Store
from training.data.filtering import ClipRequirements, IndexReader, nearest_size
from training.data.pace import Pace

GOOD = {
    "shard": "b/000000.tar",
    "media_name": "a.mp4",
    "caption": "a cat",
    "num_frames": 48,
    "fps": 24.0,
    "duration_s": 2.0,
    "width": 1280,
    "height": 720,
    "sampling_weight": 1.0,
    "source_sha256": "film",
}


def requirements(**changes) -> ClipRequirements:
    pace = {"num_frames": 16, "fps": 8.0, "name": "even", "tolerance": 0.25}
    pace |= {name: changes.pop(name) for name in set(pace) & set(changes)}
    return ClipRequirements(
        **{
            "sizes_px": ((320, 512),),
            "pace": Pace(**pace),
            "fit": "cover",
            "kinds": ("video", "image"),
            "holdout_share": 0.0,
            "holdout_by": "source",
            "seed": 0,
        }
        | changes
    )


def reader(folder, rows, **changes) -> IndexReader:
    store = Store(str(folder))
    numbered = [{"clip_id": f"clip-{n}"} | row for n, row in enumerate(rows)]
    table = pa.Table.from_pylist(
        [dict.fromkeys(c.name for c in SHARD_INDEX) | row for row in numbered],
        schema=schema(SHARD_INDEX),
    )
    store.write("index.parquet", to_parquet(table, rows_per_group=50))
    return IndexReader(store, "index.parquet", "digest", requirements(**changes))


def outcome(index: IndexReader) -> str:
    """What became of the only row."""
    found = [
        word
        for dealt in index.deal()
        for word in ["train"] * dealt.train.num_rows
        + ["held out"] * dealt.held_out.num_rows
        + list(dealt.dropped.elements())
    ]
    (word,) = found
    return word


CASES = {
    "good": ({}, {}, "train"),
    "no-caption": ({"caption": None}, {}, "no caption"),
    "blank-caption": ({"caption": " \n"}, {}, "no caption"),
    # 16 frames at 8 a second span 1.875 s: the 46th frame at 24 lies there, 45 are one too few
    "just-long-enough": ({"num_frames": 46, "duration_s": 46 / 24}, {}, "train"),
    "a-frame-short": ({"num_frames": 45, "duration_s": 45 / 24}, {}, "too short"),
    "film-rate": ({"fps": 23.976, "num_frames": 80}, {"fps": 24.0}, "train"),
    "slow-rate": ({"fps": 15.0, "num_frames": 80}, {"fps": 24.0}, "frame rate too far off"),
    "30-trains-24": ({"fps": 30.0, "num_frames": 80}, {"fps": 24.0}, "train"),
    "30-is-no-24": (
        {"fps": 30.0, "num_frames": 80},
        {"fps": 24.0, "tolerance": 0.1},
        "frame rate too far off",
    ),
    "30-at-exact-times": (
        {"fps": 30.0, "num_frames": 80},
        {"fps": 24.0, "tolerance": 0.1, "name": "nearest"},
        "train",
    ),
    # every fourth frame of 30 a second: 15 * 4 + 1 frames
    "long-enough-at-30": ({"fps": 30.0, "num_frames": 61}, {}, "train"),
    "a-frame-short-at-30": ({"fps": 30.0, "num_frames": 60}, {}, "too short"),
    "nearest-needs-less": ({"fps": 30.0, "num_frames": 57}, {"name": "nearest"}, "train"),
    "half-the-size": ({"width": 256, "height": 160}, {}, "train"),
    "under-half": ({"width": 256, "height": 158}, {}, "too small"),
    "patch-fits": ({"width": 512, "height": 320}, {"fit": "patch"}, "train"),
    "patch-too-large": ({"width": 510, "height": 720}, {"fit": "patch"}, "too small"),
    "image": (
        {"media_name": "a.jpg", "fps": None, "num_frames": 1, "duration_s": 0.0},
        {},
        "train",
    ),
    "all-held-out": ({}, {"holdout_share": 1.0}, "held out"),
}


@pytest.mark.parametrize(("row", "changes", "expected"), CASES.values(), ids=list(CASES))
def test_a_clip_is_taken_or_left_out_for_a_reason(row, changes, expected, tmp_path):
    assert outcome(reader(tmp_path, [GOOD | row], **changes)) == expected


def test_clips_that_could_not_be_cut_and_kinds_that_are_not_read_do_not_count(tmp_path):
    rows = [GOOD | {"shard": None}, GOOD | {"media_name": "a.jpg"}]
    dealt = list(reader(tmp_path, rows, kinds=("video",)).deal())
    assert sum(each.train.num_rows + each.dropped.total() for each in dealt) == 0


@pytest.mark.parametrize("by", ["source", "clip"])
def test_about_the_share_is_held_out_and_films_stay_together(by, tmp_path):
    rows = [GOOD | {"source_sha256": f"film-{n // 5}"} for n in range(3000)]
    dealt = list(reader(tmp_path, rows, holdout_share=0.1, holdout_by=by).deal())
    held = {int(i.split("-")[1]) for each in dealt for i in each.held_out["clip_id"].to_pylist()}
    assert 0.07 < len(held) / 3000 < 0.13
    films = {n // 5 for n in held}
    assert (len(held) == 5 * len(films)) == (by == "source")


def test_one_film_is_held_out_where_the_share_would_be_none(tmp_path):
    rows = [GOOD | {"source_sha256": f"film-{n // 5}"} for n in range(50)]
    dealt = list(reader(tmp_path, rows, holdout_share=1e-9).deal())
    assert sum(each.held_out.num_rows for each in dealt) == 5


def test_the_same_films_are_held_out_of_every_corpus(tmp_path):
    rows = [GOOD | {"source_sha256": f"film-{n}"} for n in range(500)]
    found = []
    for name, own in (("a", rows), ("b", rows[::-1])):
        held = set()
        index = reader(tmp_path / name, own, holdout_share=0.2)
        for dealt in index.deal():
            ids = dealt.held_out["clip_id"].to_pylist()
            held |= {own[int(i.split("-")[1])]["source_sha256"] for i in ids}
        found.append(held)
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [(1280, 720, 0), (720, 1280, 1), (1000, 1000, 3), (300, 300, 2), (100, 100, 2), (640, 480, 0)],
    ids=["wide", "tall", "square", "small-square", "tiny-square", "4x3"],
)
def test_a_clip_goes_to_the_nearest_shape_and_the_largest_size_it_covers(width, height, expected):
    sizes = ((320, 512), (512, 320), (256, 256), (512, 512))
    at = nearest_size(np.array([width]), np.array([height]), sizes)
    assert at[0] == expected


def test_the_digest_is_that_of_the_index_and_of_every_rule(tmp_path):
    same = reader(tmp_path, [GOOD]).digest
    assert reader(tmp_path, [GOOD]).digest == same
    for changes in ({"num_frames": 15}, {"fps": 9.0}, {"seed": 1}, {"sizes_px": ((8, 8),)}):
        assert reader(tmp_path, [GOOD], **changes).digest != same


def outcomes(index: IndexReader) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {"train": [], "held out": []}
    for dealt in index.deal():
        found["train"] += dealt.train["clip_id"].to_pylist()
        found["held out"] += dealt.held_out["clip_id"].to_pylist()
    return found


def test_a_run_reads_the_splits_of_the_selection_and_never_its_test(tmp_path):
    splits = ["train", "val", "test", None, "train"]
    rows = [GOOD | {"split": split, "source_sha256": f"{n}"} for n, split in enumerate(splits)]
    index = reader(tmp_path, rows, holdout_by="split", holdout_share=0.5)
    assert outcomes(index) == {"train": ["clip-0", "clip-4"], "held out": ["clip-1"]}


def test_shards_that_know_no_splits_are_held_out_by_source(tmp_path):
    rows = [GOOD | {"source_sha256": f"film-{n // 5}"} for n in range(500)]
    found = [
        outcomes(reader(tmp_path, rows, holdout_by=by, holdout_share=0.2))
        for by in ("split", "source")
    ]
    assert found[0] == found[1]
    assert found[0]["held out"]
