"""Every frame of a test film carries its number as a barcode, which is read back after the cut."""

import io
import itertools
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from curation.errors import BadSource, MachineFault
from curation.export.clips import ADMITTED, Clip, ExportConfig, Media, cut, read_stream
from curation.export.clips.settings import fitted_size
from curation.media.colour import Colour, colour_of
from curation.media.guard import Guard
from curation.media.orientation import Orientation

WIDTH, HEIGHT = 160, 96
BITS = 8
NUM_FRAMES = 200
OPEN_GOP = "keyint=30:min-keyint=30:scenecut=0:open-gop=1"
FILMS = {
    "closed.mp4": ("mov", ("-c:v", "libx264", "-g", "30", "-bf", "3")),
    "open.mp4": ("mov", ("-c:v", "libx264", "-x264-params", f"{OPEN_GOP}:bframes=5:b-adapt=0")),
    "open.mkv": ("matroska", ("-c:v", "libx264", "-x264-params", f"{OPEN_GOP}:bframes=5")),
    "hevc.mp4": ("mov", ("-c:v", "libx265", "-x265-params", f"{OPEN_GOP}:log-level=none")),
    "stream.ts": ("mpegts", ("-c:v", "libx264", "-g", "30", "-bf", "2")),
    "old.avi": ("avi", ("-c:v", "mpeg4", "-g", "30", "-bf", "2", "-q:v", "2")),
    "program.mpg": ("mpeg", ("-c:v", "mpeg2video", "-g", "15", "-bf", "2", "-q:v", "2")),
    "vp9.webm": ("matroska", ("-c:v", "libvpx-vp9", "-g", "30", "-deadline", "realtime")),
}
UNEVEN = "settb=1/1000,setpts=N*40+mod(N*N\\,7)*5"


