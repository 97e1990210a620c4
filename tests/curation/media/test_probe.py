"""The gate on good files of many kinds: which demuxer, what the header says, what is refused."""

from __future__ import annotations

import io
import os
import random
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import pytest
from PIL import Image

from curation.errors import REJECT_REASONS, BadSource
from curation.media.containers import SNIFF_BYTES
from curation.media.orientation import Orientation
from curation.media.probe import (
    DECODERS,
    Limits,
    Probe,
    ffmpeg_input_args,
    is_whole,
    open_regular,
    open_video,
    picture_stream,
    probe,
    sniff,
)


def probed(path: Path, **limits: float) -> Probe:
    with open_regular(path) as file:
        return probe(file, Limits(**limits))


def reason(path: Path, **limits: float) -> str:
    with pytest.raises(BadSource) as caught:
        probed(path, **limits)
    assert caught.value.reason in REJECT_REASONS
    return caught.value.reason


KINDS = [
    ("a.mp4", "libx264", "mov", "h264"),
    ("a.mov", "mjpeg", "mov", "mjpeg"),
    ("a.mkv", "libx264", "matroska", "h264"),
    ("a.webm", "libvpx-vp9", "matroska", "vp9"),
    ("a.avi", "mpeg4", "avi", "mpeg4"),
    ("a.ts", "mpeg2video", "mpegts", "mpeg2video"),
    ("a.mpg", "mpeg2video", "mpeg", "mpeg2video"),
    ("a.flv", "flv", "flv", "flv1"),
    ("a.wmv", "wmv2", "asf", "wmv2"),
]


@pytest.mark.parametrize(("name", "encoder", "demuxer", "codec"), KINDS)
def test_the_usual_containers_are_known_by_their_bytes(
    make_video, tmp_path, name, encoder, demuxer, codec
):
    pixel_format = "yuvj420p" if encoder == "mjpeg" else "yuv420p"
    path = make_video(
        tmp_path / name,
        [("red", 12)],
        size=(160, 96),
        codec=encoder,
        pixel_format=pixel_format,
        options={"threads": "1"},
    )
    found = probed(path.rename(tmp_path / "no_suffix"))
    assert (found.container, found.codec, found.pixel_format) == (demuxer, codec, pixel_format)
    assert (found.width, found.height, found.orientation) == (160, 96, Orientation())
    assert found.fps == pytest.approx(24, rel=0.01)
    assert not found.has_audio
    assert not found.is_image


@pytest.mark.parametrize(
    ("suffix", "demuxer"), [("jpg", "jpeg_pipe"), ("png", "png_pipe"), ("webp", "webp_pipe")]
)
def test_still_images_are_sources_of_one_frame(texture, tmp_path, suffix, demuxer):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(texture("teal", (64, 40))).save(path)
    found = probed(path)
    assert (found.container, found.width, found.height) == (demuxer, 64, 40)
    assert found.is_image
    assert found.fps is None
    assert found.duration_s is None


def test_sizes_are_as_shown_after_pixel_aspect_and_turn(make_video, rotated, tmp_path):
    wide = make_video(tmp_path / "a.mp4", [("red", 8)], sample_aspect=Fraction(4, 3))
    found = probed(rotated(wide, tmp_path / "b.mp4", 90))
    assert (found.stored_width, found.stored_height) == (320, 180)
    assert found.sample_aspect == Fraction(4, 3)
    assert found.orientation == Orientation(False, 90)
    assert (found.width, found.height) == (180, 427)
    assert probed(rotated(wide, tmp_path / "c.mp4", 180)).orientation.turn_deg == 180
    assert probed(rotated(wide, tmp_path / "d.mp4", 270)).orientation.turn_deg == 270


def test_audio_is_counted_and_never_decoded(make_video, tmp_path):
    path = make_video(tmp_path / "a.mp4", [("red", 8)], audio=True)
    assert probed(path).has_audio
    assert not {"aac", "mp3", "opus", "ac3"} & set(DECODERS)


def test_a_file_of_sound_has_no_video(run_ffmpeg, tmp_path):
    for name in ("a.m4a", "a.mka", "a.ogg", "a.wav", "a.mp3", "a.flac"):
        run_ffmpeg("-f", "lavfi", "-i", "sine=d=0.2", tmp_path / name)
        assert reason(tmp_path / name) == "no_video", name


def test_cover_art_is_no_film(run_ffmpeg, texture, tmp_path):
    Image.fromarray(texture("red", (64, 64))).save(tmp_path / "cover.png")
    path = tmp_path / "song.m4a"
    run_ffmpeg(
        *("-f", "lavfi", "-i", "sine=d=0.2", "-i", tmp_path / "cover.png", "-map", "0", "-map"),
        *("1", "-c:v", "copy", "-disposition:v", "attached_pic", path),
    )
    assert reason(path) == "no_video"


