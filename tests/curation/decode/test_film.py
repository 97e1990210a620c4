"""Films as cameras, broadcasters and broken disks leave them; every frame carries its number.

Each case says which frames the clips must hold, and is cut as well: clips are compared with the
film frame by frame.
"""

import itertools
import random
import subprocess
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from curation.decode.decoding_pass import DecodeConfig, SourceRows, decode_source
from curation.decode.film import Film
from curation.decode.scenes import SceneConfig
from curation.errors import BadSource
from curation.export.clips import ADMITTED, Clip, ExportConfig, cut, read_stream
from curation.media.colour import Colour
from curation.media.guard import Guard
from curation.media.probe import Limits, open_video, picture_stream
from training.data.picture import View
from training.data.reading import read_frames

WIDTH, HEIGHT = 160, 96
BITS = 10
H264 = ("-c:v", "libx264", "-preset", "veryfast", "-crf", "16", "-g", "30", "-bf", "2")
TS = (*H264, "-f", "mpegts")
LOOKS = ("red", "teal", "gold", "navy", "olive", "white")
CONFIG = DecodeConfig(scenes=SceneConfig(trim_frames=0))
FAST = ExportConfig(x264_preset="ultrafast")
COPY = ExportConfig(cut="copy", min_copied_frames=1, min_copied_s=0)
Encode = Callable[..., Path]


def numbered(frame_HWC: np.ndarray, number: int) -> np.ndarray:
    """The frame with a number as a row of boxes along its lower edge, of which one changes.

    It is in Gray's code: with plain binary numbers 127 to 128 looks like a cut.
    """
    shown_HWC = frame_HWC.copy()
    number ^= number >> 1
    box = WIDTH // BITS
    for bit in range(BITS):
        level = 220 if number >> bit & 1 else 20
        shown_HWC[HEIGHT * 3 // 4 :, bit * box : (bit + 1) * box] = level
    return shown_HWC


def read_number(frame: Any) -> int:
    row_HW = frame.to_ndarray(format="gray")[int(HEIGHT * 0.82) : int(HEIGHT * 0.94)]
    box = WIDTH // BITS
    levels = [row_HW[:, bit * box + 4 : (bit + 1) * box - 4].mean() for bit in range(BITS)]
    number = 0
    for level in reversed(levels):
        number = number << 1 | ((number & 1) ^ (level > 120))
    return number


@pytest.fixture(scope="session")
def encode(ffmpeg_exe: str, scene_frames: Callable[..., Iterator[np.ndarray]]) -> Encode:
    """``encode(path, scenes, *options, first=0, fps=30)``: scenes of so many numbered frames."""

    def make(path: Path, scenes: list[int], *options: str, first: int = 0, fps: str = "30") -> Path:
        raw = bytearray()
        number = first
        for place, num_frames in enumerate(scenes):
            look = LOOKS[(place + first) % len(LOOKS)]
            for frame_HWC in scene_frames(look, num_frames, size=(WIDTH, HEIGHT)):
                raw += numbered(frame_HWC, number).tobytes()
                number += 1
        command = [ffmpeg_exe, "-y", "-v", "error", "-f", "rawvideo", "-pix_fmt", "rgb24"]
        command += ["-s", f"{WIDTH}x{HEIGHT}", "-r", fps, "-i", "-", "-pix_fmt", "yuv420p"]
        subprocess.run([*command, *options, str(path)], input=raw, check=True, timeout=120)
        return path

    return make


@pytest.fixture(scope="module")
def guard() -> Iterator[Guard]:
    with Guard(ADMITTED) as guard:
        yield guard


@pytest.fixture
def numbers_of(tmp_path: Path, guard: Guard) -> Callable[..., list[list[int]]]:
    """``numbers_of(path, rows, config)``: numbers of the frames of every clip that is cut."""
    count = itertools.count()

    def cut_all(path: Path, rows: SourceRows, config: ExportConfig = FAST) -> list[list[int]]:
        found = []
        with path.open("rb") as file:
            has_jumps = rows.probe["num_clock_jumps"] > 0
            stream = read_stream(file, config, guard, has_jumps=has_jumps)
            for row in kept(rows):
                scratch = tmp_path / f"scratch-{next(count)}"
                scratch.mkdir()
                media = cut(file, stream.placed(clip_of(rows, row)), config, guard, scratch)
                (scratch / "made.mp4").write_bytes(media.data)
                found.append(shown(scratch / "made.mp4"))
        return found

    return cut_all


def shown(path: Path) -> list[int]:
    """Numbers of the frames of a clip, whose times must rise."""
    with av.open(str(path)) as container:
        frames = [(frame.pts, read_number(frame)) for frame in container.decode(video=0)]
    times = [time for time, _ in frames]
    assert times == sorted(set(times))
    return [number for _, number in frames]


def clip_of(rows: SourceRows, row: dict[str, Any]) -> Clip:
    return Clip(
        container=rows.probe["container"],
        start_pts=row["start_pts"],
        end_pts=row["end_pts"],
        time_base=Fraction(row["time_base_num"], row["time_base_den"]),
        num_frames=row["num_frames"],
        width=row["width"],
        height=row["height"],
        colour=Colour.of_text(row["colour"]),
    )


def decoded(path: Path, config: DecodeConfig = CONFIG) -> SourceRows:
    with path.open("rb") as file:
        return decode_source(file, "0" * 64, config)


def kept(rows: SourceRows) -> list[dict[str, Any]]:
    """Scenes that the rule of every preset keeps."""
    return [row for row in rows.scenes if not row["scene_reject"] and not row["num_damaged_frames"]]


def frames(*spans: tuple[int, int]) -> list[list[int]]:
    return [list(range(*span)) for span in spans]


def joined(tmp_path: Path, *parts: Path) -> Path:
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("11h.ts", (*TS, "-output_ts_offset", "40000")),
        ("wraps.ts", (*TS, "-output_ts_offset", "95441")),
        ("time_of_day.mkv", (*H264, "-output_ts_offset", "52000")),
        ("late.mp4", (*H264, "-output_ts_offset", "20000")),
        ("no_edit_list.mp4", (*H264, "-use_editlist", "0")),
    ],
)
def test_a_clock_may_start_anywhere(tmp_path, encode: Encode, numbers_of, name, options):
    rows = decoded(encode(tmp_path / name, [70, 80], *options))
    assert [row["start_s"] for row in rows.scenes] == pytest.approx([0, 70 / 30], abs=0.002)
    assert rows.probe["source_duration_s"] == pytest.approx(5, abs=0.002)
    assert rows.probe["num_clock_jumps"] == 0
    assert numbers_of(tmp_path / name, rows) == frames((0, 70), (70, 150))


