"""What is measured on the frames of one video, while they stream by.

Frames stream through: each becomes a small analysis picture (scaled by libswscale straight from the
decoder's planes, never a full-size RGB picture), which goes to the finder of transitions; two a
second also go to optical flow and picture statistics; some are held as candidates for keyframes. A
scene is written down as soon as its end is certain, and everything held for it is let go, so memory
does not grow with the length of the film.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from curation.decode.blur import blur_effect, scene_blur, tile_of
from curation.decode.camera import Moved, scene_camera
from curation.decode.conversion import Conversion
from curation.decode.freezes import Freezes
from curation.decode.interlacing import FieldSample, Interlacing, field_sample, interlacing
from curation.decode.keyframes import (
    Candidate,
    Candidates,
    KeyframeConfig,
    inside_borders,
    jpeg,
    perceptual_hash,
)
from curation.decode.likeness import is_same_shot
from curation.decode.motion import FlowMeter, Pair, scene_motion
from curation.decode.picture import (
    PictureSample,
    luma,
    picture_area,
    picture_sample,
    scene_picture,
)
from curation.decode.scenes import (
    Boundary,
    Finders,
    Scene,
    SceneConfig,
    SceneCutter,
    Transition,
)
from curation.decode.timeline import Pace, Ticker, Timeline
from curation.media.orientation import UPRIGHT, Orientation
from curation.media.probe import Limits

T = TypeVar("T")
RECENT_S = 4.0
"""A transition is certain at most about this long after it (a 3 s dissolve and the flash rule)."""
NUM_OLD_CANDIDATES = 64
MIN_KNOWN_PACKETS = 0.9
"""Share of a scene's frames whose packets must be known to say how large they are."""
MAX_DECODED_BYTES = 64 << 20
"""Of candidates held as decoded: 48 frames of 720p, 21 of 1080p, five of 2160p."""
MOST_WAITING = 12
"""Frames that are decoded before all of them are measured, so that decoder and measures take turns less
often in the caches of a core: 0.95 of the CPU-seconds of 1, as much as 24."""
MAX_WAITING_BYTES = 16 << 20
"""Of these: 11 frames of 720p, five of 1080p, one of 2160p."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeConfig:
    """The decoding pass."""

    scenes: SceneConfig = field(default_factory=SceneConfig)
    """Cuts and spans."""
    keyframes: KeyframeConfig = field(default_factory=KeyframeConfig)
    """Pictures that stand for a scene."""
    sample_fps: float = 2.0
    """Frames a second at which motion and picture statistics are measured (SVD, Data-Juicer: 2)."""
    skip_loop_filter: Literal["none", "noref", "all"] = "noref"
    """Frames that H.264 and HEVC decode without deblocking: none; those to which no other refers,
    so that nothing is carried on (a tenth faster, no difference to be seen); all (faster still, but
    errors add up until the next intra frame and sharpness is off by half). See
    docs/performance.md."""
    interlaced: Literal["deinterlace", "reject"] = "deinterlace"
    """What becomes of scenes whose frames are two fields of different moments: keyframes show one
    field and exact cuts are deinterlaced, or they stay rows, rejected as 'interlaced'."""
    limits: Limits = field(default_factory=Limits)
    """What one source may take."""
    threads: int = 1
    """Threads of the decoder, and cores a worker takes. Two workers with one thread each beat one
    worker with two; more threads make one long film ready sooner. Changes no value: a film with
    damage is decoded again on one thread."""

    def __post_init__(self) -> None:
        if not 0.1 <= self.sample_fps <= 30:
            raise ValueError(f"sample_fps must be 0.1 to 30 frames/s, got {self.sample_fps}")
        if not 1 <= self.threads <= 64:
            raise ValueError(f"threads must be 1 to 64, got {self.threads}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """How coded frames are to be shown.

    Args:
        width: coded width in pixels.
        height: coded height in pixels.
        sample_aspect: width of a pixel through its height.
        fps: frame rate as the container states it, within the bounds of `Pace`.
        time_base: length of a tick in seconds.
        orientation: mirrored or not, and the turn.
    """

    width: int
    height: int
    sample_aspect: Fraction
    fps: Fraction
    time_base: Fraction
    orientation: Orientation = UPRIGHT

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as shown: square pixels, upright."""
        width = max(1, round(self.width * self.sample_aspect))
        return (self.height, width) if self.orientation.swaps_sides else (width, self.height)


