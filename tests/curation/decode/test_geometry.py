from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av import VideoFrame

from curation.decode.geometry import Stretches
from curation.decode.measuring import Shown

NUM_FRAMES = 12
"""Of each of the two stretches."""


def shown_of(width: int, height: int) -> Shown:
    return Shown(
        width=width,
        height=height,
        sample_aspect=Fraction(1),
        fps=Fraction(25),
        time_base=Fraction(1, 25),
    )


def stream_of(size: tuple[int, int], options: str = "", *, colour: int = 1) -> bytes:
    """A bare H.264 stream with its parameters in front."""
    width, height = size
    context = av.CodecContext.create("libx264", "w")
    context.width, context.height, context.pix_fmt = width, height, "yuv420p"
    context.time_base = Fraction(1, 25)
    context.colorspace = colour
    context.options = {"preset": "ultrafast", "x264-params": options}
    grey = np.full((height * 3 // 2, width), 128, np.uint8)
    packets = []
    for index in range(NUM_FRAMES):
        frame = VideoFrame.from_ndarray(grey, "yuv420p")
        frame.pts, frame.colorspace = index, colour
        packets += context.encode(frame)
    return b"".join(bytes(packet) for packet in [*packets, *context.encode()])


def changes(path: Path, *streams: bytes) -> Iterator[tuple[int, Shown]]:
    """Number of each frame at which another stretch begins, and how it is shown."""
    path.write_bytes(b"".join(streams))
    with av.open(path, format="h264") as container:
        stream = container.streams.video[0]
        frames = container.decode(stream)
        first = next(frames)
        stretches = Stretches(first, shown_of(first.width, first.height), stream.codec_context)
        for number, frame in enumerate(frames, 1):
            if (shown := stretches.changed(frame)) is not None:
                yield number, shown


def test_a_stream_that_stays_the_same_has_no_stretches_even_at_keyframes(tmp_path):
    same = stream_of((160, 90)), stream_of((160, 90), "keyint=4")
    assert list(changes(tmp_path / "same.h264", *same)) == []


def test_another_size_begins_a_stretch_of_that_size_and_so_does_the_way_back(tmp_path):
    wide, square = stream_of((160, 90)), stream_of((96, 96))
    found = list(changes(tmp_path / "sizes.h264", wide, square, wide))
    assert [number for number, _ in found] == [NUM_FRAMES, 2 * NUM_FRAMES]
    assert [shown.size for _, shown in found] == [(96, 96), (160, 90)]


def test_another_pixel_aspect_begins_a_stretch_with_a_keyframe(tmp_path):
    wide = stream_of((160, 90), "sar=4/3")
    ((number, shown),) = changes(tmp_path / "aspect.h264", stream_of((160, 90)), wide)
    assert number == NUM_FRAMES
    assert shown.sample_aspect == Fraction(4, 3)
    assert shown.size == (213, 90)


@pytest.mark.parametrize(("colour", "num"), [(6, 1), (1, 0)], ids=["bt601", "the same"])
def test_another_matrix_of_colours_begins_a_stretch(tmp_path, colour, num):
    found = list(
        changes(tmp_path / "c.h264", stream_of((160, 90)), stream_of((160, 90), colour=colour))
    )
    assert [number for number, _ in found] == [NUM_FRAMES] * num
    assert all(shown.size == (160, 90) for _, shown in found)