def test_the_limit_on_length_is_on_film_not_on_the_clock(tmp_path, encode: Encode):
    path = encode(tmp_path / "late.ts", [70, 80], *TS, "-output_ts_offset", "40000")
    assert decoded(path, DecodeConfig(limits=Limits(max_duration_s=5.1))).scenes
    with pytest.raises(BadSource, match="too_long"):
        decoded(path, DecodeConfig(limits=Limits(max_duration_s=4)))


@pytest.mark.parametrize("offset_s", [0, 3600, 2], ids=["restart", "an hour", "2 s"])
@pytest.mark.parametrize("config", [FAST, COPY], ids=["exact", "copy"])
def test_a_clock_that_jumps_goes_on_at_its_own_pace(
    tmp_path, encode: Encode, numbers_of, offset_s, config
):
    first = encode(tmp_path / "a.ts", [70, 80], *TS)
    offset = ("-output_ts_offset", str(offset_s))
    second = encode(tmp_path / "b.ts", [75, 65], *TS, *offset, first=150)
    path = joined(tmp_path, first, second)
    rows = decoded(path)
    assert rows.probe["num_clock_jumps"] == 1
    assert rows.probe["source_duration_s"] == pytest.approx(290 / 30, abs=0.001)
    assert [row["start_s"] for row in rows.scenes] == pytest.approx(
        [0, 70 / 30, 150 / 30, 225 / 30], abs=0.001
    )
    assert [row["cut_in"] for row in rows.scenes] == ["start", "cut", "discontinuity", "cut"]
    assert [row["cut_out"] for row in rows.scenes] == ["cut", "discontinuity", "cut", "end"]
    assert len({row["clip_id"] for row in rows.scenes}) == 4
    found = numbers_of(path, rows, config)
    spans = frames((0, 70), (70, 150), (150, 225), (225, 290))
    if config is FAST:
        assert found == spans
    for clip, span in zip(found, spans, strict=True):  # copying begins at a keyframe inside
        assert clip == list(range(clip[0], clip[-1] + 1))
        assert span[0] <= clip[0] < span[0] + 30
        assert clip[-1] <= span[-1]


def test_many_jumps_are_as_many_scenes(tmp_path, encode: Encode, numbers_of):
    parts = [encode(tmp_path / f"{place}.ts", [65], *TS, first=65 * place) for place in range(4)]
    rows = decoded(joined(tmp_path, *parts))
    assert rows.probe["num_clock_jumps"] == 3
    assert numbers_of(tmp_path / "joined.ts", rows) == frames(
        (0, 65), (65, 130), (130, 195), (195, 260)
    )


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_an_hour_without_a_frame_is_a_jump_in_any_container(
    tmp_path, encode: Encode, numbers_of, suffix
):
    times = "settb=1/1000,setpts='N*33+if(gte(N,70),3600000,0)'"
    options = ("-vf", times, "-fps_mode", "passthrough", "-enc_time_base", "1/1000")
    path = encode(tmp_path / f"film.{suffix}", [140], *H264, *options)
    rows = decoded(path)
    assert rows.probe["num_clock_jumps"] == 1
    assert rows.probe["source_duration_s"] == pytest.approx(140 * 0.033, abs=0.1)
    assert [row["cut_in"] for row in rows.scenes] == ["start", "discontinuity"]
    assert numbers_of(path, rows) == frames((0, 70), (70, 140))


def damaged(path: Path, *, begin: float, end: float, share: float) -> Path:
    """Some bytes of a share of the transport packets in a stretch of the file are changed."""
    data, draw = bytearray(path.read_bytes()), random.Random(3)
    num_packets = len(data) // 188
    for packet in range(int(begin * num_packets), int(end * num_packets)):
        if draw.random() < share:
            for _ in range(6):
                data[packet * 188 + draw.randrange(188)] ^= draw.randrange(1, 256)
    target = path.with_name("damaged.ts")
    target.write_bytes(data)
    return target


def test_damage_is_counted_and_what_is_whole_is_kept(tmp_path, encode: Encode, numbers_of):
    whole = encode(tmp_path / "whole.ts", [90] * 4, *TS)
    path = damaged(whole, begin=0.3, end=0.45, share=0.3)
    rows = decoded(path)
    assert rows.probe["source_num_damaged_frames"] > 0
    clips = numbers_of(path, rows)
    assert list(range(90)) in clips
    assert list(range(270, 360)) in clips
    for clip in clips:
        assert clip == list(range(clip[0], clip[-1] + 1))


def test_no_scene_lasts_longer_than_its_frames_do(tmp_path, encode: Encode):
    whole = encode(tmp_path / "whole.ts", [90] * 4, *TS)
    rows = decoded(damaged(whole, begin=0.03, end=1, share=0.3))
    assert rows.probe["source_duration_s"] < 13
    for row in rows.scenes:
        assert row["duration_s"] < row["num_frames"] / 30 + 1
    assert all(row["num_damaged_frames"] for row in rows.scenes if not row["scene_reject"])


