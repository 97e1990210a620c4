"""How clips are cut, what is known of one before, and what came out."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

from curation.errors import REJECT_REASONS
from curation.media.clock import ClockShift, Lead
from curation.media.colour import Colour
from curation.media.containers import IMAGE_DEMUXERS
from curation.media.orientation import UPRIGHT, Orientation
from curation.media.probe import Limits
from curation.media.recordings import WHOLE, Recording
from curation.stations.station import Resources

EXPORT_REJECTS: dict[str, str] = REJECT_REASONS | {
    "no_keyframe_inside": "copying: no keyframe between the clip's first and last frame",
    "too_short_after_shrink": "copying: too little is left after shrinking to keyframes",
    "codec_not_in_mp4": "copying: an MP4 file cannot hold this codec",
    "no_timestamps": "copying: packets without presentation times (raw streams, AVI)",
    "frames_missing": "the decoder gave other frames between start and end than were measured",
    "encoder_failed": "the encoder or the MP4 writer stopped with an error",
}
"""Why a selected clip is not in a shard: the word in `export_reject` -> what it means."""


ADMITTED = Limits(
    max_bytes=2**62,
    max_side=2**16,
    max_pixels=2**30,
    max_duration_s=1e9,
    max_frames=2**31,
)
"""For sources whose bytes have passed the gate before, whatever its limits were."""


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
]
"""All that x264 has but 'placebo', which no time limit fits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportConfig:
    """How the kept clips are cut and packed."""

    cut: Literal["exact", "copy"] = "exact"
    """'exact' re-encodes to H.264 and keeps every frame; 'copy' keeps the source's packets and
    shrinks the clip inward to its first keyframe."""
    max_short_side_px: int | None = None
    """Larger pictures are made smaller until their short side is this; none keeps the size. Not for
    videos under 'copy', whose pictures are not touched."""
    crop_borders: bool = False
    """Cut off black bars, to the column `picture_area`; buckets are then by what is left. Not under
    'copy'. The selection's rule on `border_share`, if it has one, drops such clips before: leave it out
    with `--drop-rule`."""
    crf: int = 18
    """x264 constant rate factor, 0 (lossless) to 51; 18 is x264's 'visually nearly lossless'."""
    x264_preset: X264Preset = "veryfast"
    """x264 preset; 'medium' takes 2.2x the CPU time for files of about the same size."""
    threads: int = 1
    """Encoder threads. Another count gives other bytes; one thread on each core wastes least."""
    jpeg_quality: int = 95
    """Pillow's scale, 1 to 95, without chroma subsampling from 90 up."""
    max_clips_per_shard: int = 1000
    """Clips in one shard at most; webdataset's and video2dataset's habit."""
    max_seconds_per_shard: float = 2000.0
    """Seconds of video in one shard at most: 500 MB at 2 Mbit/s. A longer clip has its own."""
    min_copied_frames: int = 16
    """Frames that must be left after shrinking under 'copy': one sample of LaVie's base model."""
    min_copied_s: float = 2.0
    """Seconds that must be left after shrinking under 'copy': 16 frames at training's 8 fps."""
    timeout_s: float = 120.0
    """Wall time that cutting one clip may take, besides `timeout_per_s`."""
    timeout_per_s: float = 60.0
    """Wall time for each second of the clip: 4K at the slowest preset stays under it."""

    def __post_init__(self) -> None:
        if self.cut not in ("exact", "copy"):
            raise ValueError(f"cut must be 'exact' or 'copy', got {self.cut!r}")
        if self.crop_borders and self.cut == "copy":
            raise ValueError(
                "crop_borders needs cut exact: packets are copied with all their picture"
            )
        if self.x264_preset not in (presets := get_args(X264Preset)):
            raise ValueError(
                f"x264_preset must be one of {', '.join(presets)}, got {self.x264_preset!r}"
            )
        if self.max_short_side_px is not None and self.max_short_side_px < 16:
            raise ValueError(
                f"max_short_side_px must be at least 16 px, got {self.max_short_side_px}"
            )
        self._check_ranges()

    def _check_ranges(self) -> None:
        for name, low, high in (("crf", 0, 51), ("jpeg_quality", 1, 95), ("threads", 1, 128)):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} must lie in {low}..{high}, got {value}")
        for name in ("max_clips_per_shard", "max_seconds_per_shard", "timeout_s", "timeout_per_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("min_copied_frames", "min_copied_s"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")

    def deadline_s(self, clip: Clip) -> float:
        """Wall time that cutting ``clip`` may take."""
        return self.timeout_s + self.timeout_per_s * clip.duration_s

    @property
    def resources(self) -> Resources:
        """What one worker takes: the encoder's threads, and the memory of one ffmpeg process."""
        return Resources(cpus=float(self.threads))


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """What cutting needs to know of one clip; the fields are columns of the corpus."""

    container: str
    """Name of the demuxer, by content."""
    start_pts: int
    """Timestamp of the first frame."""
    end_pts: int
    """Timestamp at which the last frame ends."""
    time_base: Fraction
    """Seconds in one unit of the timestamps."""
    num_frames: int
    """Frames from start to end."""
    width: int
    """Shown width in px."""
    height: int
    """Shown height in px."""
    colour: Colour
    """How the source's frames are coded, nothing left to guess."""
    area: tuple[int, int, int, int] | None = None
    """Left, top, width, height of what is kept of the shown picture; None keeps all."""
    interlaced: str = "progressive"
    """'progressive', 'interlaced' or 'telecined', as the column has it."""
    pixel_format: str = "yuv420p"
    """Of the source's frames, in libav's words: says whether they can be seen through."""
    orientation: Orientation = UPRIGHT
    """How the source's frames are shown."""
    stream_index: int = 0
    """Index of the picture stream among all streams, from `read_stream`."""
    shifts: tuple[ClockShift, ...] = ()
    """Jumps of the stream's clock, over which the timestamps above go on; usually none."""
    lead: Lead | None = None
    """Frames without timestamps at the start of the film, if there are any."""
    recording: Recording = WHOLE
    """The bytes in which it lies, where the file holds several recordings."""
    goes_on_at: int | None = None
    """Steady time of the start of its recording, behind another one."""
    first_packet: int = 0
    """Where there are jumps, so that no seek finds a time: the packet at which to begin decoding."""

    @property
    def kept_size(self) -> tuple[int, int]:
        """Width and height of what is kept, as shown."""
        return (self.width, self.height) if self.area is None else self.area[2:]

    @property
    def is_image(self) -> bool:
        """Whether the source is a still image by its bytes."""
        return self.container in IMAGE_DEMUXERS

    @property
    def duration_s(self) -> float:
        """Seconds from start to end; 0 for images."""
        return float((self.end_pts - self.start_pts) * self.time_base)


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """A cut clip, measured on the result rather than copied from the plan."""

    extension: str
    """'mp4' or 'jpg'."""
    data: bytes
    """The file."""
    num_frames: int
    """Frames in it."""
    fps: float | None
    """num_frames / duration_s; none for images."""
    duration_s: float
    """Shown time; 0 for images."""
    width: int
    """Shown width in px: after rotation and pixel aspect."""
    height: int
    """Shown height in px."""


def fitted_size(width: int, height: int, max_short_side_px: int | None) -> tuple[int, int]:
    """Even width and height in px, the short side at most ``max_short_side_px``.

    Without a limit an odd side loses its last row or column of pixels.
    """
    short = min(width, height)
    if max_short_side_px is not None and short > max_short_side_px:
        width = round(width * max_short_side_px / short)
        height = round(height * max_short_side_px / short)
    return max(2, width // 2 * 2), max(2, height // 2 * 2)
