"""Films for two eyes: what the stream or the container says of them is believed."""

from pathlib import Path

import pytest

from curation.errors import BadSource
from curation.media.probe import Limits, open_regular, probe

X264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p")


def read(path: Path) -> str:
    with open_regular(path) as file:
        return probe(file, Limits()).codec


# H.264's numbers of frame packing arrangements (ITU-T H.264, table D-8).
@pytest.mark.parametrize(
    ("name", "options", "packing"),
    [
        ("a.mp4", ("-x264-params", "frame-packing=3"), "side by side"),
        ("a.ts", ("-x264-params", "frame-packing=4"), "one above the other"),
        ("a.mp4", ("-x264-params", "frame-packing=5"), "in turn"),
        ("a.mkv", ("-metadata:s:v:0", "stereo_mode=left_right"), "side by side"),
    ],
)
def test_two_views_in_one_picture_are_no_film(run_ffmpeg, tmp_path, name, options, packing):
    source = ("-f", "lavfi", "-i", "testsrc2=s=160x96:d=0.4:r=25")
    run_ffmpeg(*source, *X264, *options, tmp_path / name)
    with pytest.raises(BadSource, match=f"stereo_3d: two views in one picture, {packing}"):
        read(tmp_path / name)


def test_a_film_that_says_it_has_one_view_is_read(run_ffmpeg, tmp_path):
    source = ("-f", "lavfi", "-i", "testsrc2=s=160x96:d=0.4:r=25")
    for number, options in enumerate(
        ((), ("-x264-params", "frame-packing=6"), ("-metadata:s:v:0", "stereo_mode=mono"))
    ):
        run_ffmpeg(*source, *X264, *options, tmp_path / f"{number}.mkv")
        assert read(tmp_path / f"{number}.mkv") == "h264"