def test_lost_packets_end_a_stretch(tmp_path, encode: Encode, numbers_of):
    data = encode(tmp_path / "whole.ts", [200], *TS).read_bytes()
    packets = [data[start : start + 188] for start in range(0, len(data), 188)]
    kept_packets = packets[: int(len(packets) * 0.45)] + packets[int(len(packets) * 0.55) :]
    path = tmp_path / "lost.ts"
    path.write_bytes(b"".join(kept_packets))
    rows = decoded(path)
    assert "damage" in {row["cut_out"] for row in rows.scenes}
    first, last = numbers_of(path, rows)
    assert first == list(range(len(first)))
    assert last == list(range(last[0], 200))
    assert last[0] % 30 == 0  # what is whole begins with a keyframe
    assert rows.probe["source_num_damaged_frames"] >= last[0] - len(first) - 3


def test_an_mp4_with_damage_in_its_middle_keeps_the_rest(tmp_path, encode: Encode, numbers_of):
    path = encode(tmp_path / "film.mp4", [90] * 4, *H264)
    damaged = range(
        100, 150
    )  # shown in the second shot; whole packets, as sizes differ from x264 to x264
    with av.open(str(path)) as film:
        packets = [packet for packet in film.demux(video=0) if packet.pts is not None]
    starts = sorted((packet.pts, packet.pos, packet.size) for packet in packets)
    data = bytearray(path.read_bytes())
    draw = random.Random(5)
    for number, (_, start, size) in enumerate(starts):
        if number in damaged:
            for place in range(start + 8, start + size, 25):
                data[place] ^= draw.randrange(1, 256)
    path.write_bytes(data)
    rows = decoded(path)
    assert rows.probe["source_num_damaged_frames"] > 0
    clips = numbers_of(path, rows)
    assert clips[0] == list(range(90))
    assert clips[-2:] == frames((180, 270), (270, 360))
    threaded = decoded(path, DecodeConfig(scenes=CONFIG.scenes, threads=3))
    assert threaded.probe == rows.probe
    assert kept(threaded) == kept(rows)


def without_packets(path: Path, target: Path, *, share: float) -> Path:
    """A transport stream that lost sixteen packets of its film in a row: their count comes round."""
    data = path.read_bytes()
    packets = [data[start : start + 188] for start in range(0, len(data), 188)]
    film = [n for n, each in enumerate(packets) if (each[1] & 31) << 8 | each[2] == 256]
    first = int(share * len(film))
    gone = set(film[first : first + 16])
    assert len(gone) == 16
    target.write_bytes(b"".join(each for n, each in enumerate(packets) if n not in gone))
    return target


def seen(path: Path) -> tuple[list[tuple[int, bool, np.ndarray]], int]:
    """Every frame (time, whether it is said to be damaged, picture), and how many are bad or lost."""
    with path.open("rb") as file, open_video(file, CONFIG.limits) as container:
        film = Film(container, picture_stream(container), CONFIG)
        found = [(s.frame.pts, s.is_damaged, s.frame.to_ndarray(format="gray")) for s in film]
        return found, film.num_damaged + film.num_lost


@pytest.mark.parametrize(
    "options",
    [
        (*H264, "-bf", "0"),
        (*H264, "-bf", "3", "-b_strategy", "0", "-crf", "2"),
        (*H264, "-bf", "3", "-crf", "8", "-x264-params", "open-gop=1"),
        ("-c:v", "mpeg2video", "-q:v", "2", "-bf", "2"),
    ],
    ids=["small frames", "B-pyramid", "open groups", "mpeg2"],
)
def test_frames_said_to_be_whole_are_whole_where_sixteen_packets_are_lost_in_a_row(
    tmp_path, encode: Encode, options
):
    path = encode(tmp_path / "whole.ts", [90, 90], *options, "-g", "40", "-f", "mpegts")
    whole = {picture_HW.tobytes() for _, _, picture_HW in seen(path)[0]}
    for share in (0.15, 0.43, 0.57, 0.71):
        found, num_bad = seen(without_packets(path, tmp_path / "lost.ts", share=share))
        assert num_bad > 0
        kept_pictures = [picture_HW for _, is_damaged, picture_HW in found if not is_damaged]
        assert len(kept_pictures) > 100
        assert all(picture_HW.tobytes() in whole for picture_HW in kept_pictures)


def test_a_refused_packet_right_behind_a_keyframe_is_damage_up_to_the_next_one(tmp_path):
    """HEVC's decoder holds frames back: the refusal comes before the keyframe has come out."""
    path = tmp_path / "whole.mp4"
    texture_HW = np.random.default_rng(4).integers(0, 256, (45, 80), np.uint8)
    texture_HW = texture_HW.repeat(8, 0).repeat(8, 1)
    with av.open(str(path), "w") as film:
        options = {"preset": "ultrafast", "x265-params": "keyint=45:scenecut=0:log-level=none"}
        stream = film.add_stream("libx265", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        for number in range(135):
            picture_HW = np.roll(texture_HW, (number, 3 * number), (0, 1))[:180, :320]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture_HW), "gray")
            film.mux(stream.encode(frame.reformat(format="yuv420p")))
        film.mux(stream.encode())
    clean = {pts: picture_HW for pts, _, picture_HW in seen(path)[0]}
    with av.open(str(path)) as film:
        packets = [packet for packet in film.demux(video=0) if packet.pts is not None]
    second = [place for place, packet in enumerate(packets) if packet.is_keyframe][1]
    hit = packets[second + 1]
    num_wrong = 0
    for seed in range(6):
        data = bytearray(path.read_bytes())
        draw = random.Random(seed)
        for place in draw.sample(range(hit.pos + 8, hit.pos + hit.size), 60):
            data[place] ^= draw.randrange(1, 256)
        (tmp_path / "hit.mp4").write_bytes(data)
        found, num_bad = seen(tmp_path / "hit.mp4")
        if num_bad:  # else the decoder took it for a picture, and says nothing
            wrong = {pts for pts, _, each in found if not np.array_equal(each, clean[pts])}
            assert wrong <= {pts for pts, is_damaged, _ in found if is_damaged}
            num_wrong += len(wrong)
    assert num_wrong > 20


