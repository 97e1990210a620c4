"""Rules as they are typed, and which clips they are for."""

from __future__ import annotations

import re

import pyarrow as pa
import pytest

from curation.corpus.schema import CLIP_COLUMNS, SOURCE_COLUMNS, VIDEO_COLUMNS
from curation.select import Rule, parse_rule


@pytest.mark.parametrize("column", sorted(VIDEO_COLUMNS))
def test_a_bound_on_what_only_videos_have_is_for_videos_alone(column: str) -> None:
    rule = parse_rule(f"{column}>=q0.25")
    assert rule.media == "video"
    assert rule.describe() == f"q0.25 <= {column} (videos)"
    assert Rule(column=column, min=1).media == "video"
    with pytest.raises(ValueError, match="still images have no"):
        parse_rule(f"{column}(images)>=1")


def test_every_column_whose_doc_says_that_images_have_none_is_one_of_videos() -> None:
    said = {
        column.name
        for column in (*SOURCE_COLUMNS.values(), *CLIP_COLUMNS.values())
        if re.search(r"(null|0|1) for images|null as motion_mean", column.doc)
        and (pa.types.is_floating(column.type) or pa.types.is_integer(column.type))
        and not column.name.startswith(("start_pts", "end_pts", "time_base"))
    }
    assert said <= VIDEO_COLUMNS <= {*SOURCE_COLUMNS, *CLIP_COLUMNS}


@pytest.mark.parametrize(
    ("text", "media"),
    [
        ("sharpness>=300", "all"),
        ("sharpness(images)>=300", "image"),
        ("sharpness ( videos ) >= 300", "video"),
        ("motion_mean(all)>=0.1", "all"),
        ("category(videos)!=Ads|Music", "video"),
    ],
)
def test_a_rule_may_say_which_clips_it_is_for(text: str, media: str) -> None:
    rule = parse_rule(text)
    assert rule.media == media
    assert rule.label == text.replace(" ", "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("motion_mean=>0.1", "there is no =>, write motion_mean>="),
        ("category==Ads", "there is no ==, write category="),
        ("caption==foo", "there is no ==, write caption="),
        ("fps>24", "there is no >, write fps>="),
        ("fps~24", "COLUMN>=NUMBER"),
        ("category=", "COLUMN=TEXT"),
        ("motion_mean>=abc", "a number or q and a quantile, got 'abc'"),
        ("motion_men>=0.1", "did you mean motion_mean"),
        ("sharpness(films)>=1", "(videos), (images) or (all)"),
        ("aesthetic_score>=nan", "must be finite"),
        ("aesthetic_score>=q25", "within 0..1"),
    ],
)
def test_a_rule_that_does_not_read_so_is_refused_with_what_was_meant(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        parse_rule(text)
