"""Protocols: the paper's, and how another one is named."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inference.evaluate.protocols import FrechetProtocol, View, deviations, msrvtt, ucf101


def test_the_papers_protocols_have_the_papers_numbers() -> None:
    fvd, clipsim = ucf101(), msrvtt()
    assert fvd.num_videos == 100 * 101
    view = fvd.generated
    assert (view.num_frames, view.crop_px, view.resize_px) == (16, 270, 224)
    assert clipsim.num_videos == 2_990


def test_a_changed_choice_and_another_number_of_videos_are_named() -> None:
    chosen = replace(ucf101(), generated=View(crop_px=256))
    assert deviations(chosen, ucf101(), num_videos=50) == [
        "generated.crop_px is 256, the protocol has 270",
        "50 videos, the protocol has 10100",
    ]
    assert deviations(ucf101(), ucf101(), num_videos=10_100) == []


def test_more_resamples_are_no_deviation() -> None:
    chosen = replace(msrvtt(), resamples=5, seed=7)
    assert deviations(chosen, msrvtt(), num_videos=2_990) == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_frames": 0}, r"View\.num_frames must be at least 1, got 0"),
        ({"crop_px": -1}, r"View\.crop_px must be at least 0, got -1"),
        ({"resize_filter": "nearest"}, r"View\.resize_filter must be one of .* got 'nearest'"),
    ],
    ids=["frames", "crop", "filter"],
)
def test_a_view_that_cannot_be_is_refused(values: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        View(**values)  # type: ignore[arg-type]


def test_a_flag_that_is_no_name_is_refused() -> None:
    with pytest.raises(ValueError, match="extractor_flags must be names, got 'a b'"):
        FrechetProtocol(extractor_flags=("a b",))
