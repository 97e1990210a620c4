"""Keyframes, exact cuts and training reads of one film show the same pictures: the right ones.

The films are made with numbers from formulas or by zscale, which shares no code with libswscale.
"""

from __future__ import annotations

import io
import itertools
import struct
import subprocess
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from curation.decode.decoding_pass import DecodeConfig, decode_source
from curation.decode.interlacing import field_sample
from curation.decode.scenes import SceneConfig
from curation.errors import BadSource
from curation.export.clips import Clip, ExportConfig, cut
from curation.export.clips.exact import cut_exact
from curation.export.clips.settings import ADMITTED
from curation.media.colour import Colour
from curation.media.guard import Guard
from curation.media.orientation import Orientation
from curation.media.tone import pq_signal
from training.data.picture import converter, pixels, view

SHORT = DecodeConfig(scenes=SceneConfig(min_s=0.1, min_frames=2, trim_frames=0))
FINE = ExportConfig(x264_preset="ultrafast", crf=2)
PATCHES = np.array(
    [(255, 0, 0), (0, 255, 0), (0, 0, 255), (235, 16, 16), (128, 128, 128), (200, 40, 60)], np.uint8
)
NUM_FRAMES = 12
X264 = ("-c:v", "libx264", "-preset", "veryfast", "-crf", "8")


