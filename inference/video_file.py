"""Videos on disk: written with what made them, read for the later stages.

Shape letters: T frames, H W pixels, C channels.
"""

import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from curation.errors import LavieError

Frames = NDArray[np.uint8]
SUFFIXES = (".mp4", ".gif", "")
DEMUXERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "matroska", ".avi": "avi"}
"""Formats that are read, by suffix; libav is told the name so that it opens nothing else."""
MAX_FRAMES_READ = 4096


class UnreadableVideo(LavieError):
    """A video that was to be interpolated or enlarged cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Video:
    """Frames with their pace."""

    frames_THWC: Frames
    """RGB, 0 to 255, ``[T, H, W, 3]``."""
    fps: float
    """Frames a second."""
    description: Mapping[str, Any] | None = None
    """What `write_video` put into the file, where it is one of ours."""


X264Preset = Literal[
    "ultrafast",
    "superfast",
    "veryfast",
    "faster",
    "fast",
    "medium",
    "slow",
    "slower",
    "veryslow",
    "placebo",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """How H.264 is written."""

    crf: int = 17
    """Constant rate factor of H.264, 0 (lossless) to 51; 17 is close to the release's quality 9."""
    preset: X264Preset = "medium"
    """x264's trade of time for size, from ultrafast to placebo."""
    threads: int = 0
    """Threads of the encoder, at least 0; 0 leaves it to x264. The bytes depend on it."""

    def __post_init__(self) -> None:
        """Raise ValueError for settings that x264 does not have."""
        if not 0 <= self.crf <= 51:
            raise ValueError(f"crf must be 0 to 51, got {self.crf}")
        if self.threads < 0:
            raise ValueError(f"threads must be at least 0, got {self.threads}")


def to_bytes(video: NDArray[np.floating[Any]], *, rounds: bool) -> Frames:
    """Bytes of values 0 to 1, as the release rounds them.

    Args:
        video: Any shape.
        rounds: To the nearest byte (base and interpolation), or towards zero (super-resolution).
    """
    scaled = video.clip(0, 1) * 255
    return (scaled + 0.5 if rounds else scaled).astype(np.uint8)


def write_video(
    path: Path,
    frames: Iterable[Frames],
    *,
    fps: float,
    description: Mapping[str, Any] | None = None,
    encoding: Encoding | None = None,
) -> None:
    """Write frames whole or not at all, and beside them a JSON that says what they are.

    Args:
        path: ``.mp4`` (H.264, yuv420p), ``.gif``, or no suffix for a folder of PNG frames.
        frames: RGB ``[H, W, 3]`` each, taken one at a time; H and W even for mp4.
        fps: Frames a second.
        description: Plain values: prompt, seed, settings, digests of the weights. Goes into an
            mp4's comment too.
        encoding: Of an mp4.

    Raises:
        ValueError: The suffix is unknown, there is no frame, or the frames do not fit the format.
    """
    check_suffix(path)
    if fps <= 0:
        raise ValueError(f"fps must be positive, got {fps}")
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(description or {}, ensure_ascii=False, sort_keys=True)
    with _draft(path) as draft:
        if path.suffix == ".mp4":
            _write_mp4(draft, frames, fps, text, encoding or Encoding())
        elif path.suffix == ".gif":
            _write_gif(draft, frames, fps)
        else:
            _write_pngs(draft, frames)
    if description is not None:
        beside = path.with_name(path.name + ".json")
        with _draft(beside) as draft:
            draft.write_text(json.dumps(description, indent=2, sort_keys=True) + "\n", "utf-8")


def check_suffix(path: Path) -> None:
    """Raise ValueError for a path that names no format we write."""
    if path.suffix not in SUFFIXES:
        raise ValueError(
            f"out must end in .mp4 or .gif, or have no suffix for a folder of frames, got {path}"
        )