@pytest.mark.parametrize("stated", [1000, 2])
def test_a_wrong_rate_in_the_header_moves_no_cut(tmp_path, scene_frames, stated):
    path = tmp_path / "recording.webm"
    with av.open(str(path), "w", options={"live": "1"}) as output:
        stream = output.add_stream("libvpx", rate=stated, options={"b": "2M"})
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        looks = ("red", 70), ("teal", 45), ("gold", 45), ("navy", 70)
        pictures = itertools.chain.from_iterable(scene_frames(*each) for each in looks)
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = round(number * 33.33), Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    rows = decoded(path)
    assert [row["start_frame"] for row in rows.scenes] == [0, 70, 115, 160]
    assert rows.probe["source_fps"] == pytest.approx(30, rel=0.01)


def test_cuts_are_found_where_the_local_rate_is_far_from_the_mean(tmp_path, encode: Encode):
    times = "settb=1/1000,setpts='if(lt(N,4),N*12000,48000+(N-4)*33)'"
    options = ("-vf", times, "-fps_mode", "passthrough", "-enc_time_base", "1/1000")
    path = encode(tmp_path / "stills.mp4", [70, 45, 45, 70], *H264, *options)
    starts = [row["start_frame"] for row in decoded(path).scenes]
    assert starts[-3:] == [70, 115, 160]


@pytest.mark.parametrize("codec", ["libxvid", "mpeg4", "libx264"])
def test_an_avi_keeps_its_clips(tmp_path, encode: Encode, numbers_of, codec):
    quality = ("-crf", "14") if codec == "libx264" else ("-q:v", "2")
    path = encode(tmp_path / "film.avi", [70, 80], "-c:v", codec, "-bf", "2", *quality)
    rows = decoded(path)
    num_frames = rows.probe["source_num_frames"]  # libxvid keeps its last two to itself
    assert num_frames >= 148
    assert numbers_of(path, rows) == frames((0, 70), (70, num_frames))


@pytest.mark.parametrize("codec", ["libxvid", "libx264"])
def test_copying_from_an_avi_never_puts_frames_out_of_order(
    tmp_path, encode: Encode, numbers_of, codec
):
    path = encode(tmp_path / "film.avi", [70, 80], "-c:v", codec, "-bf", "2", "-g", "20")
    with pytest.raises(BadSource, match="no_timestamps"):
        numbers_of(path, decoded(path), COPY)


@pytest.mark.parametrize("fps", ["24000/1001", "30000/1001", "25"])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_pieces_of_a_long_shot_are_no_longer_than_the_maximum(
    tmp_path, encode: Encode, fps, suffix
):
    path = encode(tmp_path / f"film.{suffix}", [150], *H264, fps=fps)
    rows = decoded(path, DecodeConfig(scenes=SceneConfig(max_s=2.0, min_s=1.0)))
    lengths = [row["duration_s"] for row in rows.scenes]
    assert max(lengths) <= 2.0
    assert lengths[:-1] == pytest.approx([2.0] * (len(lengths) - 1), abs=0.05)
    assert sum(row["num_frames"] for row in rows.scenes) == 150


def test_a_picture_that_stands_makes_no_scene_longer_than_the_maximum(
    tmp_path, encode: Encode, numbers_of
):
    times = "settb=1/1000,setpts='N*33+if(gte(N,70),25000,0)'"
    options = ("-vf", times, "-fps_mode", "passthrough", "-enc_time_base", "1/1000")
    path = encode(tmp_path / "screen.mkv", [150], *H264, *options)
    rows = decoded(path)
    assert [row["num_frames"] for row in rows.scenes] == [70, 80]
    assert [row["duration_s"] for row in rows.scenes] == pytest.approx([2.31, 2.64], abs=0.04)
    assert rows.scenes[1]["start_s"] == pytest.approx(25 + 2.31)
    assert rows.probe["num_clock_jumps"] == rows.probe["source_num_damaged_frames"] == 0
    assert numbers_of(path, rows) == frames((0, 70), (70, 150))


def retimed(
    path: Path,
    target: Path,
    time_of: Callable[[int], int | None],
    base: Fraction = Fraction(1, 1000),
) -> Path:
    """A film without B-frames, its packets copied to other times; None keeps a packet's own."""
    with av.open(str(path)) as source, av.open(str(target), "w") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        packets = (each for each in source.demux(video=0) if each.size)
        for number, packet in enumerate(packets):
            packet.time_base = base
            packet.pts = packet.dts = time_of(number)
            packet.stream = stream
            output.mux(packet)
    return target


COARSE: dict[str, Callable[[int], int]] = {
    "one is doubled": lambda n: round((n - (n == 40)) * 1000 / 30),
    "every seventh is doubled": lambda n: round((n - (n % 7 == 3)) * 1000 / 30),
    "50 ms": lambda n: int(n / 30 / 0.05) * 50,
    "100 ms": lambda n: int(n / 30 / 0.1) * 100,
}


@pytest.mark.parametrize("kind", COARSE)
@pytest.mark.parametrize("codec", ["mjpeg", "libx264"])
def test_frames_that_share_a_timestamp_are_no_damage(
    tmp_path, encode: Encode, numbers_of, kind, codec
):
    options = ("-c:v", codec, *(("-q:v", "3") if codec == "mjpeg" else ("-bf", "0", "-crf", "16")))
    whole = encode(tmp_path / "whole.mkv", [70, 80, 75], *options)
    path = retimed(whole, tmp_path / "coarse.mkv", COARSE[kind])
    rows = decoded(path)
    assert rows.probe["source_num_damaged_frames"] == 0
    assert rows.probe["source_duration_s"] == pytest.approx(7.5, abs=0.1)
    assert rows.probe["source_fps"] == pytest.approx(30, rel=0.02)
    assert numbers_of(path, rows) == frames((0, 70), (70, 150), (150, 225))


