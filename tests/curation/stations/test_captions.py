"""Where a caption comes from, and that it says so."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from curation.errors import MissingColumn, UsageError
from curation.stations.captions import Captions, CaptionsConfig
from curation.stations.station import check_order, check_output
from curation.weights.catalog import digest

COLUMNS = {
    "given_caption": pa.string(),
    "given_captions": pa.list_(pa.string()),
    "description": pa.string(),
    "title": pa.string(),
    "media": pa.string(),
    "tags": pa.list_(pa.string()),
    "tag_scores": pa.list_(pa.float32()),
}


def clips(*rows: dict) -> pa.Table:
    """Rows with these values; what is left out is null, tags empty."""
    empty = {"media": "video", "tags": [], "tag_scores": []}
    full = [empty | row for row in rows]
    return pa.table(
        {"clip_id": [f"clip-{i}" for i in range(len(rows))]}
        | {n: pa.array([row.get(n) for row in full], kind) for n, kind in COLUMNS.items()}
    )


def captioned(table: pa.Table, **settings) -> list[dict]:
    station = Captions(CaptionsConfig(**settings))
    station.setup()
    table = table.select(["clip_id", *station.needs])
    added = station(table)
    check_output(station, table, added)
    return added.to_pylist()


def test_a_written_caption_goes_before_a_description_and_that_before_a_title():
    rows = captioned(
        clips(
            {"given_caption": "A fox runs.", "description": "Foxes.", "title": "Fox"},
            {"description": "Foxes in the wood.", "title": "Fox"},
            {"title": "Fox"},
            {"given_caption": " \n ", "description": "--", "title": "Fox 2"},
        )
    )
    assert [row["caption"] for row in rows] == ["A fox runs.", "Foxes in the wood.", "Fox", "Fox 2"]
    assert [row["caption_model"] for row in rows] == [
        "given_caption",
        "description",
        "title",
        "title",
    ]
    assert {row["caption_engine"] for row in rows} == {"given"}
    assert {row["caption_status"] for row in rows} == {"ok"}


def test_all_captions_that_lists_give_are_trained_with_equally_often():
    given = ["A fox runs.", "  A fox runs. ", "--", "Ein Fuchs.", "Fox!"]
    (row,) = captioned(clips({"given_caption": given[0], "given_captions": given, "title": "T"}))
    assert row["caption"] == "A fox runs."
    assert row["captions"] == ["A fox runs.", "Ein Fuchs.", "Fox!"]
    assert row["caption_weights"] == pytest.approx([1 / 3] * 3)


def test_where_nothing_was_given_there_is_no_caption_and_a_reason():
    (row,) = captioned(clips({}))
    assert row["caption"] is None
    assert row["caption_engine"] is None
    assert row["caption_status"] == "nothing_given"


def test_the_precedence_can_be_set_and_only_its_columns_are_read():
    station = Captions(CaptionsConfig(given_columns=("title",)))
    assert list(station.needs) == ["title"]
    (row,) = captioned(clips({"given_caption": "long", "title": "T1"}), given_columns=("title",))
    assert row["caption"] == "T1"


def test_tags_make_a_sentence_that_is_labelled_as_a_stop_gap():
    rows = captioned(
        clips(
            {"tags": ["hare", "alp", "web site", "cup"], "tag_scores": [0.5, 0.3, 0.2, 0.15]},
            {"tags": ["owl"], "tag_scores": [0.9], "media": "image"},
            {"tags": ["hare", "fox"], "tag_scores": [0.5, 0.05]},
            {"tags": ["crane", "crane"], "tag_scores": [0.5, 0.4]},
            {"tags": ["hare"], "tag_scores": [0.05]},
        ),
        engines=("tags",),
    )
    assert [row["caption"] for row in rows] == [
        "A video of a hare, an alp and a web site.",
        "A picture of an owl.",
        "A video of a hare.",
        "A video of a crane.",
        None,
    ]
    assert rows[0]["caption_engine"] == "tags"
    assert rows[0]["caption_model"] == "taxonomy"
    assert rows[4]["caption_status"] == "no_tags"


def test_the_first_engine_with_a_sentence_wins():
    rows = captioned(
        clips(
            {"title": "Fox", "tags": ["hare"], "tag_scores": [0.9]},
            {"tags": ["hare"]} | {"tag_scores": [0.9]},
        ),
        engines=("given", "tags"),
    )
    assert [row["caption_engine"] for row in rows] == ["given", "tags"]


def test_text_is_put_on_one_line_without_control_characters():
    rows = captioned(
        clips(
            {"title": "  two\n\tlines \x00\x1b[31m "},
            {"title": "e\u0301"},
            {"given_caption": "\u200b \x07", "title": "\u6771\u4eac"},
        )
    )
    assert [row["caption"] for row in rows] == ["two lines [31m", "\u00e9", "\u6771\u4eac"]


def test_tags_need_the_taxonomy_before_them():
    with pytest.raises(MissingColumn, match="'taxonomy'"):
        check_order([Captions(CaptionsConfig(engines=("tags",)))])
    check_order([Captions()])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"engines": ()}, "engines"),
        ({"engines": ("guess",)}, "engines"),
        ({"given_columns": ("uri",)}, "given_columns"),
        ({"num_tags": 0}, "num_tags"),
        ({"min_tag_score": -0.1}, "min_tag_score"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(change, words):
    with pytest.raises(ValueError, match=words):
        CaptionsConfig(**change)


@pytest.fixture
def timed_file(tmp_path):
    """Two stretches of one film, the second with a paragraph."""
    lines = (
        {
            "source_sha256": "ab",
            "start_s": 2.0,
            "end_s": 6.0,
            "short": "A fox  runs.",
            "film": "f.mp4",
        },
        {
            "source_sha256": "ab",
            "start_s": 6.0,
            "end_s": 20,
            "short": "It rests.",
            "long": "It lies.",
        },
    )
    path = tmp_path / "timed.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def spans(*rows: tuple[str, float, float]) -> pa.Table:
    films, starts, ends = zip(*rows, strict=True)
    return pa.table(
        {
            "clip_id": [f"clip-{i}" for i in range(len(rows))],
            "source_sha256": films,
            "start_s": starts,
            "end_s": ends,
        }
    )


def test_a_clip_takes_the_stretch_that_covers_most_of_it_if_that_is_half(timed_file):
    clips_of_film = spans(
        ("ab", 2.0, 6.0),
        ("ab", 4.0, 9.0),  # 2 s of the first, 3 s of the second
        ("ab", 0.0, 4.0),  # half of it
        ("ab", 0.0, 3.9),  # less
        ("cd", 2.0, 6.0),
        ("ab", 19.0, 22.0),
    )
    rows = captioned(clips_of_film, engines=("timed",), timed=str(timed_file))
    assert [row["caption"] for row in rows] == [
        "A fox runs.",
        "It rests.",
        "A fox runs.",
        None,
        None,
        None,
    ]
    assert [row["caption_status"] for row in rows[2:4]] == ["ok", "nothing_given"]
    assert rows[0]["captions"] == ["A fox runs."]
    assert (rows[1]["caption_long"], rows[1]["captions"]) == ("It lies.", ["It rests.", "It lies."])
    assert rows[1]["caption_weights"] == pytest.approx([2 / 3, 1 / 3])
    assert rows[0]["caption_engine"] == "timed"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"source_sha256": "ab", "start_s": 1, "end_s": 2}', "line 1: short must be given"),
        ('{"source_sha256": "a", "start_s": 2, "end_s": 2, "short": "x"}', "end after the start"),
        ('{"source_sha256": "a", "start_s": "1", "end_s": 2, "short": "x"}', "got '1' and 2"),
        ('{"source_sha256": "a", "start_s": 1, "end_s": 2, "short": "--"}', "must be a sentence"),
        ("no JSON", "line 1: the line is no JSON"),
        ("", "holds no line"),
    ],
)
def test_a_line_that_is_no_stretch_stops_the_run_before_any_work(line, words, tmp_path):
    path = tmp_path / "timed.jsonl"
    path.write_text(line)
    station = Captions(CaptionsConfig(engines=("timed",), timed=str(path)))
    with pytest.raises(UsageError, match=words):
        station.check()


def test_another_file_of_timed_captions_is_another_layer(timed_file, tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_text(timed_file.read_text().replace("rests", "sleeps"))
    first, second = (
        digest(Captions(CaptionsConfig(engines=("timed",), timed=str(path))).weights()[0])
        for path in (timed_file, other)
    )
    assert first != second


@pytest.mark.parametrize("settings", [{"engines": ("timed",)}, {"timed": "captions.jsonl"}])
def test_timed_captions_and_their_file_go_together(settings):
    with pytest.raises(ValueError, match=r"captions\.timed must name a file where"):
        CaptionsConfig(**settings)
