"""What an extractor is shown of a video, against PIL and arrays cut by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from inference.evaluate.protocols import View
from inference.evaluate.videos import (
    Seen,
    UnusableVideo,
    list_videos,
    read_clip,
    read_frames,
    view_of,
)

GREYS = [20 * i for i in range(12)]  # one grey a frame, far enough apart to survive a codec


@pytest.fixture(scope="module")
def grey_video(tmp_path_factory: pytest.TempPathFactory, encode_video: Callable[..., Path]) -> Path:
    path = tmp_path_factory.mktemp("videos") / "greys.mp4"
    return encode_video(path, (np.full((36, 64, 3), grey, np.uint8) for grey in GREYS), fps=8)


def test_a_view_takes_its_frames_by_start_and_stride(grey_video: Path) -> None:
    view = View(num_frames=3, start_frame=2, frame_stride=4, resize_px=16)
    clip_CTHW = read_clip(grey_video, view, Seen(), name="greys.mp4")
    assert clip_CTHW.shape == (3, 3, 16, 16)
    levels = clip_CTHW.mean(dim=(0, 2, 3)).tolist()
    assert levels == pytest.approx([GREYS[2], GREYS[6], GREYS[10]], abs=4)


def test_a_video_with_too_few_frames_is_unreadable(grey_video: Path) -> None:
    view = View(num_frames=4, frame_stride=4)
    with pytest.raises(UnusableVideo, match=r"gives 3 of 4 frames \(from 0, every 4\)"):
        read_clip(grey_video, view, Seen(), name="greys.mp4")


def test_what_videos_are_like_is_noted(grey_video: Path) -> None:
    seen = Seen()
    read_frames(grey_video, seen, name="greys.mp4")
    facts = seen.describe()
    assert facts["count"] == 1
    assert facts["codecs"] == {"h264 yuv420p": 1}
    assert facts["sizes"] == {"64x36": 1}
    assert facts["frame_rates"] == {"8": 1}


def test_the_centre_square_is_cut_before_resizing() -> None:
    frame_HWC = np.zeros((10, 20, 3), np.uint8)
    frame_HWC[2:8, 7:13] = 255
    clip_CTHW = view_of(frame_HWC[None], View(num_frames=1, crop_px=6, resize_px=4))
    assert clip_CTHW.shape == (3, 1, 4, 4)
    assert clip_CTHW.eq(255).all()
    whole_CTHW = view_of(frame_HWC[None], View(num_frames=1, resize_px=10))
    np.testing.assert_array_equal(whole_CTHW[0, 0].numpy(), frame_HWC[:, 5:15, 0])


def test_a_square_larger_than_the_frame_is_refused() -> None:
    with pytest.raises(UnusableVideo, match="is 20x10, a centre square of 12 cannot be cut"):
        view_of(np.zeros((1, 10, 20, 3), np.uint8), View(num_frames=1, crop_px=12))


@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
def test_a_filter_with_antialiasing_is_that_of_pil(name: str) -> None:
    frame_HWC = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    view = View(num_frames=1, resize_px=16, resize_filter=name, antialias=True)  # type: ignore[arg-type]
    clip_CTHW = view_of(frame_HWC[None], view)
    by_pil = Image.fromarray(frame_HWC).resize((16, 16), Image.Resampling[name.upper()])
    difference = (clip_CTHW[:, 0] - torch.from_numpy(np.array(by_pil).transpose(2, 0, 1))).abs()
    assert difference.max() <= 1.0  # PIL rounds to whole numbers after each axis


def test_bilinear_without_antialiasing_reads_the_two_pixels_around_a_centre() -> None:
    # 8 to 2 pixels: centres at 1.5 and 5.5, so the mean of pixels 1, 2 and of 5, 6.
    row_W = np.array([0, 10, 30, 50, 70, 90, 110, 200], np.uint8)
    frame_HWC = np.broadcast_to(row_W[None, :, None], (8, 8, 3))
    clip_CTHW = view_of(frame_HWC[None], View(num_frames=1, resize_px=2))
    assert clip_CTHW[0, 0, 0].tolist() == [20, 100]


def test_videos_are_listed_by_name_whatever_their_folder(tmp_path: Path) -> None:
    for name in ("b.mp4", "a/z.avi", "a/notes.txt", "c.webm"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = [path.relative_to(tmp_path).as_posix() for path in list_videos(tmp_path)]
    assert names == ["a/z.avi", "b.mp4", "c.webm"]


def test_a_folder_without_videos_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no video"):
        list_videos(tmp_path)


def test_avi_is_read_by_its_own_demuxer(
    tmp_path: Path, encode_video: Callable[..., Path], make_video: Callable[..., Path]
) -> None:
    make_video(tmp_path / "v.avi", [("red", 3)], size=(64, 36), codec="mpeg4")
    assert read_frames(tmp_path / "v.avi", Seen(), name="v").shape == (3, 36, 64, 3)


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv"])
def test_a_playlist_under_a_videos_name_opens_nothing(
    tmp_path: Path, grey_video: Path, suffix: str
) -> None:
    disguised = tmp_path / f"list{suffix}"
    disguised.write_text(f"#EXTM3U\n#EXTINF:1,\n{grey_video}\n#EXT-X-ENDLIST\n")
    with pytest.raises(UnusableVideo):
        read_frames(disguised, Seen(), name="list")
    disguised.write_text(f"ffconcat version 1.0\nfile '{grey_video}'\n")
    with pytest.raises(UnusableVideo):
        read_frames(disguised, Seen(), name="list")


def test_a_video_cut_short_is_not_counted_as_seen(tmp_path: Path, grey_video: Path) -> None:
    torn = tmp_path / "torn.mp4"
    torn.write_bytes(grey_video.read_bytes()[:700])
    seen = Seen()
    with pytest.raises(UnusableVideo):
        read_frames(torn, seen, name="torn.mp4")
    assert seen.describe()["count"] == 0
