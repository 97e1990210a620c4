"""HEVC films with Dolby Vision's record put into their containers."""

from pathlib import Path

import pytest

from curation.errors import BadSource
from curation.media.probe import Limits, open_regular, probe

X265 = (
    "-c:v",
    "libx265",
    "-preset",
    "ultrafast",
    "-x265-params",
    "log-level=none",
    "-tag:v",
    "hvc1",
)
PARENTS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"hvc1")


def record(profile: int, compatible_with: int) -> bytes:
    """Version 1.0, level 6, with metadata and a base layer; the rest is reserved."""
    level, layers = 6, 0b101
    bits = profile << 9 | level << 3 | layers
    return bytes([1, 0]) + bits.to_bytes(2, "big") + bytes([compatible_with << 4]) + bytes(19)


def with_record(path: Path, content: bytes) -> None:
    """Put the box behind the sample entry's last one; the index lies behind the pictures."""
    data = bytearray(path.read_bytes())
    assert data.find(b"mdat") < data.find(b"moov")
    place = 0
    for name in PARENTS:
        place = data.index(name, place) - 4
        length = int.from_bytes(data[place : place + 4], "big")
        end = place + length
        data[place : place + 4] = (length + 32).to_bytes(4, "big")
        place += 4
    data[end:end] = (32).to_bytes(4, "big") + b"dvcC" + content
    path.write_bytes(data)


def read(path: Path) -> str:
    with open_regular(path) as file:
        return probe(file, Limits()).codec


@pytest.fixture
def film(run_ffmpeg, tmp_path: Path):
    """``film(name, profile, compatible_with)``: an MP4, or a Matroska film made of it."""

    def make(name: str, profile: int, compatible_with: int) -> Path:
        source = ("-f", "lavfi", "-i", "testsrc2=s=160x96:d=0.4:r=25", "-pix_fmt", "yuv420p10le")
        run_ffmpeg(*source, *X265, tmp_path / "film.mp4")
        with_record(tmp_path / "film.mp4", record(profile, compatible_with))
        if name != "film.mp4":
            fast = ("-movflags", "+faststart") if name == "fast.mp4" else ()
            copy = ("-c", "copy", "-strict", "-2", *fast)
            run_ffmpeg("-i", tmp_path / "film.mp4", *copy, tmp_path / name)
        return tmp_path / name

    return make


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv", "fast.mp4"])
def test_a_base_layer_that_is_compatible_with_nothing_is_no_film(film, name):
    with pytest.raises(BadSource, match="dolby_vision: profile 5,"):
        read(film(name, 5, 0))


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv"])
@pytest.mark.parametrize(("profile", "compatible_with"), [(8, 1), (8, 4), (7, 6), (5, 1)])
def test_a_base_layer_that_is_a_picture_by_itself_is_read(film, name, profile, compatible_with):
    assert read(film(name, profile, compatible_with)) == "hevc"
