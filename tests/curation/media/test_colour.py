from __future__ import annotations

from dataclasses import replace

import av
import pytest

from curation.media.colour import Colour, colour_of, tag


@pytest.mark.parametrize(
    ("size", "matrix"),
    [
        ((720, 480), "smpte170m"),
        ((720, 576), "smpte170m"),
        ((1024, 576), "smpte170m"),
        ((1280, 536), "bt709"),
        ((1280, 720), "bt709"),
        ((720, 1280), "bt709"),
        ((3840, 2160), "bt709"),
    ],
)
def test_what_is_untagged_goes_by_the_size_as_in_mpv(size, matrix):
    colour = colour_of(av.VideoFrame(*size, "yuv420p"))
    assert colour == Colour(matrix, False, "unspecified", "unspecified")


def test_tags_count_more_than_the_size():
    frame = av.VideoFrame(64, 48, "yuv420p10le")
    frame.colorspace, frame.color_range = 9, 2
    frame.color_trc, frame.color_primaries = 18, 9
    assert colour_of(frame) == Colour("bt2020nc", True, "arib-std-b67", "bt2020")
    frame.colorspace = 0  # planes of colours, said of a layout of luma and chroma: not believed
    assert colour_of(frame).matrix == "smpte170m"


def test_layouts_say_what_needs_no_tag():
    assert colour_of(av.VideoFrame(64, 48, "yuvj444p")).full_range
    for name in ("gbrp", "rgb24", "gbrap"):
        assert colour_of(av.VideoFrame(64, 48, name)).matrix == "gbr"


def test_untagged_primaries_of_hdr_are_those_of_bt2100():
    frame = av.VideoFrame(64, 48, "yuv420p10le")
    frame.color_trc = 16
    assert colour_of(frame).primaries == "bt2020"
    assert colour_of(frame).is_hdr


def test_a_frame_that_was_tagged_says_the_same_again():
    frame = av.VideoFrame(1920, 1080, "yuv420p")
    colour = colour_of(frame)
    tag(frame, colour)
    assert (frame.colorspace, frame.color_range) == (1, 1)
    assert colour_of(frame) == colour


def test_the_text_of_the_column_is_read_back():
    colour = Colour("bt2020nc", False, "smpte2084", "bt2020")
    assert colour.text == "bt2020nc/limited/smpte2084/bt2020"
    for each in (colour, replace(colour, full_range=True)):
        assert Colour.of_text(each.text) == each