def patches(size: tuple[int, int], colours: np.ndarray = PATCHES) -> np.ndarray:
    """A picture of upright stripes."""
    width, height = size
    row = colours[np.arange(width) * len(colours) // width]
    return np.ascontiguousarray(np.broadcast_to(row, (height, width, 3)))


def middles(picture_HWC: np.ndarray, num: int = len(PATCHES)) -> np.ndarray:
    """The colour in the middle of each stripe, int ``[N, 3]``."""
    height, width, _ = picture_HWC.shape
    columns = [(2 * n + 1) * width // (2 * num) for n in range(num)]
    return picture_HWC[height // 2, columns].astype(int)


@pytest.fixture
def make(ffmpeg_exe: str, tmp_path: Path) -> Callable[..., Path]:
    """``make(name, frames, filters, *encoder)``: a film of RGB frames."""

    def film(name: str, frames: list[np.ndarray], filters: str, *encoder: str, fps: int = 25):
        height, width = frames[0].shape[:2]
        command = [ffmpeg_exe, "-y", "-v", "error", "-f", "rawvideo", "-s", f"{width}x{height}"]
        command += ["-pix_fmt", "rgb24", "-r", str(fps), "-i", "-", "-vf", filters, *encoder]
        raw = b"".join(frame.tobytes() for frame in frames)
        path = tmp_path / name
        subprocess.run([*command, str(path)], input=raw, check=True, timeout=60)
        return path

    return film


def clip_of(probe: dict[str, Any], row: dict[str, Any], stream_index: int = 0) -> Clip:
    return Clip(
        container=probe["container"],
        start_pts=row["start_pts"],
        end_pts=row["end_pts"],
        time_base=Fraction(row["time_base_num"], row["time_base_den"]),
        num_frames=row["num_frames"],
        width=row["width"],
        height=row["height"],
        colour=Colour.of_text(row["colour"]),
        interlaced=row["interlaced"],
        pixel_format=probe["pixel_format"],
        orientation=Orientation(probe["mirrored"], probe["rotation_deg"]),
        stream_index=stream_index,
    )


@pytest.fixture
def seen(tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """``seen(path)``: for each kept scene its row, a keyframe, the clip's frames, a training read."""

    def look(path: Path, config: DecodeConfig = SHORT) -> list[dict[str, Any]]:
        found = []
        with path.open("rb") as file:
            rows = decode_source(file, "0" * 64, config)
            for scene, keys in zip(rows.scenes, rows.keyframes, strict=True):
                if scene["scene_reject"]:
                    continue
                media = cut_exact(file, clip_of(rows.probe, scene), FINE, tmp_path)
                with av.open(io.BytesIO(media.data)) as container:
                    frames = list(container.decode(video=0))
                size = frames[0].height, frames[0].width
                shown = view(*size, size, fit="cover", draw=None)
                found.append(
                    {
                        "probe": rows.probe,
                        "row": scene,
                        "keyframe": np.asarray(Image.open(io.BytesIO(keys["keyframes"][0]))),
                        "frames": frames,
                        "read": pixels(frames[0], shown, 0, converter()),
                    }
                )
        return found

    return look


LOSSLESS = ("-c:v", "ffv1")
TO = "format=gbrp,zscale=m={}:r={},format={}"
UNTAGGED = "setparams=colorspace=unknown:range=unknown:color_primaries=unknown:color_trc=unknown"
CODINGS = {
    "untagged SD": ((96, 64), TO.format("170m", "limited", "yuv444p") + f",{UNTAGGED}"),
    "untagged HD": ((1280, 128), TO.format("709", "limited", "yuv444p") + f",{UNTAGGED}"),
    "SD tagged as BT.709": ((96, 64), TO.format("709", "limited", "yuv444p")),
    "HD tagged as BT.601": ((1280, 128), TO.format("170m", "limited", "yuv444p")),
    "full range": ((96, 64), TO.format("170m", "full", "yuv444p")),
    "full range HD": ((1280, 128), TO.format("709", "full", "yuv444p")),
    "4:2:0": ((96, 64), TO.format("170m", "limited", "yuv420p")),
    "10 bit 4:2:2": ((96, 64), TO.format("709", "limited", "yuv422p10le")),
    "BT.2020 matrix in SDR": ((96, 64), TO.format("2020_ncl", "limited", "yuv444p")),
    "planes of colours": ((96, 64), "format=gbrp"),
    "packed colours": ((96, 64), "format=bgr0"),
}


@pytest.mark.parametrize("coding", CODINGS)
def test_red_in_is_red_out_everywhere(coding, make, seen):
    size, filters = CODINGS[coding]
    path = make("a.mkv", [patches(size)] * NUM_FRAMES, filters, *LOSSLESS)
    (only,) = seen(path)
    for name in ("keyframe", "read"):
        assert np.abs(middles(only[name]) - PATCHES).max() <= 6, (coding, name)
    assert only["frames"][0].colorspace in (1, 6, 9)  # no clip is left untagged


@pytest.mark.parametrize(
    ("encoder", "filters"),
    [
        (("-c:v", "mjpeg", "-q:v", "1"), "scale=out_range=full,format=yuvj444p"),
        (("-c:v", "libx264rgb", "-crf", "1"), "format=rgb24"),
        (("-c:v", "prores_ks"), TO.format("170m", "limited", "yuv422p10le")),
    ],
    ids=["mjpeg", "x264rgb", "prores"],
)
def test_codecs_of_their_own_habits_too(encoder, filters, make, seen):
    path = make("a.mov", [patches((192, 64))] * NUM_FRAMES, filters, *encoder)
    (only,) = seen(path)
    for name in ("keyframe", "read"):
        assert np.abs(middles(only[name]) - PATCHES).max() <= 8, name


@pytest.mark.parametrize("layout", ["gray", "gray16le"])
def test_grey_film_is_as_grey_as_it_was(layout, make, seen):
    greys = np.repeat(np.array([0, 40, 128, 200, 255], np.uint8)[:, None], 3, axis=1)
    path = make("a.mkv", [patches((80, 64), greys)] * NUM_FRAMES, f"format={layout}", *LOSSLESS)
    (only,) = seen(path)
    for name in ("keyframe", "read"):
        assert np.abs(middles(only[name], 5) - greys).max() <= 2, name


TRANSFERS = {
    "pq": ("smpte2084", lambda nits: pq_signal(nits)),
    "hlg": ("arib-std-b67", lambda nits: np.sqrt(3 * (nits / 1000) ** (1 / 1.2))),
}


@pytest.mark.parametrize("transfer", TRANSFERS)
def test_a_mid_grey_of_hdr_comes_back_in_keyframes_clips_and_training(
    transfer, ffmpeg_exe, tmp_path, seen
):
    name, signal_of = TRANSFERS[transfer]
    codes = np.array([60, 90, 128, 135])  # HLG is the square root up to 1/12 of its peak
    signal = signal_of(203 * (codes / 255) ** 2.4)
    luma = np.rint(64 + 876 * signal).astype("<u2")  # BT.2100: 10 bit, narrow range
    width, height = 128, 64
    row = luma[np.arange(width) * len(codes) // width]
    planes = [np.broadcast_to(row, (height, width)), np.full((height // 2, width), 512, "<u2")]
    raw = b"".join(plane.astype("<u2").tobytes() for plane in planes) * NUM_FRAMES
    tags = f"colorprim=bt2020:transfer={name}:colormatrix=bt2020nc:log-level=none:lossless=1"
    path = tmp_path / "hdr.mp4"
    command = [ffmpeg_exe, "-v", "error", "-f", "rawvideo", "-s", f"{width}x{height}"]
    command += ["-pix_fmt", "yuv420p10le", "-r", "25", "-i", "-", "-c:v", "libx265"]
    command += ["-preset", "ultrafast", "-x265-params", tags, str(path)]
    subprocess.run(command, input=raw, check=True, timeout=60)
    (only,) = seen(path)
    probe = only["probe"]
    assert (probe["transfer"], probe["primaries"], probe["bit_depth"]) == (name, "bt2020", 10)
    for each in ("keyframe", "read"):
        found = middles(only[each], len(codes))
        assert np.abs(found / codes[:, None] - 1).max() < 0.03, each
    clip = only["frames"][0]
    assert (clip.format.name, clip.colorspace, clip.color_trc) == ("yuv420p", 1, 1)
    with av.open(str(path)) as container:  # a clip whose packets were copied
        frame = next(container.decode(video=0))
    shown = view(height, width, (height, width), fit="cover", draw=None)
    copied = middles(pixels(frame, shown, 0, converter()), len(codes))
    assert np.abs(copied / codes[:, None] - 1).max() < 0.03


def test_saturated_hdr_is_the_same_in_keyframes_and_clips(make, seen):
    to_pq = "zscale=pin=709:tin=709:min=gbr:p=2020:t=smpte2084:m=2020_ncl:r=limited:npl=203"
    filters = f"format=gbrp,{to_pq},format=yuv420p10le"
    path = make("a.mkv", [patches((192, 64))] * NUM_FRAMES, filters, *LOSSLESS)
    (only,) = seen(path)
    # full red is as bright as white and rolled off with it; all below the knee comes back
    light = [(middles(only[name]) / 255) ** 2.4 for name in ("keyframe", "read")]
    assert np.abs(light[0] - light[1]).max() < 0.03  # the table is coarse at the edge of BT.709
    assert np.abs(middles(only["read"])[4] - PATCHES[4]).max() <= 3
    assert np.abs(light[1][0] - (np.array([230, 0, 0]) / 255) ** 2.4).max() < 0.03


def test_what_can_be_seen_through_lies_on_white(make, seen):
    filters = "format=gbrap,geq=r='r(X,Y)':g='g(X,Y)':b='b(X,Y)':a='if(lt(Y,H/2),255,0)'"
    path = make("a.mkv", [patches((192, 64))] * NUM_FRAMES, filters, *LOSSLESS)
    (only,) = seen(path)
    for name in ("keyframe", "read"):
        assert np.abs(middles(only[name][:32]) - PATCHES).max() <= 8, name
        assert only[name][40:].min() >= 247, name


DISPLAYS = [
    ((("-display_rotation:v:0", str(turn)) if turn else ()), flip)
    for turn in (0, 90, 180, 270)
    for flip in ((), ("-display_hflip:v:0",))
]


@pytest.mark.parametrize("display", DISPLAYS, ids=str)
def test_keyframes_and_clips_are_turned_and_mirrored_alike(
    display, make_video, run_ffmpeg, tmp_path, seen
):
    stored = make_video(tmp_path / "a.mp4", [("red", NUM_FRAMES, 0)], size=(96, 64))
    run_ffmpeg(*display[0], *display[1], "-i", stored, "-c", "copy", tmp_path / "b.mp4")
    (only,) = seen(tmp_path / "b.mp4")
    assert only["keyframe"].shape == only["read"].shape
    assert np.abs(only["keyframe"].astype(int) - only["read"]).mean() < 4
    assert only["row"]["width"] == only["read"].shape[1]


@pytest.mark.parametrize("angle", ["45", "10", "-10"])
def test_a_turn_that_is_no_quarter_is_rounded_for_keyframes_and_clips(
    angle, make, run_ffmpeg, tmp_path, seen
):
    stored = make("a.mp4", [patches((192, 64))] * NUM_FRAMES, "format=yuv420p", *X264)
    run_ffmpeg("-display_rotation:v:0", angle, "-i", stored, "-c", "copy", tmp_path / "b.mp4")
    (only,) = seen(tmp_path / "b.mp4")
    for name in ("keyframe", "read"):
        assert only[name].shape == (64, 192, 3)
        assert np.abs(middles(only[name]) - PATCHES).max() <= 12, name


def with_clean_aperture(data: bytes, width: int, height: int) -> bytes:
    """An MP4 whose index lies behind its pictures, with a box clap (ISO/IEC 14496-12, 12.1.4)."""
    clap = struct.pack(">I4s8I", 40, b"clap", width, 1, height, 1, 0, 1, 0, 1)
    made, at = bytearray(data), 0
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1"):
        at = made.index(kind, at) - 4
        (size,) = struct.unpack_from(">I", made, at)
        struct.pack_into(">I", made, at, size + len(clap))
        at += 8
    made[at - 8 + size : at - 8 + size] = clap
    return bytes(made)


def test_what_a_container_cuts_off_is_in_keyframes_and_clips(make, seen):
    path = make("a.mp4", [patches((192, 64))] * NUM_FRAMES, "format=yuv420p", *X264)
    path.write_bytes(with_clean_aperture(path.read_bytes(), 128, 48))
    (only,) = seen(path)
    for name in ("keyframe", "read"):
        assert only[name].shape == (64, 192, 3)
        assert np.abs(middles(only[name]) - PATCHES).max() <= 12, name


@pytest.mark.parametrize("layout", ["pal8", "bgra"])
def test_unused_alpha_hides_nothing(layout, make, seen):
    filters = {
        "pal8": "split[a][b];[a]palettegen=reserve_transparent=0[p];[b][p]paletteuse=dither=none",
        "bgra": "format=gbrap,geq=r='r(X,Y)':g='g(X,Y)':b='b(X,Y)':a=0,format=bgra",
    }[layout]
    path = make(
        "a.avi", [patches((192, 64))] * NUM_FRAMES, filters, "-c:v", "rawvideo", "-pix_fmt", layout
    )
    (only,) = seen(path)
    assert only["probe"]["pixel_format"] == {"pal8": "pal8", "bgra": "bgr0"}[layout]
    for name in ("keyframe", "read"):
        assert np.abs(middles(only[name]) - PATCHES).max() <= 12, name


def test_planes_that_nothing_here_converts_are_refused_by_name(make, seen):
    filters = "format=yuv444p,setparams=colorspace=ycgco"
    path = make("a.mkv", [patches((192, 64))] * NUM_FRAMES, filters, *X264)
    with pytest.raises(BadSource, match="colours: coded as YCgCo"):
        seen(path)


def moving(num: int, size: tuple[int, int], texture, speed_px: int = 3) -> list[np.ndarray]:
    base = texture("white", size)
    return [np.ascontiguousarray(np.roll(base, speed_px * n, axis=1)) for n in range(num)]


def combs(frames: list[np.ndarray]) -> list[bool | None]:
    grey = [frame.mean(axis=2).astype(np.uint8) for frame in frames]
    seen = [av.VideoFrame.from_ndarray(each, format="gray") for each in grey]
    return [field_sample(1, now, before).is_comb for before, now in itertools.pairwise(seen)]


WEAVE = "tinterlace=interleave_top"
LINES = 288


@pytest.mark.parametrize("flagged", [True, False], ids=["flagged", "unflagged"])
def test_interlaced_film_is_cut_without_combs(flagged, make, seen, texture):
    fields = moving(120, (352, LINES), texture)
    flag = (f"{WEAVE},setfield=tff", "-flags", "+ildct") if flagged else (f"{WEAVE},setfield=prog",)
    path = make("a.mp4", fields, flag[0], *X264, *flag[1:], fps=50)
    (only,) = seen(path)
    assert only["row"]["interlaced"] == "interlaced"
    assert only["row"]["num_frames"] == len(only["frames"]) == 60
    clip = [frame.to_ndarray(format="rgb24") for frame in only["frames"]]
    assert not any(combs(clip))
    with av.open(str(path)) as container:
        stored = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert all(combs(stored)[2:-2])  # and they were there
    # the moment of the first field, which the original shows as a whole picture
    errors = [np.abs(clip[n].astype(int) - fields[2 * n]).mean() for n in range(5, 55)]
    woven = [np.abs(stored[n].astype(int) - fields[2 * n]).mean() for n in range(5, 55)]
    assert np.mean(errors) < np.mean(woven) / 2
    spread = only["keyframe"].astype(int)
    assert np.abs(np.diff(spread[::1, :, 1], axis=0)).mean() < 8


def test_film_under_pulldown_is_put_together_again(make, seen, texture):
    frames = moving(96, (352, LINES), texture, speed_px=4)
    path = make("a.mp4", frames, "telecine", *X264, "-flags", "+ildct", fps=24)
    (only,) = seen(path)
    assert only["row"]["interlaced"] == "telecined"
    assert only["row"]["num_frames"] == len(only["frames"]) == 120
    clip = [frame.to_ndarray(format="rgb24") for frame in only["frames"]]
    assert not any(combs(clip))
    # whole frames of the film, not interpolated ones: four of five are told apart
    nearest = [
        min(np.abs(picture.astype(int) - frame).mean() for frame in frames[n * 4 // 5 - 3 :][:7])
        for n, picture in enumerate(clip)
        if 10 <= n < 110
    ]
    assert np.median(nearest) < 3


def test_a_progressive_film_that_says_it_is_interlaced_is_left_alone(make, seen, texture):
    frames = moving(50, (352, LINES), texture)
    path = make("a.ts", frames, "setfield=tff", *X264, "-flags", "+ildct")
    (only,) = seen(path)
    assert only["row"]["interlaced"] == "progressive"
    clip = [frame.to_ndarray(format="rgb24") for frame in only["frames"]]
    assert np.abs(clip[25].astype(int) - frames[25]).mean() < 3


def test_interlaced_scenes_are_rejected_where_asked(make, texture):
    path = make("a.mp4", moving(120, (352, LINES), texture), WEAVE, *X264, fps=50)
    config = DecodeConfig(scenes=SHORT.scenes, interlaced="reject")
    with path.open("rb") as file:
        rows = decode_source(file, "0" * 64, config)
    assert [row["scene_reject"] for row in rows.scenes] == ["interlaced"]
    assert rows.keyframes[0]["keyframes"] == []


def test_each_stretch_of_another_shape_has_its_own_size(make, seen, texture, tmp_path):
    ts = (*X264, "-bf", "0", "-g", "10", "-f", "mpegts")
    shapes = (((160, 96), "null", "0"), ((320, 180), "null", "2"), ((320, 180), "setsar=2", "4"))
    data = b""
    for number, (size, filters, offset) in enumerate(shapes):
        frames = moving(50, size, texture, speed_px=0)
        piece = make(f"{number}.ts", frames, filters, *ts, "-output_ts_offset", offset)
        data += piece.read_bytes()
    path = tmp_path / "all.ts"
    path.write_bytes(data)
    found = seen(path)
    assert [(each["row"]["width"], each["row"]["height"]) for each in found] == [
        *((160, 96), (320, 180), (640, 180))
    ]
    # the packets at a joint count as damaged, so a few frames before it are their own scene
    assert all(each["row"]["num_frames"] >= 46 for each in found)
    for each in found:
        height, width = each["row"]["height"], each["row"]["width"]
        assert each["read"].shape[:2] == (height, width)
        assert np.abs(each["keyframe"].astype(int) - each["read"]).mean() < 6


@pytest.fixture(scope="module")
def guard():
    with Guard(ADMITTED) as guard:
        yield guard


def image_both(path: Path, guard: Guard, tmp_path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The keyframe of an image and what is exported of it."""
    with path.open("rb") as file:
        rows = decode_source(file, "0" * 64, DecodeConfig())
    with path.open("rb") as file:
        media = cut(file, clip_of(rows.probe, rows.scenes[0]), ExportConfig(), guard, tmp_path)
    data = rows.keyframes[0]["keyframes"][0]
    assert (media.width, media.height) == (rows.scenes[0]["width"], rows.scenes[0]["height"])
    return tuple(
        np.asarray(Image.open(io.BytesIO(each))).astype(int) for each in (data, media.data)
    )


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("value", range(1, 9))
def test_images_of_every_orientation_are_upright(value, suffix, texture, tmp_path, guard):
    from PIL import ImageOps

    image = Image.fromarray(texture("red", (96, 64)))
    exif = Image.Exif()
    exif[0x0112] = value
    path = tmp_path / f"a.{suffix}"
    image.save(path, exif=exif, quality=95)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB")).astype(int)
    for each in image_both(path, guard, tmp_path):
        assert each.shape == expected.shape
        assert np.abs(each - expected).mean() < 4


def test_images_of_every_mode_are_what_they_show(texture, tmp_path, guard):
    picture = texture("red", (96, 64))
    image = Image.fromarray(picture)
    grey = picture[..., 0]
    clear = np.dstack([np.zeros_like(picture), grey])  # black, seen the better the redder
    on_white = np.repeat((255 - grey)[..., None], 3, axis=2)
    cases = {
        "deep.png": (Image.fromarray(grey.astype(np.uint16) * 257), np.dstack([grey] * 3)),
        "clear.png": (Image.fromarray(clear, "RGBA"), on_white),
        "clear.webp": (Image.fromarray(clear, "RGBA"), on_white),
        "cmyk.jpg": (image.convert("CMYK"), picture),
        "palette.png": (image.quantize(64), np.asarray(image.quantize(64).convert("RGB"))),
        "grey.jpg": (image.convert("L"), np.dstack([np.asarray(image.convert("L"))] * 3)),
        "bits.png": (image.convert("1"), np.asarray(image.convert("1").convert("RGB"))),
    }
    for name, (stored, expected) in cases.items():
        lossless = {"lossless": True, "exact": True} if name.endswith("webp") else {"quality": 95}
        stored.save(tmp_path / name, **lossless)
        for each in image_both(tmp_path / name, guard, tmp_path):
            limit = 12 if name == "bits.png" else 4
            assert np.abs(each - expected.astype(int)).mean() < limit, name


def test_of_an_animated_png_the_default_picture_is_taken_and_webp_is_refused(
    texture, tmp_path, guard
):
    first, second = (Image.fromarray(texture(look, (96, 64))) for look in ("red", "navy"))
    for name in ("a.webp", "a.png"):
        first.save(tmp_path / name, save_all=True, append_images=[second] * 3, duration=100)
    for each in image_both(tmp_path / "a.png", guard, tmp_path):
        assert np.abs(each - np.asarray(first).astype(int)).mean() < 5
    with pytest.raises(BadSource, match="animated WebP"):
        image_both(tmp_path / "a.webp", guard, tmp_path)


def test_a_damaged_image_is_a_reason(tmp_path, texture):
    path = tmp_path / "a.png"
    Image.fromarray(texture("red", (96, 64))).save(path)
    data = bytearray(path.read_bytes())
    data[200:400] = bytes(200)
    path.write_bytes(data)
    with path.open("rb") as file, pytest.raises(BadSource):
        decode_source(file, "0" * 64, DecodeConfig())
