"""Transport streams and FLV files laid end to end, by ffmpeg's muxers."""

import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from curation.media.recordings import WHOLE, Recording, recordings

X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", "10")
OTHER = ("-mpegts_start_pid", "0x300")
OTHER_TABLE = ("-mpegts_start_pid", "0x300", "-mpegts_pmt_start_pid", "0x1100")
Make = Callable[..., bytes]


@pytest.fixture
def film(run_ffmpeg, tmp_path: Path) -> Make:
    """``film(name, *options)``: bytes of a second of film."""

    def make(name: str, *options: str) -> bytes:
        source = ("-f", "lavfi", "-i", "testsrc2=s=160x96:d=1:r=25")
        run_ffmpeg(*source, *X264, *options, tmp_path / name)
        return (tmp_path / name).read_bytes()

    return make


@pytest.fixture
def found(tmp_path: Path) -> Callable[[bytes], tuple[Recording, ...]]:
    """Recordings of these bytes."""

    def of(data: bytes) -> tuple[Recording, ...]:
        (tmp_path / "joined").write_bytes(data)
        with (tmp_path / "joined").open("rb") as file:
            return recordings(file)

    return of


@pytest.mark.parametrize("name", ["a.ts", "a.m2ts", "a.flv", "a.mp4", "a.mkv"])
def test_a_file_of_one_recording_is_read_whole(film, found, name):
    assert found(film(name)) == (WHOLE,)


@pytest.mark.parametrize("options", [(), ("-movflags", "+faststart")], ids=["last", "first"])
def test_an_mp4_behind_a_whole_one_is_a_recording_wherever_its_index_lies(film, found, options):
    data = film("a.mp4", *options)
    assert found(data + data + b"no box") == (Recording(0, len(data)), Recording(len(data), None))


FRAGMENTS = ("-movflags", "frag_keyframe+empty_moov")


def test_fragments_whose_times_begin_anew_are_another_recording(film, found):
    data = film("a.mp4", *FRAGMENTS)
    assert found(data + data) == (Recording(0, len(data)), Recording(len(data), None))


def test_fragments_that_go_on_behind_a_repeated_header_are_one_recording(film, found):
    data = film("a.mp4", *FRAGMENTS)
    header = data[: data.index(b"moof") - 4]
    places = [each.start() - 4 for each in re.finditer(b"moof", data)]
    ends = [*places[1:], len(data)]
    again = [header + data[begin:end] for begin, end in zip(places, ends, strict=True)]
    assert len(again) > 2
    assert found(b"".join(again)) == (WHOLE,)


@pytest.mark.parametrize("name", ["a.ts", "a.flv"])
def test_a_recording_with_the_same_streams_goes_on_in_a_transport_stream_only(film, found, name):
    data = film(name)
    parts = (WHOLE,) if name == "a.ts" else (Recording(0, len(data)), Recording(len(data), None))
    assert found(data + data) == parts


def with_timecodes(data: bytes) -> bytes:
    """As discs and cameras have transport streams: four bytes before every packet."""
    return b"".join(bytes(4) + data[place : place + 188] for place in range(0, len(data), 188))


@pytest.mark.parametrize("other", [OTHER, OTHER_TABLE], ids=["streams", "tables"])
@pytest.mark.parametrize("form", [bytes, with_timecodes])
def test_a_recording_with_other_streams_begins_with_its_tables(film, found, form, other):
    first, second = form(film("a.ts")), form(film("a.ts", *other))
    one, two, three = found(first + second + first)
    tables = 4 * 192  # what lies before the first table belongs to nobody
    assert 0 <= two.begin - len(first) <= tables
    assert 0 <= three.begin - len(first + second) <= tables
    assert (one.begin, one.end, two.end, three.end) == (0, two.begin, three.begin, None)


@pytest.mark.parametrize("num_bytes", [1, 100, 187])
def test_a_recording_behind_one_that_ends_inside_a_packet_is_found(film, found, num_bytes):
    first, second = film("a.ts"), film("b.ts", *OTHER)
    _, two = found(first[:-num_bytes] + second)
    assert abs(two.begin - len(first)) <= 4 * 188


def test_two_programmes_at_the_same_time_are_one_recording(run_ffmpeg, tmp_path, found):
    source = ("-f", "lavfi", "-i", "testsrc2=s=160x96:d=2:r=25")
    programmes = ("-program", "title=a:st=0", "-program", "title=b:st=1")
    twice = ("-map", "0:v", "-map", "0:v", *programmes)
    run_ffmpeg(*source, *X264, *twice, tmp_path / "two.ts")
    assert found((tmp_path / "two.ts").read_bytes()) == (WHOLE,)


@pytest.mark.parametrize("num_packets", [1, 4, 5, 9])
def test_packets_without_their_first_byte_make_no_recordings(film, found, num_packets):
    data = bytearray(film("a.ts", "-b:v", "2M"))
    for packet in range(50, 50 + num_packets):
        data[packet * 188] ^= 0xFF
    assert found(bytes(data)) == (WHOLE,)


def test_damage_makes_no_recordings(film, found):
    data = bytearray(film("a.ts", "-b:v", "2M"))
    draw = random.Random(5)
    for _ in range(len(data) // 50):
        data[draw.randrange(188, len(data))] ^= draw.randrange(1, 256)
    assert found(bytes(data)) == (WHOLE,)