def test_of_several_streams_the_largest_is_the_film(run_ffmpeg, tmp_path):
    path = tmp_path / "a.mkv"
    run_ffmpeg(
        *("-f", "lavfi", "-i", "testsrc2=s=64x48:d=0.5", "-f", "lavfi"),
        *("-i", "testsrc2=s=128x96:d=0.5", "-map", "0", "-map", "1", "-c:v", "mpeg4", path),
    )
    assert (probed(path).width, probed(path).stream_index) == (128, 1)


def test_a_film_cut_off_before_its_index_is_truncated(make_video, tmp_path):
    data = make_video(tmp_path / "a.mp4", [("red", 24)]).read_bytes()
    for share in (0.3, 0.7, 0.99):
        path = tmp_path / "cut.mp4"
        path.write_bytes(data[: int(len(data) * share)])
        assert reason(path) == "truncated", share


def test_fragments_and_live_recordings_are_whole(make_video, run_ffmpeg, tmp_path):
    source = make_video(tmp_path / "a.mp4", [("red", 24)])
    fragmented = tmp_path / "f.mp4"
    run_ffmpeg("-i", source, "-c", "copy", "-movflags", "frag_keyframe+empty_moov", fragmented)
    assert probed(fragmented).container == "mov"
    live = tmp_path / "l.mkv"
    run_ffmpeg("-i", source, "-c", "copy", "-f", "matroska", "-live", "1", live)
    assert probed(live).container == "matroska"


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_a_picture_cut_in_the_middle_is_truncated(texture, tmp_path, suffix):
    whole = io.BytesIO()
    picture = Image.fromarray(texture("red", (200, 120)))
    picture.save(whole, {"jpg": "jpeg"}.get(suffix, suffix))
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(whole.getvalue()[: len(whole.getvalue()) * 2 // 3])
    assert reason(path) == "truncated"


def test_limits_are_checked_against_the_header(make_video, tmp_path):
    path = make_video(tmp_path / "a.mp4", [("red", 48)], size=(320, 180))
    assert reason(path, max_side=319) == "too_many_pixels"
    assert reason(path, max_pixels=320 * 180 - 1) == "too_many_pixels"
    assert reason(path, max_duration_s=1.9) == "too_long"
    assert reason(path, max_frames=47) == "too_long"
    assert reason(path, max_bytes=1000) == "too_large"
    assert probed(path, max_side=320, max_pixels=320 * 180, max_duration_s=2, max_frames=48)


def test_every_frame_decodes_at_the_very_limit_of_pixels(make_video, tmp_path):
    path = make_video(tmp_path / "a.avi", [("red", 8)], codec="mpeg4")
    with open_regular(path) as file, open_video(file, Limits(max_pixels=320 * 180)) as container:
        assert len(list(container.decode(picture_stream(container)))) == 8


def test_a_decoder_that_is_not_on_the_list_is_not_started(make_video, tmp_path):
    path = make_video(tmp_path / "a.avi", [("red", 4)], codec="zmbv", pixel_format="bgr0")
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "zmbv"
    assert reason(path) == "undecodable"


def test_limits_that_make_no_sense_are_wrong_arguments():
    with pytest.raises(ValueError, match=r"limits.max_side must be over 0, got 0"):
        Limits(max_side=0)
    with pytest.raises(ValueError, match="memory_bytes"):
        Limits(memory_bytes=1024)


PLAYLISTS = {
    "hls": b"#EXTM3U\n#EXTINF:1,\nsecret.ts\n",
    "hls after a mark": b"\xef\xbb\xbf\n #EXTM3U\nsecret.ts\n",
    "hls in utf-16": "\ufeff#EXTM3U\nsecret.ts".encode("utf-16-le"),
    "concat": b"ffconcat version 1.0\nfile secret.ts\n",
    "concat without its header": b"file 'secret.ts'\n",
    "dash": b'<?xml version="1.0"?>\n<!-- x -->\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"/>',
    "smooth": b"<SmoothStreamingMedia/>",
    "smil": b"<smil><body/></smil>",
    "asx": b"<asx version='3'/>",
    "xspf": b'<?xml version="1.0"?><playlist version="1"/>',
    "imf": b'<?xml version="1.0"?><cpl:CompositionPlaylist/>',
    "sdp": b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\n",
    "pls": b"[playlist]\nFile1=secret.ts\n",
    "quicktime": b"RTSPtext\r\nrtsp://127.0.0.1/secret",
    "address": b"http://127.0.0.1/secret.ts",
    "metadata": b";FFMETADATA1\ntitle=x\n",
}


@pytest.mark.parametrize("kind", PLAYLISTS)
def test_what_names_other_files_is_a_playlist(kind):
    with pytest.raises(BadSource) as caught:
        sniff(PLAYLISTS[kind])
    assert caught.value.reason == "playlist"


@pytest.mark.parametrize(
    "data",
    [
        *(b"hello, world\n", b"\x00" * 64, b"PK\x03\x04zip", b"\x1f\x8bgzip", b"%PDF-1.7"),
        *(b"<html></html>", b"GIF89a", b"MZ\x90", b"RIFF\x00\x00\x00\x00ACON", b"G" * 100),
        b"\x00\x00\x00\x20ftypheic",
        b"<!---->" * 9000 + b"<html>",  # whose comments can be told apart in one way only
    ],
)
def test_all_else_is_an_unknown_format_and_shown_in_ascii(data):
    with pytest.raises(BadSource) as caught:
        sniff(data)
    assert caught.value.reason == "unknown_format"
    assert caught.value.detail.isascii()


def test_an_ffmpeg_program_with_our_options_refuses_a_disguised_playlist(
    make_video, ffmpeg_exe, tmp_path
):
    make_video(tmp_path / "secret.ts", [("red", 8)], codec="mpeg2video")
    (tmp_path / "list.mp4").write_bytes(PLAYLISTS["hls"])

    def runs(path: Path, options: dict[str, str]) -> bool:
        given = [part for name, value in options.items() for part in (f"-{name}", value)]
        command = [ffmpeg_exe, "-nostdin", "-v", "error", *given, "-i", f"file:{path}"]
        return subprocess.run([*command, "-f", "null", "-"], timeout=60).returncode == 0

    film = make_video(tmp_path / "film.mp4", [("red", 8)], audio=True)
    assert runs(film, ffmpeg_input_args("mov"))
    for demuxer in ("mov", "matroska", "mpegts", "avi"):
        assert not runs(tmp_path / "list.mp4", ffmpeg_input_args(demuxer))


REACH = """
import sys
from pathlib import Path
import av
from curation.errors import BadSource
from curation.media.probe import Limits, open_regular, probe
if sys.argv[1] == "gate":
    for name in sys.argv[2:]:
        try:
            with open_regular(Path(name)) as file:
                probe(file, Limits())
        except BadSource as bad:
            print(bad.reason)
else:
    with av.open(sys.argv[2]) as container:
        next(container.decode(video=0))
"""


@pytest.fixture
def opened(tmp_path: Path):
    """``opened("gate", paths)``: what a process opens or connects to, as strace saw it."""
    from shutil import which

    if which("strace") is None:
        pytest.skip("no strace on this machine")

    def trace(how: str, *paths: Path) -> tuple[str, str]:
        log = tmp_path / "strace.log"
        environment = {**os.environ, "PYTHONPATH": os.getcwd()}
        program = [sys.executable, "-c", REACH, how, *paths]
        done = subprocess.run(
            ["strace", "-f", "-e", "trace=open,openat,openat2,connect", "-o", log, *program],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        return log.read_text(), done.stdout

    return trace


def test_a_playlist_opens_no_neighbour_though_libav_alone_would(make_video, opened, tmp_path):
    make_video(tmp_path / "secret.ts", [("red", 8)], codec="mpeg2video")
    paths = []
    for number, data in enumerate(PLAYLISTS.values()):
        paths.append(tmp_path / f"list{number}.mp4")
        paths[-1].write_bytes(data.replace(b"secret.ts", bytes(tmp_path / "secret.ts")))
    hls = tmp_path / "plain.m3u8"
    hls.write_bytes(b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.ts\n#EXT-X-ENDLIST\n")
    log, _ = opened("libav", hls)
    assert "secret.ts" in log  # the trap works: without the gate the file is opened
    log, verdicts = opened("gate", hls, *paths)
    assert "secret.ts" not in log
    assert "AF_INET" not in log
    assert verdicts.split() == ["playlist"] * (len(paths) + 1)


def test_a_playlist_that_the_sniff_would_let_through_still_opens_nothing(
    make_video, monkeypatch, tmp_path
):
    make_video(tmp_path / "secret.ts", [("red", 8)], codec="mpeg2video")
    path = tmp_path / "list.mp4"
    path.write_bytes(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{tmp_path}/secret.ts\n#EXT-X-ENDLIST".encode()
    )
    monkeypatch.setattr("curation.media.probe.sniff", lambda first_bytes: "hls")
    with pytest.raises(BadSource, match="asks for another file") as caught:
        probed(path)
    assert caught.value.reason == "playlist"


def test_a_place_outside_the_file_is_libavs_trouble_not_an_exception(make_video, tmp_path):
    path = make_video(tmp_path / "a.mp4", [("red", 8)])
    data = bytearray(path.read_bytes())
    chunks = data.index(b"stco") + 12
    data[chunks : chunks + 4] = b"\xff\xff\xff\xff"  # the pictures lie behind the end
    path.write_bytes(data)
    assert reason(path) == "undecodable"


def test_a_capture_may_begin_in_the_middle_of_a_packet(make_video, tmp_path):
    data = make_video(tmp_path / "a.ts", [("red", 48)], options={"g": "12"}).read_bytes()
    for missing in (1, 111, 187):
        path = tmp_path / f"{missing}.ts"
        path.write_bytes(data[missing:])
        found = probed(path)
        assert (found.container, found.width) == ("mpegts", 320), missing


@pytest.mark.parametrize("with_timecode", ["0", "1"])
def test_a_transport_stream_may_have_junk_before_it(
    make_video, run_ffmpeg, tmp_path, with_timecode
):
    film = make_video(tmp_path / "film.mp4", [("red", 24)], size=(160, 96))
    whole = tmp_path / "whole.ts"
    run_ffmpeg("-i", film, "-c", "copy", "-mpegts_m2ts_mode", with_timecode, "-f", "mpegts", whole)
    path = tmp_path / "capture"
    path.write_bytes(random.Random(1).randbytes(5000) + whole.read_bytes())
    assert probed(path).container == "mpegts"
    with open_regular(path) as file, open_video(file, Limits()) as container:
        assert sum(1 for _ in container.decode(video=0)) == 24
    junk = random.Random(1).randbytes(SNIFF_BYTES) + whole.read_bytes()
    with pytest.raises(BadSource, match="unknown_format"):
        sniff(junk[:SNIFF_BYTES])


def test_records_behind_a_whole_film_do_not_make_it_broken(make_video, tmp_path):
    data = make_video(tmp_path / "a.mp4", [("red", 24)]).read_bytes()
    path = tmp_path / "b.mp4"
    # as Samsung's phones leave them, random bytes, and zeros
    for trailer in (b"\x00\x00\x30\x0aSEFH\x6b\x00\x00\x00SEFT", os.urandom(999), bytes(4096)):
        path.write_bytes(data + trailer)
        assert probed(path).codec == "h264"
    path.write_bytes(data + b"\x00\x00\xff\xffmoof" + bytes(100))
    with path.open("rb") as file:
        assert not is_whole(file, "mov")


def test_pictures_of_chapters_are_not_the_film(make_video, run_ffmpeg, tmp_path):
    film = make_video(tmp_path / "film.mp4", [("red", 60)])
    large = make_video(tmp_path / "large.mp4", [("white", 5)], size=(640, 480))
    for name in ("a.mp4", "a.mov"):
        run_ffmpeg(
            *("-y", "-i", large, "-i", film, "-map", "0", "-map", "1", "-c", "copy"),
            tmp_path / name,
        )
        assert probed(tmp_path / name).width == 320


def test_an_encrypted_film_is_called_that(make_video, run_ffmpeg, tmp_path):
    film, path = make_video(tmp_path / "film.mp4", [("red", 24)]), tmp_path / "closed.mp4"
    key = ("-encryption_key", "76a6c65c5ea762046bd749a2e632ccbb")
    scheme = ("-encryption_scheme", "cenc-aes-ctr", *key, "-encryption_kid", "a7e61c373e219033")
    run_ffmpeg("-i", film, "-c", "copy", *scheme[:-1], scheme[-1] * 2, path)
    with pytest.raises(BadSource, match="encrypted: scheme cenc"):
        probed(path)
    assert probed(film).codec == "h264"


def test_a_still_of_more_pixels_beside_the_film_is_not_the_film(make_video, run_ffmpeg, tmp_path):
    film = make_video(tmp_path / "film.mp4", [("red", 24)])
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=s=1280x960", "-frames:v", "1", tmp_path / "c.jpg")
    for name in ("a.mp4", "a.mkv"):
        for films in (("0", "1"), ("1", "0")):
            path = tmp_path / name
            inputs = ("-i", film, "-i", tmp_path / "c.jpg")
            run_ffmpeg("-y", *inputs, "-map", films[0], "-map", films[1], "-c", "copy", path)
            assert probed(path).width == 320, (name, films)
