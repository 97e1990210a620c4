"""Videos are written for other programs to read: the ffmpeg program is the judge here."""

import json
import re
import subprocess

import numpy as np
import pytest
from PIL import Image

from inference.video_file import (
    Encoding,
    UnreadableVideo,
    read_video,
    to_bytes,
    write_video,
)


def described_by_ffmpeg(ffmpeg_exe, path):
    done = subprocess.run(
        [ffmpeg_exe, "-nostdin", "-hide_banner", "-i", str(path), "-f", "null", "-"],
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stderr


@pytest.mark.parametrize(("fps", "shown"), [(8, "8 fps"), (24, "24 fps"), (24000 / 1001, "23.98")])
def test_another_program_reads_frames_size_and_pace(fps, shown, ffmpeg_exe, clip_THWC, tmp_path):
    path = tmp_path / "new" / "panda.mp4"
    write_video(path, clip_THWC(frames=16, size=(64, 96)), fps=fps)
    text = described_by_ffmpeg(ffmpeg_exe, path)
    assert re.search(r"h264.*yuv420p.*96x64", text)
    assert shown in text
    assert re.findall(r"frame= *(\d+)", text)[-1] == "16"


def test_frames_come_back_with_pace_and_description(clip_THWC, tmp_path):
    frames = clip_THWC(frames=5, size=(64, 96))
    said = {"prompt": 'a "panda" \u2014 \u718a\u732b', "seed": 3, "weights": {"base": "ab" * 32}}
    write_video(tmp_path / "v.mp4", frames, fps=8, description=said, encoding=Encoding(crf=5))
    video = read_video(tmp_path / "v.mp4")
    assert video.fps == 8
    assert video.description == said
    assert json.loads((tmp_path / "v.mp4.json").read_text(encoding="utf-8")) == said
    coarse, expected = (
        each.astype(float).reshape(5, 32, 2, 48, 2, 3).mean((2, 4))  # as coarse as H.264's colour
        for each in (video.frames_THWC, frames)
    )
    assert np.abs(coarse - expected).mean() < 2


def test_flat_colours_keep_their_value(tmp_path):
    for colour in ((200, 30, 30), (20, 180, 60), (240, 240, 240), (0, 0, 0)):
        frames = np.full((4, 32, 32, 3), colour, np.uint8)
        write_video(tmp_path / "flat.mp4", frames, fps=8, encoding=Encoding(crf=0))
        back = read_video(tmp_path / "flat.mp4").frames_THWC
        assert np.abs(back.astype(int) - frames).max() <= 3


def test_a_gif_has_all_frames_and_the_pace(clip_THWC, tmp_path):
    write_video(tmp_path / "v.gif", clip_THWC(frames=4), fps=8)
    with Image.open(tmp_path / "v.gif") as gif:
        assert gif.n_frames == 4
        assert gif.info["duration"] == pytest.approx(1000 / 8, abs=10)


def test_frames_without_a_container_are_exact(clip_THWC, tmp_path):
    frames = clip_THWC(frames=3)
    write_video(tmp_path / "frames", frames, fps=8)
    files = sorted((tmp_path / "frames").iterdir())
    assert [file.name for file in files] == ["00000.png", "00001.png", "00002.png"]
    assert np.array_equal(np.stack([np.asarray(Image.open(file)) for file in files]), frames)


def test_a_video_that_fails_half_way_leaves_nothing(clip_THWC, tmp_path):
    def torn():
        yield from clip_THWC(frames=2)
        raise RuntimeError("no more")

    for name in ("v.mp4", "v.gif", "frames"):
        with pytest.raises(RuntimeError, match="no more"):
            write_video(tmp_path / name, torn(), fps=8)
    assert list(tmp_path.iterdir()) == []


def test_bytes_are_rounded_or_cut_off():
    values = np.array([-1.0, 0.0, 0.4999 / 255, 0.5 / 255, 254.6 / 255, 1.0, 2.0])
    assert to_bytes(values, rounds=True).tolist() == [0, 0, 0, 1, 255, 255, 255]
    assert to_bytes(values, rounds=False).tolist() == [0, 0, 0, 0, 254, 255, 255]


@pytest.mark.parametrize(
    ("name", "frames", "fps", "message"),
    [
        ("v.webm", 1, 8, "out must end in .mp4 or .gif, or have no suffix"),
        ("v.mp4", 1, 0, "fps must be positive, got 0"),
        ("v.mp4", 0, 8, "at least one frame, got none"),
        ("v.gif", 0, 8, "at least one frame, got none"),
        ("v", 0, 8, "at least one frame, got none"),
    ],
)
def test_what_cannot_be_written_is_named(name, frames, fps, message, clip_THWC, tmp_path):
    with pytest.raises(ValueError, match=message):
        write_video(tmp_path / name, list(clip_THWC(frames=frames)), fps=fps)
    assert list(tmp_path.iterdir()) == []


def test_odd_sides_are_named(tmp_path):
    with pytest.raises(ValueError, match="even sides, got 15x16"):
        write_video(tmp_path / "v.mp4", np.zeros((1, 15, 16, 3), np.uint8), fps=8)
    with pytest.raises(ValueError, match="crf must be 0 to 51, got 52"):
        Encoding(crf=52)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.mp4", None, "no video at"),
        ("notes.txt", b"hello", "must end in one of"),
        ("torn.mp4", b"\x00\x00\x00\x18ftypmp42", "cannot be decoded as mp4"),
        ("list.mp4", b"#EXTM3U\n#EXTINF:1,\nhttp://localhost/x.ts\n", "cannot be decoded as mp4"),
    ],
)
def test_an_unreadable_video_is_named(name, content, message, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableVideo, match=message):
        read_video(tmp_path / name)


def test_a_file_of_sound_alone_is_no_video(run_ffmpeg, tmp_path):
    run_ffmpeg("-f", "lavfi", "-i", "sine=d=1", "-c:a", "aac", tmp_path / "sound.mp4")
    with pytest.raises(UnreadableVideo, match="no video stream"):
        read_video(tmp_path / "sound.mp4")