def barcode(number: int, width: int, height: int) -> np.ndarray:
    """A grey picture that shows a number: a row of light and dark boxes over a moving ramp."""
    picture_HW = np.full((height, width), 60, np.uint8)
    box = width // BITS
    for bit in range(BITS):
        level = 200 if number >> bit & 1 else 20
        picture_HW[height // 12 : height // 2, bit * box : (bit + 1) * box] = level
    picture_HW[height // 2 :] = (np.arange(width) + 3 * number) % 256
    return picture_HW


def read_number(picture_HW: np.ndarray) -> int:
    height, width = picture_HW.shape
    box = width / BITS
    row = picture_HW[int(height * 0.3)]
    return sum(1 << bit for bit in range(BITS) if row[int((bit + 0.5) * box)] > 110)


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory, ffmpeg_exe: str) -> Callable[..., Path]:
    """``film(name, encoder, filters)``: 200 numbered frames at 25 a second, made once."""
    folder = tmp_path_factory.mktemp("films")

    def make(
        name: str,
        encoder: tuple[str, ...],
        filters: str = "null",
        size: tuple[int, int] = (WIDTH, HEIGHT),
    ) -> Path:
        path = folder / name
        if not path.exists():
            raw = b"".join(barcode(n, *size).tobytes() for n in range(NUM_FRAMES))
            command = [ffmpeg_exe, "-v", "error", "-f", "rawvideo", "-pix_fmt", "gray"]
            command += ["-s", f"{size[0]}x{size[1]}", "-r", "25", "-i", "-"]
            command += ["-vf", f"{filters},format=yuv420p", "-fps_mode", "passthrough"]
            command += ["-enc_time_base", "filter", *encoder, str(path)]
            subprocess.run(command, input=raw, check=True, timeout=60)
        return path

    return make


def shown(path: Path) -> tuple[list[tuple[int, int]], Fraction]:
    """Timestamp and number of every frame as PyAV decodes it, and the time base."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [
            (f.pts, read_number(f.to_ndarray(format="gray"))) for f in container.decode(stream)
        ]
        return frames, stream.time_base


def clip_of(path: Path, container: str, begin: int, end: int) -> Clip:
    """The clip of frames ``begin`` up to ``end``, as the decoding pass would describe it."""
    frames, base = shown(path)
    last_end = frames[-1][0] + round(Fraction(1, 25) / base)
    return Clip(
        container=container,
        start_pts=frames[begin][0],
        end_pts=frames[end][0] if end < len(frames) else last_end,
        time_base=base,
        num_frames=end - begin,
        width=WIDTH,
        height=HEIGHT,
        colour=SD,
    )


SD = Colour("smpte170m", False, "unspecified", "unspecified")
FAST = ExportConfig(x264_preset="ultrafast")
COPY = ExportConfig(cut="copy", min_copied_frames=1, min_copied_s=0)


@pytest.fixture(scope="module")
def guard() -> Iterator[Guard]:
    with Guard(ADMITTED) as guard:
        yield guard


@pytest.fixture
def cut_to_file(tmp_path: Path, guard: Guard) -> Callable[..., tuple[Path, Media]]:
    """Cut and lay the result into a file of its own."""
    numbers = itertools.count()

    def do(source: Path, clip: Clip, config: ExportConfig) -> tuple[Path, Media]:
        scratch = tmp_path / f"scratch-{next(numbers)}"
        scratch.mkdir()
        with source.open("rb") as file:
            media = cut(file, clip, config, guard, scratch)
        path = scratch / f"result.{media.extension}"
        path.write_bytes(media.data)
        return path, media

    return do


@pytest.mark.parametrize("name", FILMS)
@pytest.mark.parametrize(("begin", "end"), [(0, 50), (29, 95), (150, 200)])
def test_exact_cut_holds_exactly_the_frames_of_the_clip(
    name: str, begin: int, end: int, film: Callable[..., Path], cut_to_file: Callable[..., object]
) -> None:
    container, encoder = FILMS[name]
    source = film(name, encoder)
    path, media = cut_to_file(source, clip_of(source, container, begin, end), FAST)
    frames, _ = shown(path)
    assert [number for _, number in frames] == list(range(begin, end))
    assert media.num_frames == end - begin
    assert media.duration_s == pytest.approx((end - begin) / 25, abs=1e-3)
    assert media.fps == pytest.approx(25, rel=1e-3)


@pytest.mark.parametrize("name", ["uneven.mp4", "uneven.mkv"])
def test_exact_cut_keeps_the_times_of_a_variable_frame_rate(
    name: str, film: Callable[..., Path], cut_to_file: Callable[..., object]
) -> None:
    source = film(name, FILMS["closed.mp4"][1], UNEVEN)
    clip = clip_of(source, "mov" if name.endswith("mp4") else "matroska", 33, 101)
    path, media = cut_to_file(source, clip, FAST)
    before, base = shown(source)
    after, new_base = shown(path)
    assert [n for _, n in after] == list(range(33, 101))
    assert [t * new_base for t, _ in after] == [
        (t - before[33][0]) * base for t, _ in before[33:101]
    ]
    assert media.duration_s == pytest.approx(clip.duration_s, abs=1e-6)
    with av.open(str(path)) as container:
        assert container.duration / 1e6 == pytest.approx(clip.duration_s, abs=2e-3)


def test_exact_cut_begins_right_where_the_stream_does_not_begin_at_zero(
    film: Callable[..., Path], cut_to_file: Callable[..., object]
) -> None:
    source = film("late.mkv", FILMS["closed.mp4"][1], "setpts=PTS+100/TB")
    clip = clip_of(source, "matroska", 40, 80)
    assert clip.start_pts * clip.time_base == pytest.approx(101.6)
    path, _ = cut_to_file(source, clip, FAST)
    assert [n for _, n in shown(path)[0]] == list(range(40, 80))


@pytest.mark.parametrize("config", [FAST, COPY], ids=["exact", "copy"])
def test_cuts_obey_an_edit_list(
    config: ExportConfig,
    film: Callable[..., Path],
    run_ffmpeg: Callable[..., None],
    cut_to_file: Callable[..., object],
    tmp_path: Path,
) -> None:
    whole = film("closed.mp4", FILMS["closed.mp4"][1])
    edited = tmp_path / "edited.mp4"
    # Stream copy from the middle of a GOP: the file holds frames 30.. and an edit list hides some.
    run_ffmpeg("-ss", "1.6", "-i", whole, "-c", "copy", edited)
    frames, _ = shown(edited)
    assert frames[0][1] == 40
    clip = clip_of(edited, "mov", 0, 60)
    path, media = cut_to_file(edited, clip, config)
    numbers = [n for _, n in shown(path)[0]]
    assert numbers == list(range(numbers[0], numbers[0] + media.num_frames))
    assert (numbers[0], numbers[-1]) == ((40, 99) if config is FAST else (60, numbers[-1]))
    assert numbers[-1] <= 99


def test_exact_cut_takes_the_stream_that_was_measured(
    film: Callable[..., Path],
    run_ffmpeg: Callable[..., None],
    cut_to_file: Callable[..., object],
    guard: Guard,
    tmp_path: Path,
) -> None:
    main = film("closed.mp4", FILMS["closed.mp4"][1])
    both = tmp_path / "both.mp4"
    small = ("-filter:v:0", "scale=80:48,negate", "-c:v:0", "libx264", "-c:v:1", "copy")
    run_ffmpeg("-i", main, "-map", "0:v", "-map", "0:v", *small, both)
    with both.open("rb") as file:
        index = read_stream(file, FAST, guard, has_jumps=False).index
    assert index == 1
    clip = replace(clip_of(main, "mov", 31, 60), stream_index=index)
    path, _ = cut_to_file(both, clip, FAST)
    assert [n for _, n in shown(path)[0]] == list(range(31, 60))


def test_exact_cut_turns_the_picture_upright(
    film: Callable[..., Path],
    rotated: Callable[..., Path],
    cut_to_file: Callable[..., object],
    tmp_path: Path,
) -> None:
    upright = film("closed.mp4", FILMS["closed.mp4"][1])
    source = rotated(upright, tmp_path / "turned.mp4", 90)
    turned = Orientation(turn_deg=90)
    clip = replace(clip_of(upright, "mov", 30, 60), width=HEIGHT, height=WIDTH, orientation=turned)
    path, media = cut_to_file(source, clip, FAST)
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        assert frame.rotation == 0
        picture = frame.to_ndarray(format="gray")
    assert picture.shape == (WIDTH, HEIGHT)
    assert (media.width, media.height) == (HEIGHT, WIDTH)
    assert read_number(np.rot90(picture)) == 30


def test_copy_keeps_rotation_and_says_the_shown_size(
    film: Callable[..., Path],
    rotated: Callable[..., Path],
    cut_to_file: Callable[..., object],
    tmp_path: Path,
) -> None:
    upright = film("closed.mp4", FILMS["closed.mp4"][1])
    source = rotated(upright, tmp_path / "turned.mp4", 90)
    clip = replace(clip_of(upright, "mov", 30, 90), width=HEIGHT, height=WIDTH)
    path, media = cut_to_file(source, clip, COPY)
    with av.open(str(path)) as container:
        assert -next(container.decode(video=0)).rotation % 360 == 90
    assert (media.width, media.height) == (HEIGHT, WIDTH)


def test_exact_cut_makes_pixels_square_and_sides_even(
    film: Callable[..., Path], cut_to_file: Callable[..., object]
) -> None:
    # 160x96 with pixels of 4:3 is shown as 213x96.
    source = film("anamorphic.mp4", FILMS["closed.mp4"][1], "setsar=4/3")
    clip = replace(clip_of(source, "mov", 0, 30), width=213)
    path, media = cut_to_file(source, clip, FAST)
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.width, context.height) == (212, 96)
        assert context.sample_aspect_ratio in (None, 0, 1)
    assert (media.width, media.height) == (212, 96)


def test_exact_cut_of_an_odd_size_drops_one_column_and_keeps_the_other_pixels(
    film: Callable[..., Path], cut_to_file: Callable[..., object]
) -> None:
    lossless = ("-c:v", "libx264rgb", "-qp", "0", "-g", "30")
    source = film("odd.mp4", lossless, "format=gbrp", size=(161, 97))
    assert fitted_size(161, 97, None) == (160, 96)
    clip = replace(clip_of(source, "mov", 5, 40), width=161, height=97)
    path, _ = cut_to_file(source, clip, replace(FAST, crf=0))
    with av.open(str(path)) as container:
        picture = next(container.decode(video=0)).to_ndarray(format="gray")
    assert picture.shape == (96, 160)
    # 8-bit grey of limited range and back is right to one or two levels.
    difference = np.abs(picture.astype(int) - barcode(5, 161, 97)[:96, :160])
    assert difference.max() <= 3


@pytest.mark.parametrize(
    ("filters", "options", "range_name", "matrix"),
    [
        ("scale=out_range=full", ("-color_range", "pc"), "JPEG", 1),
        ("null", ("-colorspace", "smpte170m", "-color_primaries", "smpte170m"), "MPEG", 6),
    ],
)
def test_exact_cut_keeps_range_and_colour_space(
    filters: str,
    options: tuple[str, ...],
    range_name: str,
    matrix: int,
    film: Callable[..., Path],
    cut_to_file: Callable[..., object],
) -> None:
    encoder = ("-c:v", "libx264", "-crf", "4", "-colorspace", "bt709", *options)
    source = film(f"colour-{range_name}.mp4", encoder, f"{filters},setparams=range=auto")
    clip = clip_of(source, "mov", 60, 90)
    with av.open(str(source)) as container:
        clip = replace(clip, colour=colour_of(next(container.decode(video=0))))
    path, _ = cut_to_file(source, clip, replace(FAST, crf=4))
    planes = []
    for file, skip in ((source, 60), (path, 0)):
        with av.open(str(file)) as container:
            frame = next(itertools.islice(container.decode(video=0), skip, None))
            context = container.streams.video[0].codec_context
            planes.append((frame.to_ndarray()[:HEIGHT], context.color_range, context.colorspace))
    (before, *tags_before), (after, *tags_after) = planes
    assert tags_after == tags_before
    assert tags_after[1] == matrix
    assert tags_after[0] == {"MPEG": 1, "JPEG": 2}[range_name]
    # A conversion between the ranges would move white by twenty levels.
    assert np.abs(before.astype(int) - after).mean() < 2


def test_exact_cut_makes_large_pictures_smaller_and_leaves_small_ones(
    film: Callable[..., Path], cut_to_file: Callable[..., object]
) -> None:
    source = film("closed.mp4", FILMS["closed.mp4"][1])
    clip = clip_of(source, "mov", 0, 30)
    _, small = cut_to_file(source, clip, replace(FAST, max_short_side_px=48))
    _, same = cut_to_file(source, clip, replace(FAST, max_short_side_px=96))
    assert (small.width, small.height) == (80, 48)
    assert (same.width, same.height) == (160, 96)


@pytest.mark.parametrize("config", [FAST, COPY], ids=["exact", "copy"])
def test_same_clip_gives_the_same_bytes(
    config: ExportConfig, film: Callable[..., Path], cut_to_file: Callable[..., object]
) -> None:
    source = film("open.mp4", FILMS["open.mp4"][1])
    clip = clip_of(source, "mov", 25, 110)
    _, first = cut_to_file(source, clip, config)
    _, second = cut_to_file(source, clip, config)
    assert first == second


def frames_by_opencv(path: Path) -> list[int]:
    capture = cv2.VideoCapture(str(path))
    numbers = []
    while (answer := capture.read())[0]:
        numbers.append(read_number(cv2.cvtColor(answer[1], cv2.COLOR_BGR2GRAY)))
    return numbers


def frames_by_ffmpeg(ffmpeg_exe: str, path: Path) -> list[int]:
    command = [ffmpeg_exe, "-v", "error", "-i", str(path), "-f", "rawvideo", "-pix_fmt", "gray"]
    done = subprocess.run(
        [*command, "-fps_mode", "passthrough", "-"], capture_output=True, check=True, timeout=60
    )
    assert done.stderr == b""
    pictures = np.frombuffer(done.stdout, np.uint8).reshape(-1, HEIGHT, WIDTH)
    return [read_number(picture) for picture in pictures]


@pytest.mark.parametrize("name", [*FILMS, "uneven.mp4"])
@pytest.mark.parametrize(("begin", "end"), [(0, 50), (30, 89), (58, 121)])
def test_copy_leaks_no_frame_of_a_neighbour_into_any_decoder(
    name: str,
    begin: int,
    end: int,
    film: Callable[..., Path],
    cut_to_file: Callable[..., object],
    ffmpeg_exe: str,
) -> None:
    container, encoder = FILMS.get(name, FILMS["closed.mp4"])
    source = film(name, encoder, UNEVEN if name == "uneven.mp4" else "null")
    path, media = cut_to_file(source, clip_of(source, container, begin, end), COPY)
    numbers = [number for _, number in shown(path)[0]]
    assert frames_by_opencv(path) == numbers
    assert frames_by_ffmpeg(ffmpeg_exe, path) == numbers
    # From the first keyframe inside to at most a run of B-frames before the end, without a gap.
    spacing = 15 if name == "program.mpg" else 30
    assert numbers[0] == -(-begin // spacing) * spacing
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    assert end - 8 <= numbers[-1] < end
    assert media.num_frames == len(numbers)
    times, base = shown(source)
    ends = [*(time for time, _ in times), times[-1][0] + Fraction(1, 25) / base]
    length_s = float((ends[numbers[-1] + 1] - ends[numbers[0]]) * base)
    assert media.duration_s == pytest.approx(length_s, abs=1e-3)


def test_copy_rejects_a_clip_without_a_keyframe_and_one_that_shrinks_too_much(
    film: Callable[..., Path], cut_to_file: Callable[..., object]
) -> None:
    source = film("closed.mp4", FILMS["closed.mp4"][1])
    with pytest.raises(BadSource, match="no_keyframe_inside"):
        cut_to_file(source, clip_of(source, "mov", 31, 59), COPY)
    with pytest.raises(BadSource, match="too_short_after_shrink"):
        cut_to_file(source, clip_of(source, "mov", 31, 75), replace(COPY, min_copied_frames=16))
    with pytest.raises(BadSource, match="too_short_after_shrink"):
        cut_to_file(source, clip_of(source, "mov", 31, 109), replace(COPY, min_copied_s=2.0))


def test_copy_knows_av1_by_its_codec_not_by_its_decoder(
    film: Callable[..., Path], cut_to_file: Callable[..., tuple[Path, Media]]
) -> None:
    path = film(
        "av1.mkv", ("-c:v", "libsvtav1", "-preset", "12", "-g", "30", "-svtav1-params", "lp=1")
    )
    target, media = cut_to_file(path, clip_of(path, "matroska", 40, 150), COPY)
    assert [number for _, number in shown(target)[0]] == list(range(60, 60 + media.num_frames))
    with av.open(str(target)) as container:
        assert container.streams.video[0].codec.canonical_name == "av1"


def test_copy_rejects_codecs_that_mp4_cannot_hold_and_packets_without_times(
    film: Callable[..., Path], cut_to_file: Callable[..., object]
) -> None:
    vp8 = film("old.webm", ("-c:v", "libvpx", "-g", "30", "-cpu-used", "8"))
    with pytest.raises(BadSource, match="codec_not_in_mp4"):
        cut_to_file(vp8, clip_of(vp8, "matroska", 0, 90), COPY)


def test_exact_cut_asks_for_no_better_decoder_than_the_picture_needs(
    film: Callable[..., Path], cut_to_file: Callable[..., object]
) -> None:
    source = film("closed.mp4", FILMS["closed.mp4"][1])
    path, _ = cut_to_file(source, clip_of(source, "mov", 0, 60), FAST)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == 25
        # H.264 table A-1: level 1.1 takes 396 macroblocks and 3000 of them a second; ours are 60.
        assert int.from_bytes(stream.codec_context.extradata[3:4]) <= 11


def test_a_span_with_other_frames_than_were_measured_is_rejected(
    film: Callable[..., Path], cut_to_file: Callable[..., object]
) -> None:
    source = film("closed.mp4", FILMS["closed.mp4"][1])
    clip = replace(clip_of(source, "mov", 20, 60), num_frames=41)
    with pytest.raises(BadSource, match="frames_missing: 40 frames where 41"):
        cut_to_file(source, clip, FAST)
    beyond = replace(clip, start_pts=10**7, end_pts=2 * 10**7)
    with pytest.raises(BadSource, match="frames_missing"):
        cut_to_file(source, beyond, FAST)


def test_ffmpeg_is_ended_at_the_deadline(
    film: Callable[..., Path], cut_to_file: Callable[..., object]
) -> None:
    source = film("closed.mp4", FILMS["closed.mp4"][1])
    hurried = replace(FAST, timeout_s=1e-3, timeout_per_s=1e-6)
    with pytest.raises(BadSource, match="too_slow"):
        cut_to_file(source, clip_of(source, "mov", 0, 60), hurried)


def test_a_full_scratch_disk_is_no_fault_of_the_clip(
    film: Callable[..., Path], small_disk: Path, guard: Guard
) -> None:
    source = film("closed.mp4", FILMS["closed.mp4"][1])
    clip = clip_of(source, "mov", 0, 200)
    (small_disk / "other").write_bytes(bytes(60 * 1024))
    full = f"clip to {small_disk}: No space left on device; free some space there"
    with source.open("rb") as file, pytest.raises(MachineFault, match=full):
        cut(file, clip, FAST, guard, small_disk)


def test_a_playlist_named_as_a_film_opens_no_other_file(
    film: Callable[..., Path], cut_to_file: Callable[..., object], tmp_path: Path
) -> None:
    secret = film("closed.mp4", FILMS["closed.mp4"][1])
    for text in (f"ffconcat version 1.0\nfile {secret}\n", f"#EXTM3U\n#EXTINF:8,\n{secret}\n"):
        playlist = tmp_path / "film.mp4"
        playlist.write_text(text)
        for config in (FAST, COPY):
            with pytest.raises(BadSource, match=r"encoder_failed|undecodable|playlist|truncated"):
                cut_to_file(playlist, clip_of(secret, "mov", 0, 60), config)


def still(container: str, size: tuple[int, int]) -> Clip:
    return Clip(
        container=container,
        start_pts=0,
        end_pts=0,
        time_base=Fraction(1, 25),
        num_frames=1,
        width=size[0],
        height=size[1],
        colour=Colour("gbr", True, "unspecified", "unspecified"),
    )


def test_an_upright_jpeg_is_taken_over_byte_for_byte(
    texture: Callable[..., np.ndarray], cut_to_file: Callable[..., object], tmp_path: Path
) -> None:
    source = tmp_path / "picture.jpg"
    Image.fromarray(texture("teal", (64, 48))).save(source, quality=80)
    _, media = cut_to_file(source, still("jpeg_pipe", (64, 48)), ExportConfig())
    assert media.data == source.read_bytes()
    assert (media.extension, media.num_frames, media.fps, media.duration_s) == ("jpg", 1, None, 0.0)
    assert (media.width, media.height) == (64, 48)


def test_a_turned_jpeg_is_written_upright(
    texture: Callable[..., np.ndarray], cut_to_file: Callable[..., object], tmp_path: Path
) -> None:
    upright_HWC = texture("teal", (64, 48))
    source = tmp_path / "picture.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn clockwise by 90 degrees to show"
    Image.fromarray(np.rot90(upright_HWC)).save(source, quality=95, exif=exif)
    path, media = cut_to_file(source, still("jpeg_pipe", (64, 48)), ExportConfig())
    with Image.open(path) as image:
        assert not image.getexif()
        assert np.abs(np.asarray(image, int) - upright_HWC).mean() < 4
    assert (media.width, media.height) == (64, 48)


@pytest.mark.parametrize("kind", ["png", "webp"])
def test_other_images_become_jpeg_of_the_size_asked_for(
    kind: str,
    texture: Callable[..., np.ndarray],
    cut_to_file: Callable[..., object],
    tmp_path: Path,
) -> None:
    source = tmp_path / f"picture.{kind}"
    Image.fromarray(texture("teal", (90, 60))).convert("RGBA").save(source)
    clip = still(f"{kind}_pipe", (90, 60))
    _, media = cut_to_file(source, clip, ExportConfig(max_short_side_px=40))
    with Image.open(io.BytesIO(media.data)) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (60, 40))


def test_a_damaged_image_is_rejected(
    texture: Callable[..., np.ndarray], cut_to_file: Callable[..., object], tmp_path: Path
) -> None:
    source = tmp_path / "picture.png"
    Image.fromarray(texture("teal", (90, 60))).save(source)
    source.write_bytes(source.read_bytes()[:700])
    with pytest.raises(BadSource, match="undecodable"):
        cut_to_file(source, still("png_pipe", (90, 60)), ExportConfig())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cut", "fast"),
        ("crf", 52),
        ("x264_preset", "best"),
        ("max_short_side_px", 8),
        ("threads", 0),
    ],
)
def test_settings_out_of_range_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        ExportConfig(**{field: value})