def _write_mp4(
    path: Path, frames: Iterable[Frames], fps: float, text: str, encoding: Encoding
) -> None:
    import av

    options = {"crf": str(encoding.crf), "preset": encoding.preset}
    # without the flag, libav's mp4 writer drops keys that are no iTunes tags; comment is one
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as output:
        output.metadata["comment"] = text
        stream = None
        for frame_HWC in frames:
            if stream is None:
                height, width = frame_HWC.shape[:2]
                if height % 2 or width % 2:
                    raise ValueError(f"mp4 frames must have even sides, got {height}x{width}")
                rate = Fraction(fps).limit_denominator(1001)
                stream = output.add_stream("libx264", rate=rate, options=options)
                stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
                stream.thread_count = encoding.threads
                context = stream.codec_context
                context.colorspace, context.color_range = 5, 1  # BT.601, as converted; limited
            output.mux(stream.encode(av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")))
        if stream is None:
            raise ValueError("a video must have at least one frame, got none")
        output.mux(stream.encode())


def _write_gif(path: Path, frames: Iterable[Frames], fps: float) -> None:
    from PIL import Image

    images = [Image.fromarray(frame) for frame in frames]
    if not images:
        raise ValueError("a video must have at least one frame, got none")
    # GIF counts in hundredths of a second
    images[0].save(
        path, format="GIF", save_all=True, append_images=images[1:], duration=1000 / fps, loop=0
    )


def _write_pngs(folder: Path, frames: Iterable[Frames]) -> None:
    from PIL import Image

    folder.mkdir()
    count = 0
    for count, frame in enumerate(frames, start=1):
        Image.fromarray(frame).save(folder / f"{count - 1:05d}.png")
    if count == 0:
        raise ValueError("a video must have at least one frame, got none")


@contextmanager
def _draft(path: Path) -> Iterator[Path]:
    """A neighbour that takes the path's place when all went well."""
    draft = path.with_name(f".{uuid.uuid4().hex}-{path.name}")
    try:
        yield draft
        if draft.is_dir() and path.exists() and (path.is_file() or any(path.iterdir())):
            raise FileExistsError(f"the folder of frames must be new or empty, got {path}")
        os.replace(draft, path)
    finally:
        if draft.is_dir():
            for file in draft.iterdir():
                file.unlink()
            draft.rmdir()
        draft.unlink(missing_ok=True)


def read_video(path: Path) -> Video:
    """Read all frames of a video file.

    Raises:
        UnreadableVideo: There is no such file, its format is not on the list, or it holds no frame
            or more than `MAX_FRAMES_READ`.
    """
    import av

    if not path.is_file():
        raise UnreadableVideo(f"no video at {path}")
    demuxer = DEMUXERS.get(path.suffix.lower())
    if demuxer is None:
        raise UnreadableVideo(f"{path} must end in one of {', '.join(DEMUXERS)}")
    frames: list[Frames] = []
    try:
        with av.open(str(path), format=demuxer) as source:
            if not source.streams.video:
                raise UnreadableVideo(f"{path} holds no video stream")
            stream = source.streams.video[0]
            fps = float(stream.average_rate or 0)
            comment = source.metadata.get("comment", "")
            for frame in source.decode(stream):
                if len(frames) == MAX_FRAMES_READ:
                    raise UnreadableVideo(
                        f"{path} holds more than {MAX_FRAMES_READ} frames, the most that is read"
                    )
                frames.append(frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False))
    except av.FFmpegError as error:
        raise UnreadableVideo(f"{path} cannot be decoded as {demuxer}: {error}") from error
    if not frames or fps <= 0:
        raise UnreadableVideo(f"{path} holds {len(frames)} frames at {fps} frames a second")
    return Video(frames_THWC=np.stack(frames), fps=fps, description=_described(comment))


def _described(comment: str) -> Mapping[str, Any] | None:
    try:
        held = json.loads(comment)
    except json.JSONDecodeError:
        return None
    return held if isinstance(held, dict) else None
