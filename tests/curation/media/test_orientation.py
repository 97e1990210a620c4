import subprocess
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageOps

from curation.media.orientation import EXIF_ORIENTATIONS, Orientation, orientation_of, upright

PICTURE = np.arange(48, dtype=np.uint8).reshape(2, 8, 3)
DISPLAYS = [
    (("-display_rotation:v:0", str(-turn)) if turn else ())
    + (("-display_hflip:v:0",) if flip else ())
    for turn in (0, 90, 180, 270)
    for flip in (False, True)
]


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_upright_turns_clockwise_as_pillow_does(turn):
    expected = np.asarray(Image.fromarray(PICTURE).rotate(-turn, expand=True))
    assert np.array_equal(upright(PICTURE, Orientation(False, turn)), expected)


@pytest.mark.parametrize("value", EXIF_ORIENTATIONS)
def test_exif_orientations_are_those_of_pillow(value):
    image = Image.fromarray(PICTURE)
    image.getexif()[0x0112] = value
    expected = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(upright(PICTURE, EXIF_ORIENTATIONS[value]), expected)


@pytest.mark.parametrize("display", DISPLAYS, ids=" ".join)
def test_a_display_matrix_is_read_as_ffmpeg_reads_it(
    display, make_video, run_ffmpeg, ffmpeg_exe, tmp_path: Path
):
    stored = make_video(tmp_path / "a.mp4", [("red", 2)], size=(96, 64))
    run_ffmpeg(*display, "-i", stored, "-c", "copy", tmp_path / "b.mp4")
    with av.open(str(tmp_path / "b.mp4")) as container:
        frame = next(container.decode(video=0))
        ours = upright(frame.to_ndarray(format="gray"), orientation_of(frame))
    command = [ffmpeg_exe, "-v", "error", "-i", tmp_path / "b.mp4", "-frames:v", "1"]
    command += ["-f", "rawvideo", "-pix_fmt", "gray", "-"]
    theirs = subprocess.run(command, check=True, capture_output=True).stdout
    theirs_HW = np.frombuffer(theirs, np.uint8).reshape(ours.shape)
    assert np.abs(ours.astype(int) - theirs_HW).mean() < 1