def test_a_program_stream_whose_last_frames_share_a_timestamp_loses_none(
    tmp_path, encode: Encode, numbers_of
):
    options = ("-c:v", "mpeg2video", "-q:v", "2", "-bf", "2", "-g", "12", "-f", "vob")
    first = encode(tmp_path / "a.mpg", [75], *options, fps="25")
    second = encode(tmp_path / "b.mpg", [80], *options, first=75, fps="25")
    path = joined(tmp_path, first, second)
    rows = decoded(path)
    assert rows.probe["num_clock_jumps"] == 1
    assert numbers_of(path, rows) == frames((0, 75), (75, 155))


def test_a_last_frame_is_as_long_as_the_others_where_the_stated_rate_is_wrong(
    tmp_path, encode: Encode
):
    whole = encode(tmp_path / "whole.mkv", [100], *H264, "-bf", "0", fps="1000")
    rows = decoded(retimed(whole, tmp_path / "film.mkv", lambda n: n * 40))
    assert rows.probe["source_duration_s"] == pytest.approx(4.0)
    assert [row["fps"] for row in rows.scenes] == pytest.approx([25.0])


def test_a_clock_that_stands_still_is_damage(tmp_path, encode: Encode):
    whole = encode(tmp_path / "whole.mkv", [210], "-c:v", "mjpeg", "-q:v", "3")
    stands = range(70, 140)
    path = retimed(
        whole, tmp_path / "stands.mkv", lambda n: round((70 if n in stands else n) * 1000 / 30)
    )
    rows = decoded(path)
    assert rows.probe["source_num_damaged_frames"] == pytest.approx(60, abs=3)
    assert [row["num_damaged_frames"] > 0 for row in rows.scenes] == [False, True, False]


def pictures(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [f.to_ndarray(format="gray").astype(float) for f in container.decode(video=0)]


@pytest.mark.parametrize("suffix", ["mp4", "ts"])
def test_a_decoder_that_says_nothing_of_damage_is_asked(
    tmp_path, encode: Encode, numbers_of, suffix
):
    quiet = ("-x265-params", "log-level=none:keyint=30:min-keyint=30")
    options = ("-c:v", "libx265", "-preset", "ultrafast", "-crf", "14", *quiet)
    whole = encode(tmp_path / f"whole.{suffix}", [90] * 4, *options)
    data, draw = bytearray(whole.read_bytes()), random.Random(6)
    for place in range(int(len(data) * 0.35), int(len(data) * 0.4), 25):
        data[place] ^= draw.randrange(1, 256)
    path = tmp_path / f"film.{suffix}"
    path.write_bytes(data)
    rows = decoded(path)
    assert rows.probe["source_num_damaged_frames"] > 0
    expected = pictures(whole)
    clips = numbers_of(path, rows)
    assert list(range(90)) in clips
    for clip, made in zip(clips, sorted(tmp_path.glob("scratch-*/made.mp4")), strict=True):
        for number, picture_HW in zip(clip, pictures(made), strict=True):
            assert np.abs(picture_HW - expected[number]).mean() < 4


def test_columns_that_the_stream_hides_on_the_left_are_hidden_everywhere(
    tmp_path, encode: Encode, guard: Guard
):
    whole = encode(tmp_path / "whole.mp4", [70], *H264)
    hide = ("-bsf:v", "h264_metadata=crop_left=32:crop_right=16")
    path = encode(tmp_path / "film.mp4", [70], *H264, *hide)
    rows = decoded(path)
    assert rows.probe["source_width"] == rows.scenes[0]["width"] == 112
    expected_HW = pictures(whole)[0][:, 32:144]
    clip = clip_of(rows, rows.scenes[0])
    for config in (FAST, COPY):
        (tmp_path / config.cut).mkdir()
        with path.open("rb") as file:
            media = cut(file, clip, config, guard, tmp_path / config.cut)
        view = View(corners=((0, 0),), size_px=(96, 112), scaled_px=(96, 112))
        read_HW = read_frames(media.data, [0.0], view)[0].float().mean(0).numpy()
        assert np.abs(read_HW - expected_HW).mean() < 20


@pytest.mark.parametrize("share", [0.6, 0.83])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("film.mkv", H264),
        ("fast_start.mp4", (*H264, "-movflags", "+faststart")),
        ("fragmented.mp4", (*H264, "-movflags", "frag_keyframe+empty_moov+default_base_moof")),
        ("film.avi", ("-c:v", "mpeg4", "-q:v", "2", "-bf", "2", "-g", "30")),
        ("film.ts", TS),
        ("film.mpg", ("-c:v", "mpeg2video", "-q:v", "2", "-bf", "2", "-f", "vob")),
    ],
)
def test_of_a_film_that_is_cut_off_what_lies_before_is_kept(
    tmp_path, encode: Encode, numbers_of, name, options, share
):
    whole = encode(tmp_path / name, [70, 80, 90], *options, fps="25")
    data = whole.read_bytes()
    path = tmp_path / f"cut_{name}"
    path.write_bytes(data[: int(len(data) * share)])
    rows = decoded(path)
    num_frames = rows.probe["source_num_frames"]
    if not name.endswith(("ts", "mpg")):  # which promise nothing
        assert rows.probe["source_num_damaged_frames"] > 0
    expected = pictures(whole)
    clips = numbers_of(path, rows)
    assert clips[0] == list(range(70))
    for clip, made in zip(clips, sorted(tmp_path.glob("scratch-*/made.mp4")), strict=True):
        assert clip[-1] <= num_frames  # a B-frame before the last whole frame may be cut off
        for number, picture_HW in zip(clip, pictures(made), strict=True):
            assert np.abs(picture_HW - expected[number]).mean() < 4


