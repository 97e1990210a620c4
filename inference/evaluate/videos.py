"""Reading the videos under test: the frames of a view, cropped and resized for an extractor.

The demuxer follows from the file's suffix and is the only one that libav may use; a file that asks for
another one, or for any other file or address, is refused.

Shape letters: T frames, H W pixels, C channels, S side of a square.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from inference.evaluate.protocols import View

if TYPE_CHECKING:
    from av.container import InputContainer

DEMUXERS = {
    ".avi": "avi",
    ".m4v": "mov",
    ".mkv": "matroska",
    ".mov": "mov",
    ".mp4": "mov",
    ".webm": "matroska",
}
"""Suffix of a video -> the demuxer that reads it. UCF101 is AVI, MSR-VTT and LaVie's own are MP4."""

MAX_PIXELS = 8192 * 4608  # 8K UHD and a little; a larger frame is a fault, not a video to score


class UnusableVideo(ValueError):
    """A video that gives no frames, or fewer than a view needs."""


@dataclass(slots=True)
class Seen:
    """What the videos of a measurement were like; goes into the result file."""

    codecs: Counter[str] = field(default_factory=Counter)
    """Codec and pixel format, such as 'h264 yuv420p' -> videos."""
    sizes: Counter[str] = field(default_factory=Counter)
    """Width x height -> videos."""
    frame_rates: Counter[str] = field(default_factory=Counter)
    """Frames a second, a whole number or a fraction -> videos."""
    digests: dict[str, str] = field(default_factory=dict)
    """Name below the folder -> sha256 of the file."""

    def describe(self) -> dict[str, Any]:
        """As JSON; of the digests one digest over all names and bytes."""
        named = "".join(f"{name}\0{digest}\n" for name, digest in sorted(self.digests.items()))
        return {
            "count": len(self.digests),
            "codecs": dict(sorted(self.codecs.items())),
            "sizes": dict(sorted(self.sizes.items())),
            "frame_rates": dict(sorted(self.frame_rates.items())),
            "sha256": hashlib.sha256(named.encode()).hexdigest(),
        }


def list_videos(folder: Path) -> list[Path]:
    """Videos below a folder by their suffix, in the order of their names.

    Raises:
        FileNotFoundError: There is no such folder, or no video in it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder of videos at {folder}")
    found = [path for path in folder.rglob("*") if path.suffix.lower() in DEMUXERS]
    videos = sorted(path for path in found if path.is_file())
    if not videos:
        raise FileNotFoundError(f"no video ({', '.join(sorted(DEMUXERS))}) below {folder}")
    return videos


def description_of(video: Path) -> Path:
    """The JSON file that sampling leaves beside a video (`inference.video_file.write_video`)."""
    return video.with_name(f"{video.name}.json")


def _refuse(url: str, flags: int, options: dict[str, Any]) -> NoReturn:
    raise UnusableVideo(f"asks for another file or address: {url[:200]!a}")


def _open(file: Any, demuxer: str) -> InputContainer:
    import av

    return av.open(
        file,
        "r",
        format=demuxer,
        container_options={"format_whitelist": demuxer, "protocol_whitelist": "none"},
        metadata_errors="replace",
        io_open=_refuse,
    )


def _note(seen: Seen, container: InputContainer, frame: Any) -> None:
    stream = container.streams.video[0]
    seen.codecs[f"{stream.codec.canonical_name} {frame.format.name}"] += 1
    seen.sizes[f"{frame.width}x{frame.height}"] += 1
    rate = stream.average_rate or stream.guessed_rate
    seen.frame_rates[str(Fraction(rate)) if rate else "unknown"] += 1


def _decoded(container: InputContainer) -> Iterator[Any]:
    """Frames of the first video stream, none larger than 8K."""
    if not container.streams.video:
        raise UnusableVideo("has no video stream")
    stream = container.streams.video[0]
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    yield from container.decode(stream)


def read_frames(
    path: Path, seen: Seen, *, name: str, start: int = 0, stride: int = 1, count: int | None = None
) -> NDArray[np.uint8]:
    """Frames ``start``, ``start + stride``, ... of a video, RGB uint8 ``[T, H, W, 3]``.

    Args:
        path: A file with a suffix of `DEMUXERS`.
        seen: Takes note of the codec, the size, the frame rate and the file's digest.
        name: How the video is called in the result.
        start: Index of the first frame taken.
        stride: Step between frames taken.
        count: How many to take, or None for all; nothing after them is decoded.

    Raises:
        UnusableVideo: It cannot be opened or decoded, or has fewer frames.
    """
    import av

    taken: list[NDArray[np.uint8]] = []
    facts = Seen()
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        try:
            with _open(file, DEMUXERS[path.suffix.lower()]) as container:
                for index, frame in enumerate(_decoded(container)):
                    if index == 0:
                        _note(facts, container, frame)
                    if index >= start and (index - start) % stride == 0:
                        taken.append(frame.to_ndarray(format="rgb24"))
                    if len(taken) == count:
                        break
        except (av.error.FFmpegError, ValueError) as error:
            raise UnusableVideo(_last_line(error)) from error
    if not taken or (count is not None and len(taken) < count):
        wanted = f"{count} frames" if count else "a frame"
        raise UnusableVideo(f"gives {len(taken)} of {wanted} (from {start}, every {stride})")
    if len({frame.shape for frame in taken}) > 1:
        raise UnusableVideo("changes its size")
    for counter in ("codecs", "sizes", "frame_rates"):
        getattr(seen, counter).update(getattr(facts, counter))
    seen.digests[name] = digest
    return np.stack(taken)


def _last_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[-1][:200]


def read_clip(path: Path, view: View, seen: Seen, *, name: str) -> Tensor:
    """The clip of a view, float ``[C, T, S, S]``, values 0 to 255.

    Raises:
        UnusableVideo: As of `read_frames`, or a frame is smaller than the view's crop.
    """
    frames_THWC = read_frames(
        path,
        seen,
        name=name,
        start=view.start_frame,
        stride=view.frame_stride,
        count=view.num_frames,
    )
    return view_of(frames_THWC, view)


def view_of(frames_THWC: NDArray[np.uint8], view: View) -> Tensor:
    """Frames cut to the centre square and resized, float ``[C, T, S, S]``, values 0 to 255.

    Bicubic overshoot is cut off at 0 and 255.
    """
    height, width = frames_THWC.shape[1:3]
    side = view.crop_px or min(height, width)
    if side > min(height, width):
        raise UnusableVideo(f"is {width}x{height}, a centre square of {side} cannot be cut")
    top, left = (height - side) // 2, (width - side) // 2
    square_THWC = frames_THWC[:, top : top + side, left : left + side]
    frames_TCHW = torch.from_numpy(np.ascontiguousarray(square_THWC)).permute(0, 3, 1, 2).float()
    if side != view.resize_px:
        frames_TCHW = functional.interpolate(
            frames_TCHW,
            size=(view.resize_px, view.resize_px),
            mode=view.resize_filter,
            align_corners=False,
            antialias=view.antialias,
        ).clamp(0, 255)
    return frames_TCHW.transpose(0, 1)
