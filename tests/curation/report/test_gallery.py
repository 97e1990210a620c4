"""Contact sheets: which clips, which pictures."""

from __future__ import annotations

import base64
import io
import json
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from curation.report import ReportConfig, write_report
from curation.report.gallery import Choice, small_jpeg
from curation.select import Dedup, Rule, SelectConfig


def sheets(made, **config):
    """The contact sheets and the page."""
    paths = write_report(made.store, made.info, made.selection, ReportConfig(**config))
    page = made.store.read(paths.page).decode()
    return json.loads(made.store.read(paths.statistics))["contact_sheet"], page


def choice_of(rows, limit=6):
    choice = Choice(limit)
    for part, ids, strata in rows:
        choice.add(part, pa.chunked_array([ids]), pa.chunked_array([strata]))
    return choice


def test_a_rare_reason_is_shown_beside_a_common_one():
    ids = [f"{number:03d}" for number in range(100)]
    strata = ["dark"] * 98 + ["text", "still"]
    shown = {clip.clip_id for clip in choice_of([(0, ids, strata)]).chosen()}
    assert {"098", "099"} <= shown
    assert len(shown) == 6


def test_the_choice_does_not_depend_on_how_clips_are_dealt_into_parts():
    ids = [f"{number:03d}" for number in np.random.default_rng(0).permutation(60)]
    strata = [f"rule {int(i) % 3}" for i in ids]
    whole = choice_of([(0, ids, strata)])
    halves = choice_of([(0, ids[:30], strata[:30])])
    halves.merge(choice_of([(0, ids[30:], strata[30:])]))
    assert [clip.clip_id for clip in halves.chosen()] == [clip.clip_id for clip in whole.chosen()]


def test_sheets_are_bounded_and_true(big):
    shown, _ = sheets(big, num_kept_shown=7, num_rejected_shown=9)
    assert (len(shown["kept"]), len(shown["rejected"])) == (7, 9)
    assert not any(card["failed"] for card in shown["kept"])
    assert all(card["failed"] for card in shown["rejected"])
    first = Counter(card["failed"][0]["rule"] for card in shown["rejected"])
    assert set(first) == {"aesthetic_score", "motion_mean", "caption_words"}
    assert max(first.values()) - min(first.values()) <= 1


def test_a_reason_carries_the_value_that_failed(corpus, build):
    clips = build.Clips(sources=[[build.source()]])
    clips.clips = [[build.clip(1, aesthetic_score=1.5), build.clip(2)]]
    shown, page = sheets(corpus(clips))
    failed = shown["rejected"][0]["failed"]
    assert failed == [{"rule": "aesthetic_score", "column": "aesthetic_score", "value": 1.5}]
    assert '<data value="1.5">1.5</data>' in page


def test_the_picture_is_the_keyframe_in_the_middle(corpus, build):
    frames = [build.keyframe(seed) for seed in (1, 2, 3)]
    clips = build.Clips(sources=[[build.source()]])
    clips.clips = [[build.clip(1, keyframes=frames)]]
    _, page = sheets(corpus(clips))
    data = base64.b64decode(page.split("data:image/jpeg;base64,")[1].split('"')[0])
    shown = np.asarray(Image.open(io.BytesIO(data)), np.int16)
    middle = np.asarray(Image.open(io.BytesIO(frames[1])), np.int16)
    assert np.abs(shown.mean((0, 1)) - middle.mean((0, 1))).max() < 4


def test_pictures_that_may_be_explicit_are_withheld_not_their_row(corpus, build):
    clips = build.Clips(sources=[[build.source()]])
    clips.clips = [[build.clip(1, nsfw_score=0.9)]]
    shown, page = sheets(corpus(clips))
    assert shown["kept"][0]["withheld"] == "picture withheld: may be explicit"
    assert "data:image/jpeg" not in page


def test_scenes_without_keyframe_are_not_drawn_for_the_sheet(corpus, build):
    clips = build.Clips(sources=[[build.source()]])
    clips.clips = [[build.clip(1, scene_reject="too_short", keyframes=[]), build.clip(2)]]
    shown, _ = sheets(corpus(clips))
    assert shown["rejected"] == []
    assert len(shown["kept"]) == 1


def test_small_pictures_keep_their_shape_and_lose_their_metadata():
    out = io.BytesIO()
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    Image.effect_noise((384, 216), 50).convert("RGB").save(out, "JPEG", exif=exif)
    small = small_jpeg(out.getvalue(), side_px=128, quality=70)
    assert small is not None
    assert b"taken at home" not in small
    assert Image.open(io.BytesIO(small)).size == (128, 72)


@pytest.mark.parametrize("data", [b"", b"not a picture", b"\xff\xd8\xff\xe0" + b"\0" * 50])
def test_what_is_no_picture_is_left_out(data):
    assert small_jpeg(data, side_px=128, quality=70) is None


def test_formats_that_keyframes_never_have_are_left_out():
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "GIF")
    assert small_jpeg(out.getvalue(), side_px=128, quality=70) is None


def test_the_same_bytes_under_two_names_are_two_cards_with_their_own_pictures(corpus, build):
    """Clip ids are made of the bytes: in one part or in two, the same film twice gives them twice."""
    twice = [
        build.clip(n, source_row=s, keyframes=[build.keyframe(n)]) for s in (0, 1) for n in (1, 2)
    ]
    clips = build.Clips(
        sources=[[build.source("a.mp4"), build.source("b.mp4")], [build.source("c.mp4")]]
    )
    clips.clips = [twice, [build.clip(1), build.clip(2, aesthetic_score=1.0)]]
    rules = SelectConfig(
        rules=(Rule(column="aesthetic_score", min=4.0),),
        dedup=Dedup(copies=False, look_alikes=False),
    )
    shown, page = sheets(corpus(clips, rules))
    assert sorted(card["name"] for card in shown["kept"]) == [
        "a.mp4",
        "a.mp4",
        "b.mp4",
        "b.mp4",
        "c.mp4",
    ]
    assert [card["name"] for card in shown["rejected"]] == ["c.mp4"]
    assert len({card["place"] for card in (*shown["kept"], *shown["rejected"])}) == 6
    assert page.count("data:image/jpeg;base64,") == 6