@pytest.mark.parametrize("num_b_frames", ["0", "2"])
def test_recordings_laid_end_to_end_whose_clock_goes_on_lose_no_frame(
    tmp_path, encode: Encode, numbers_of, num_b_frames
):
    options = (*TS, "-bf", num_b_frames)
    first = encode(tmp_path / "a.ts", [75], *options)
    on = ("-output_ts_offset", "2.5")
    second = encode(tmp_path / "b.ts", [80], *options, *on, first=75)
    path = joined(tmp_path, first, second)
    rows = decoded(path)
    assert rows.probe["source_num_damaged_frames"] == 0
    assert rows.probe["num_clock_jumps"] == 1
    assert [row["cut_in"] for row in rows.scenes] == ["start", "discontinuity"]
    assert [row["start_s"] for row in rows.scenes] == pytest.approx([0, 2.5], abs=0.001)
    assert numbers_of(path, rows) == frames((0, 75), (75, 155))


@pytest.mark.parametrize("codec", ["huffyuv", "utvideo", "rawvideo"])
@pytest.mark.parametrize("suffix", ["avi", "mkv"])
def test_what_cameras_capture_without_loss_is_read(
    tmp_path, encode: Encode, numbers_of, codec, suffix
):
    path = encode(tmp_path / f"film.{suffix}", [70, 80], "-pix_fmt", "yuv422p", "-c:v", codec)
    assert numbers_of(path, decoded(path)) == frames((0, 70), (70, 150))


@pytest.mark.parametrize("num_b_frames", ["0", "2"])
def test_frames_without_timestamps_at_the_start_have_the_pace_of_the_film(
    tmp_path, encode: Encode, numbers_of, num_b_frames
):
    early = ("-avoid_negative_ts", "disabled", "-output_ts_offset", "-1.3")  # Matroska has no signs
    path = encode(tmp_path / "film.mkv", [70, 80, 75], *H264, "-bf", num_b_frames, *early)
    rows = decoded(path)
    assert rows.probe["source_num_damaged_frames"] == 0
    assert rows.probe["source_duration_s"] == pytest.approx(7.5, abs=0.01)
    assert [row["start_frame"] for row in rows.scenes] == [0, 70, 150]
    assert numbers_of(path, rows) == frames((0, 70), (70, 150), (150, 225))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("film.y4m", ()),
        ("film.mxf", ("-c:v", "mpeg2video", "-q:v", "2", "-bf", "2")),
        ("film.dv", ("-vf", "scale=720:576", "-pix_fmt", "yuv420p", "-c:v", "dvvideo")),
    ],
)
def test_containers_of_tape_and_broadcast_are_read(
    tmp_path, encode: Encode, numbers_of, name, options
):
    path = encode(tmp_path / name, [70, 80], *options, fps="25")
    rows = decoded(path)
    assert [row["num_frames"] for row in kept(rows)] == [70, 80]
    found = numbers_of(path, rows)
    if name == "film.dv":  # whose boxes are larger
        assert [len(clip) for clip in found] == [70, 80]
    else:
        assert found == frames((0, 70), (70, 150))


FRAGMENTED = ("-movflags", "frag_keyframe+empty_moov+default_base_moof")


def keyframes_of(path: Path) -> list[int]:
    """Which frames, in the order in which they are shown, are keyframes."""
    with av.open(str(path)) as film:
        times = [(p.pts, p.is_keyframe) for p in film.demux(video=0) if p.size]
    return [number for number, (_, is_keyframe) in enumerate(sorted(times)) if is_keyframe]


def without_groups(path: Path, target: Path, *gone: int) -> Path:
    """A film whose packets are copied but for those of some groups of pictures, counted from 0."""
    with av.open(str(path)) as source, av.open(str(target), "w") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        group = -1
        for packet in source.demux(video=0):
            group += packet.size > 0 and packet.is_keyframe
            if packet.size and group not in gone:
                packet.stream = stream
                output.mux(packet)
    return target


def without_fragment(path: Path, target: Path, gone: int) -> Path:
    """A fragmented MP4 without one of its fragments, as a download leaves it."""
    data, kept_boxes, place, number = path.read_bytes(), [], 0, -1
    while place < len(data):
        length, kind = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        number += kind == b"moof"
        if kind not in (b"moof", b"mdat") or number != gone:
            kept_boxes.append(data[place : place + length])
        place += length
    target.write_bytes(b"".join(kept_boxes))
    return target


@pytest.mark.parametrize("fps", ["24000/1001", "30", "60"])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "flv"])
def test_a_group_of_pictures_that_is_missing_ends_a_scene(
    tmp_path, encode: Encode, numbers_of, suffix, fps
):
    whole = encode(tmp_path / f"whole.{suffix}", [300], *H264, fps=fps)
    starts = keyframes_of(whole)
    gone = range(starts[4], starts[6])  # a second at 60 frames a second
    path = without_groups(whole, tmp_path / f"film.{suffix}", 4, 5)
    rows = decoded(path, DecodeConfig(scenes=SceneConfig(trim_frames=0, min_s=1.0)))
    assert rows.probe["source_num_damaged_frames"] == len(gone)
    assert rows.probe["num_clock_jumps"] == 0
    assert [row["cut_out"] for row in rows.scenes] == ["discontinuity", "end"]
    assert [row["cut_in"] for row in rows.scenes] == ["start", "discontinuity"]
    expected_s = [gone.start / Fraction(fps), (300 - gone.stop) / Fraction(fps)]
    assert [row["duration_s"] for row in rows.scenes] == pytest.approx(expected_s, abs=0.003)
    assert numbers_of(path, rows) == frames((0, gone.start), (gone.stop, 300))