@dataclass(frozen=True, slots=True)
class Keyframe:
    """One encoded keyframe: JPEG bytes, time on the source's clock, hash."""

    data: bytes
    time_s: float
    hash: int


@dataclass(frozen=True, slots=True)
class MeasuredScene:
    """A scene with all that was measured on it."""

    scene: Scene
    start_pts: int
    end_pts: int
    start_s: float
    end_s: float
    size: tuple[int, int]
    """Width and height as shown."""
    colour: str
    """How the frames are coded, as the column has it."""
    num_damaged_frames: int
    interlacing: Interlacing
    measures: Mapping[str, float | str | list[int] | None]
    keyframes: tuple[Keyframe, ...]


@dataclass(frozen=True, slots=True)
class Waiting:
    """A frame that is decoded and made small, but not yet measured."""

    index: int
    pts: int
    frame: Any
    picture_HWC: NDArray[np.uint8]


def _taken(held: deque[T], scene: Scene, index_of: Callable[[T], int]) -> list[T]:
    """What belongs to a scene; it and what lies before the scene's end is let go."""
    own = []
    while held and index_of(held[0]) < scene.end:
        each = held.popleft()
        if index_of(each) >= scene.start:
            own.append(each)
    return own


class VideoPass:
    """All measurements of one video, frame by frame.

    Args:
        config: what to measure.
        shown: geometry and clock of the stream, or of its first stretch.
        make_finder: of transitions; each stretch has its own, which gets the analysis picture of
            every frame.
    """

    def __init__(self, config: DecodeConfig, shown: Shown, make_finder: Finders) -> None:
        self._config = config
        self._make_finder = make_finder
        self.timeline = Timeline(shown.time_base)
        self._pace = Pace(shown.fps, shown.time_base)
        self._max_ticks = int(Fraction(config.scenes.max_s) / shown.time_base)
        self._cutter = SceneCutter(config.scenes, self.timeline)
        self._begin(shown)
        # A little closer than needed for the shortest scene, so that it has enough of them.
        candidate_s = 0.9 * max(config.scenes.min_s, 0.5) / config.keyframes.num
        self._sample_due = Ticker(round(1 / Fraction(config.sample_fps) / shown.time_base))
        self._candidate_due = Ticker(round(Fraction(candidate_s) / shown.time_base))
        self._candidates = Candidates(
            num_recent=round(RECENT_S / candidate_s),
            num_old=NUM_OLD_CANDIDATES,
            max_bytes=MAX_DECODED_BYTES,
        )
        self._samples: deque[PictureSample] = deque()
        self._pairs: deque[Pair] = deque()
        self._moments: deque[Moved] = deque()
        self._damaged: deque[int] = deque()
        self._blurs: deque[tuple[int, float]] = deque()
        self._packets: deque[tuple[int, int]] = deque()
        self._fields: deque[FieldSample] = deque()
        self._waiting: list[Waiting] = []
        self._most_waiting = 1
        self._before: Any = None
        self._freezes = Freezes(self.timeline)
        self._picture: NDArray[np.uint8] | None = None
        self._num_samples = 0

    def _begin(self, shown: Shown) -> None:
        """Begin a stretch with the next frame."""
        self._shown = shown
        self._first = len(self.timeline)
        self._finder = self._make_finder(self._pace.fps)
        self._flow = FlowMeter()
        self._conversion: Conversion | None = None

    def edge(
        self, kind: Boundary, shown: Shown | None = None, *, until: int | None = None
    ) -> list[MeasuredScene]:
        """Declare a scene edge before the next frame; the scenes that are complete now.

        For what the stream itself says, such as a jump of its clock. It ends a stretch: nothing is
        compared across it, neither to find transitions nor to measure motion.

        Args:
            kind: word for the edge, in `cut_out` before it and in `cut_in` after it.
            shown: geometry of the frames from here on; as before where it is not given. The clock
                stays the one of the first stretch.
            until: timestamp of the next frame, if it has one.
        """
        scenes = self._measured_waiting()
        self.timeline.interrupt(self._pace.length, until)
        self._pace.restart()
        scenes += self._measured_all(self._cutter.edge(self._rest(), kind))
        self._begin(shown or self._shown)
        self._freezes.interrupt(self._first)
        return scenes

    def still(self, frame: Any, *, num_bytes: int | None = None) -> MeasuredScene:
        """The only frame of a still image: one scene of one frame, no motion, never too short."""
        self.timeline.add(0, 1)
        if num_bytes is not None:
            self._packets.append((0, num_bytes))
        conversion = self._converted(frame)
        self._sample(0, frame, conversion.analysis_picture(frame))
        self._candidates.add(Candidate(0, frame, conversion.candidate))
        scene = Scene(0, 1, "start", "end", None)
        measured = self._measured(scene)
        return replace(measured, end_s=0.0, measures={**measured.measures, "frozen_share": None})

    def push(
        self, frame: Any, *, is_damaged: bool = False, num_bytes: int | None = None
    ) -> list[MeasuredScene]:
        """Take the next frame of the decoder (PyAV); the scenes that are complete now.

        Args:
            frame: it.
            is_damaged: whether it was hit, or is made from one that was.
            num_bytes: of its packets, if they are known.
        """
        was_still = self._stood_still(frame.pts)
        scenes = self.edge("stride", until=frame.pts) if was_still else []
        index = len(self.timeline)
        pts = self.timeline.add(frame.pts, frame.duration)
        if is_damaged:
            self._damaged.append(index)
        if num_bytes is not None:
            self._packets.append((index, num_bytes))
        if self._pace.add(pts):
            scenes += self._measured_waiting()
            self._finder.set_rate(self._pace.fps)
        picture_HWC = self._converted(frame).analysis_picture(frame)
        if index == self._first and not was_still and is_same_shot(self._picture, picture_HWC):
            self._cutter.go_on()
        self._waiting.append(Waiting(index, pts, frame, picture_HWC))
        return scenes + (
            self._measured_waiting() if len(self._waiting) >= self._most_waiting else []
        )

    def _measured_waiting(self) -> list[MeasuredScene]:
        """Measure the frames that wait; the scenes that are complete now."""
        waiting, self._waiting = self._waiting, []
        return [scene for each in waiting for scene in self._measured_frame(each)]

    def _measured_frame(self, waiting: Waiting) -> list[MeasuredScene]:
        """Measure one frame; the scenes that are complete now."""
        index, pts, frame = waiting.index, waiting.pts, waiting.frame
        picture_HWC = waiting.picture_HWC
        self._picture = picture_HWC
        self._freezes.push(index, picture_HWC)
        if self._sample_due.due(pts):
            self._sample(index, frame, picture_HWC)
        elif self._samples and self._samples[-1].index == index - 1 >= self._first:
            moment = self._flow.follow(index, self.timeline.seconds(index), luma(picture_HWC))
            if moment is not None:
                self._moments.append(moment)
        if self._candidate_due.due(pts):
            self._add_candidate(index, frame)
        self._before = frame
        found = self._of_the_film(self._finder.push(picture_HWC))
        settled = self._first + self._finder.settled
        return self._measured_all(self._cutter.advance(found, settled=settled))

    def _add_candidate(self, index: int, frame: Any) -> None:
        """Hold a frame for keyframes, after a look for combs."""
        conversion = self._converted(frame)
        self._fields.append(field_sample(index, frame, self._before))
        is_comb = self._fields[-1].is_comb
        shrink = conversion.candidate_of_one_field if is_comb else conversion.candidate
        self._candidates.add(Candidate(index, frame, shrink))

    def finish(self) -> list[MeasuredScene]:
        """The rest; there are no more frames."""
        scenes = self._measured_waiting()
        # The last frame's length is a guess of the container where its rate is.
        if self._pace.is_measured or self._stood_still(self.timeline.end_pts):
            self.timeline.interrupt(self._pace.length)
        return scenes + self._measured_all(self._cutter.edge(self._rest(), "end"))

    def _stood_still(self, pts: int | None) -> bool:
        """Whether the last frame is shown for longer than any scene may last."""
        times = self.timeline.pts
        return pts is not None and len(times) > 0 and pts - times[-1] > self._max_ticks

    def _rest(self) -> list[Transition]:
        """The last transitions of the stretch."""
        return self._of_the_film(self._finder.finish())

    def _of_the_film(self, found: list[Transition]) -> list[Transition]:
        """Transitions in frames of the film, where the finder counts those of its stretch."""
        if not self._first:
            return found
        return [
            replace(each, end=each.end + self._first, start=each.start + self._first)
            for each in found
        ]

    def _measured_all(self, scenes: list[Scene]) -> list[MeasuredScene]:
        return [self._measured(scene) for scene in scenes]

    def _converted(self, frame: Any) -> Conversion:
        """What makes pictures of the frames of this stretch, whose first says how."""
        if self._conversion is None:
            self._conversion = Conversion(
                frame,
                sample_aspect=self._shown.sample_aspect,
                orientation=self._shown.orientation,
                short_side_px=self._config.keyframes.short_side_px,
            )
            frame_bytes = sum(plane.buffer_size for plane in frame.planes)
            self._most_waiting = max(1, min(MOST_WAITING, MAX_WAITING_BYTES // frame_bytes))
        return self._conversion

    def _sample(self, index: int, frame: Any, picture_HWC: NDArray[np.uint8]) -> None:
        """Measure motion and picture statistics on this frame."""
        tile_HW = tile_of(frame, self._num_samples)
        self._num_samples += 1
        if tile_HW is not None:
            self._blurs.append((index, blur_effect(tile_HW)))
        luma_HW = luma(picture_HWC)
        self._samples.append(picture_sample(index, picture_HWC, luma_HW))
        pair = self._flow.push(index, self.timeline.seconds(index), luma_HW)
        if pair is not None:
            self._pairs.append(pair)

    def _measured(self, scene: Scene) -> MeasuredScene:
        """Gather what belongs to a scene; what lies before its end is let go."""
        samples = _taken(self._samples, scene, lambda each: each.index)
        pairs = [p for p in _taken(self._pairs, scene, lambda p: p.first) if p.second < scene.end]
        moments = [
            m for m in _taken(self._moments, scene, lambda m: m.first) if m.second < scene.end
        ]
        num_damaged = len(_taken(self._damaged, scene, lambda index: index))
        blurs = _taken(self._blurs, scene, lambda each: each[0])
        packets = _taken(self._packets, scene, lambda each: each[0])
        fields = _taken(self._fields, scene, lambda each: each.index)
        kind = interlacing(fields, start=scene.start)
        if kind != "progressive" and self._config.interlaced == "reject":
            scene = replace(scene, reject=scene.reject or "interlaced")
        num_wanted = 0 if scene.reject else self._config.keyframes.num
        assert self._conversion is not None, "a scene has frames"
        candidates = self._candidates.take(scene.start, scene.end, num_wanted=num_wanted)
        return MeasuredScene(
            scene=scene,
            start_pts=self.timeline.at(scene.start),
            end_pts=self.timeline.end(scene.end),
            start_s=self.timeline.seconds(scene.start),
            end_s=self.timeline.end_seconds(scene.end),
            size=self._shown.size,
            colour=self._conversion.colour.text,
            num_damaged_frames=num_damaged,
            interlacing=kind,
            measures=scene_motion(pairs)
            | scene_camera(
                [Moved(pair.first, pair.second, pair.camera) for pair in pairs],
                moments,
                self._conversion.size,
                self._shown.orientation,
            )
            | scene_picture(samples, self._conversion.size)
            | {
                "picture_area": self._picture_area(samples),
                "frozen_share": self._freezes.share(scene.start, scene.end),
                "blur": scene_blur([effect for _, effect in blurs]),
                "bits_per_pixel": self._bits_per_pixel(scene, [size for _, size in packets]),
            },
            keyframes=self._keyframes(candidates, self._conversion),
        )

    def _picture_area(self, samples: Sequence[PictureSample]) -> list[int] | None:
        """The part inside black bars; None without a sampled frame."""
        if not samples:
            return None
        assert self._conversion is not None, "there were frames"
        rims, shown = [each.rim for each in samples], self._shown
        return picture_area(rims, self._conversion.size, shown.size, shown.orientation)

    def _bits_per_pixel(self, scene: Scene, sizes: Sequence[int]) -> float | None:
        """Of the stored pictures; None where the packets of too many frames are not known."""
        if len(sizes) < MIN_KNOWN_PACKETS * (scene.end - scene.start):
            return None
        return 8 * sum(sizes) / (len(sizes) * self._shown.width * self._shown.height)

    def _keyframes(
        self, candidates: Sequence[Candidate], conversion: Conversion
    ) -> tuple[Keyframe, ...]:
        """Turn candidates upright and encode them; hashes are of what lies between black bars."""
        pictures = [conversion.keyframe(each.small()) for each in candidates]
        inside = inside_borders(pictures) if pictures else ()
        return tuple(
            Keyframe(
                data=jpeg(shown_HWC, quality=self._config.keyframes.jpeg_quality),
                time_s=self.timeline.seconds(candidate.index),
                hash=perceptual_hash(shown_HWC[inside]),
            )
            for candidate, shown_HWC in zip(candidates, pictures, strict=True)
        )