def test_a_fragment_that_was_not_downloaded_ends_a_scene(tmp_path, encode: Encode, numbers_of):
    whole = encode(tmp_path / "whole.mp4", [240], *H264, *FRAGMENTED)
    path = without_fragment(whole, tmp_path / "film.mp4", 3)
    rows = decoded(path)
    assert rows.probe["source_num_damaged_frames"] == 30
    assert numbers_of(path, rows) == frames((0, 90), (120, 240))


def test_pictures_that_are_made_from_a_missing_group_are_damage(
    tmp_path, encode: Encode, numbers_of
):
    """The first pictures of an open group are made from the group before it as well."""
    options = ("-c:v", "mpeg2video", "-q:v", "2", "-bf", "2", "-g", "15")
    whole = encode(tmp_path / "whole.mkv", [240], *options)
    path = without_groups(whole, tmp_path / "film.mkv", 6, 7)
    first = keyframes_of(whole)[8]
    rows = decoded(path)
    assert rows.probe["source_num_damaged_frames"] == 30 + 2
    before, behind = numbers_of(path, rows)
    assert before == list(range(first - 2 - 30))
    assert behind == list(range(first, 240))


PAUSES: dict[str, tuple[str, tuple[str, ...]]] = {
    "frozen": ("N*33+if(gte(N,75),2000,0)", ()),
    "frozen on the grid": ("(N+if(gte(N,75),60,0))*40", ()),
    "a recorder of the screen": ("N*40+mod(N*N*7,23)+if(gte(N,90),3000,0)", ("-g", "1")),
    "slides": ("N*2000+if(gte(N,90),8000,0)", ("-g", "1")),
    "a camera short of light": ("N*33+floor(N/9)*33+if(gte(N,90),990,0)", ()),
}


@pytest.mark.parametrize("kind", PAUSES)
def test_a_clock_that_pauses_for_a_good_reason_has_no_gap(tmp_path, encode: Encode, kind):
    times, options = PAUSES[kind]
    steps = ("-vf", f"settb=1/1000,setpts='{times}'", "-fps_mode", "passthrough")
    path = tmp_path / "film.mkv"
    encode(path, [180], *H264, *steps, "-enc_time_base", "1/1000", *options)
    rows = decoded(path)
    assert rows.probe["source_num_damaged_frames"] == 0
    assert not {row["cut_in"] for row in rows.scenes} & {"discontinuity", "damage"}


def hit(path: Path, target: Path, numbers: range, *, skip: int = 8) -> Path:
    """A film of which bytes of some packets, in the order of decoding, are changed."""
    with av.open(str(path)) as film:
        packets = [packet for packet in film.demux(video=0) if packet.size]
    data, draw = bytearray(path.read_bytes()), random.Random(1)
    for number in numbers:
        start, size = packets[number].pos, packets[number].size
        for _ in range(40):
            data[draw.randrange(start + min(skip, size - 1), start + size)] ^= draw.randrange(
                1, 256
            )
    target.write_bytes(data)
    return target


def test_a_frame_that_is_missing_is_counted_once(tmp_path, encode: Encode):
    """HEVC's decoder refuses packets while frames before them are still to come out."""
    quiet = ("-x265-params", "log-level=none:keyint=30:min-keyint=30")
    options = ("-c:v", "libx265", "-preset", "ultrafast", "-crf", "14", *quiet)
    whole = encode(tmp_path / "whole.mp4", [180], *options)
    rows = decoded(hit(whole, tmp_path / "film.mp4", range(70, 76)))
    num_missing = 180 - rows.probe["source_num_frames"]
    num_damaged = sum(row["num_damaged_frames"] for row in rows.scenes)
    assert num_missing > 5
    assert rows.probe["source_num_damaged_frames"] == num_missing + num_damaged


@pytest.mark.parametrize("keyframes_every", ["30", "9999"])
def test_a_refused_packet_of_av1_costs_no_clip_before_it(
    tmp_path, encode: Encode, numbers_of, keyframes_every
):
    options = ("-c:v", "libaom-av1", "-cpu-used", "8", "-crf", "16", "-g", keyframes_every)
    whole = encode(tmp_path / "whole.mp4", [60, 240], *options)
    target, first_refused = tmp_path / "film.mp4", 0
    for first_refused in range(62, 100):  # some packets show what others hold
        hit(whole, target, range(first_refused, first_refused + 1), skip=0)
        rows = decoded(target)
        if rows.probe["source_num_frames"] < 290:
            break
    assert rows.probe["source_num_damaged_frames"] > 9
    clips = numbers_of(target, rows)
    assert clips[0] == list(range(60))
    if keyframes_every == "30":
        behind = min(place for place in keyframes_of(whole) if place > first_refused)
        assert clips[-1][-1] == 299
        assert behind <= clips[-1][0] <= behind + 1  # one that ends a short hole is hurt itself


def test_the_last_frame_of_a_program_stream_has_its_own_time(tmp_path, encode: Encode, guard):
    options = ("-c:v", "mpeg2video", "-q:v", "2", "-bf", "2", "-g", "12", "-f", "vob")
    first = encode(tmp_path / "a.mpg", [75], *options, fps="25")
    second = encode(tmp_path / "b.mpg", [80], *options, first=75, fps="25")
    path = joined(tmp_path, first, second)
    rows = decoded(path)
    with path.open("rb") as file:
        stream = read_stream(file, FAST, guard, has_jumps=True)
        for place, row in enumerate(kept(rows)):
            scratch = tmp_path / f"scratch-{place}"
            scratch.mkdir()
            media = cut(file, stream.placed(clip_of(rows, row)), FAST, guard, scratch)
            (scratch / "made.mp4").write_bytes(media.data)
            with av.open(str(scratch / "made.mp4")) as film:
                times = [frame.pts for frame in film.decode(video=0)]
            assert {b - a for a, b in itertools.pairwise(times)} == {3600}


def test_an_intra_refresh_ends_damage_as_a_keyframe_does(tmp_path, encode: Encode):
    """Such films have one keyframe; later on the picture is made anew column by column."""
    options = ("-c:v", "libx264", "-preset", "veryfast", "-crf", "16", "-g", "30")
    refresh = ("-x264-params", "intra-refresh=1", "-f", "mpegts")
    data = encode(tmp_path / "whole.ts", [300], *options, *refresh).read_bytes()
    clean = {pts: picture_HW for pts, _, picture_HW in seen(tmp_path / "whole.ts")[0]}
    place = len(data) // 188 // 4
    (tmp_path / "film.ts").write_bytes(data[: place * 188] + data[(place + 5) * 188 :])
    found, num_bad = seen(tmp_path / "film.ts")
    assert 20 < num_bad < 140  # three refreshes of thirty frames, and what was hit
    assert found[-1][1] is False
    for pts, is_damaged, picture_HW in found:
        if not is_damaged:  # a refresh need not be exact to the last bit
            assert np.abs(picture_HW.astype(int) - clean[pts]).mean() < 1


@pytest.mark.parametrize("offset", [(), ("-output_ts_offset", "2.5")], ids=["restarts", "goes on"])
def test_a_change_from_sdr_to_hdr_is_no_damage(tmp_path, encode: Encode, offset):
    """What waits in the decoder has no tags, and gets those of the recording that comes next."""
    quiet = "log-level=none:keyint=30:min-keyint=30"
    options = ("-c:v", "libx265", "-preset", "ultrafast", "-crf", "14", "-x265-params")
    pq = f"{quiet}:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc"
    first = encode(tmp_path / "a.ts", [75], *options, quiet)
    ten_bits = ("-pix_fmt", "yuv420p10le")
    second = encode(tmp_path / "b.ts", [80], *options, pq, *ten_bits, *offset, first=75)
    rows = decoded(joined(tmp_path, first, second))
    assert rows.probe["source_num_damaged_frames"] == 0
    assert [row["num_frames"] for row in rows.scenes] == [75, 80]
    assert [row["colour"].split("/")[2] for row in rows.scenes] == ["unspecified", "smpte2084"]


@pytest.mark.parametrize("every", [40, 10])
def test_a_sender_that_leaves_out_frames_is_soon_known(tmp_path, encode: Encode, every):
    """The first gaps may be loss that no packet count shows; a habit is none."""
    leaves_out = ("-vf", f"select='mod(n,{every})'", "-fps_mode", "vfr")
    rows = decoded(encode(tmp_path / "film.ts", [400], *leaves_out, *TS))
    assert rows.scenes[-1]["num_damaged_frames"] == 0
    assert rows.scenes[-1]["num_frames"] > 230
    assert rows.probe["source_num_damaged_frames"] < 64


OTHER_STREAM = (*TS, "-mpegts_start_pid", "0x300")


@pytest.mark.parametrize("config", [FAST, COPY], ids=["exact", "copy"])
@pytest.mark.parametrize("name", ["film.flv", "film.ts", "film.mp4"])
def test_recordings_under_headers_of_their_own_are_one_film(
    tmp_path, encode: Encode, numbers_of, name, config
):
    """As pieces of a download with an advertisement between them."""
    own, other = (TS, OTHER_STREAM) if name == "film.ts" else (H264, H264)
    suffix = Path(name).suffix
    parts = [
        encode(tmp_path / f"a{suffix}", [75], *own),
        encode(tmp_path / f"b{suffix}", [80], *other, first=75),
        encode(tmp_path / f"c{suffix}", [70], *own, first=155),
    ]
    path = tmp_path / name
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    rows = decoded(path)
    assert rows.probe["num_clock_jumps"] == 2
    assert rows.probe["source_num_damaged_frames"] == 0
    assert [row["cut_in"] for row in rows.scenes] == ["start", "discontinuity", "discontinuity"]
    assert rows.probe["source_duration_s"] == pytest.approx(7.5, abs=0.05)
    assert numbers_of(path, rows, config) == frames((0, 75), (75, 155), (155, 225))


def test_a_recording_of_another_size_behind_the_first_has_its_own(
    tmp_path, encode: Encode, numbers_of
):
    first = encode(tmp_path / "a.ts", [75], *TS)
    second = encode(tmp_path / "b.ts", [80], *OTHER_STREAM, "-vf", "scale=320:192", first=75)
    path = joined(tmp_path, first, second)
    rows = decoded(path)
    assert [(row["width"], row["height"]) for row in rows.scenes] == [(160, 96), (320, 192)]
    assert [row["num_frames"] for row in rows.scenes] == [75, 80]
    assert [len(clip) for clip in numbers_of(path, rows)] == [75, 80]


def test_a_recording_that_cannot_be_read_is_counted(tmp_path, encode: Encode, numbers_of):
    first = encode(tmp_path / "a.flv", [75], *H264)
    second = encode(tmp_path / "b.flv", [80], *H264, first=75)
    path = tmp_path / "film.flv"
    path.write_bytes(first.read_bytes() + second.read_bytes()[:400])
    rows = decoded(path)
    assert rows.probe["source_num_frames"] == 75
    assert rows.probe["source_num_damaged_frames"] == 1
    assert numbers_of(path, rows) == frames((0, 75))


@pytest.mark.parametrize("end_s", ["2.03", "2.1", "2.2"])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_film_that_was_cut_by_copying_packets_ends_where_pictures_are_missing(
    tmp_path, encode: Encode, numbers_of, run_ffmpeg, suffix, end_s
):
    whole = encode(tmp_path / f"whole.{suffix}", [160], *H264, "-bf", "3")
    path = tmp_path / f"film.{suffix}"
    run_ffmpeg("-i", whole, "-t", end_s, "-c", "copy", path)
    rows = decoded(path)
    (clip,) = numbers_of(path, rows)
    assert clip == list(range(len(clip)))
    assert rows.probe["source_num_frames"] - len(clip) == rows.probe["source_num_damaged_frames"]
    assert rows.probe["source_num_damaged_frames"] <= 3
