"""Transitions by PySceneDetect's detectors and by a test for dissolves, on one stream of pictures.

The rules, none of which was set by looking at a film's result:

1. Every frame has PySceneDetect's content score against the frame before. It is computed once and
   given to both `ContentDetector` and `AdaptiveDetector`; what either reports is a *hit*.
2. Hits closer together than ``flash_s`` are one *burst*. If the picture before the burst comes back
   within ``flash_s`` after it, the burst was a flash and is dropped. Else it is one cut: all of the
   burst where it is short (frames between two hits belong to neither shot), its strongest hit where
   it is long (fast motion).
3. Black (`ThresholdDetector`) between two shots belongs to neither; black that is long enough for a
   scene is one.
4. A dissolve is a stretch of frames that are weighted means of its two ends, with a weight that
   rises evenly (the production model of Hampapur, Jain and Weymouth, 1994); the ends do not
   correlate, and just before and after it the picture changes at most half as fast.
5. Transitions closer than ``flash_s`` are one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curation.decode.scenes import SceneConfig, Transition

ADAPTIVE_WINDOW = 2
"""Frames on each side that AdaptiveDetector compares with: PySceneDetect's default, and its
delay."""
MAX_GREY_CHROMA = 4.0
"""Mean of max(R,G,B) - min(R,G,B), 0..255, below which a picture is grey: coding a grey film in colour
leaves 1 to 2, a colour film that looks washed out has over 10."""
MIN_GREY_VALUE = 32.0
"""Mean of max(R,G,B) below which a picture is dark rather than grey."""
KINDS = ("cut", "dissolve", "fade")
RETURNED = 0.5
"""A picture counts as come back if it differs from the one before the burst by less than this share
of the burst's own change, half way between "the same picture" and "as different as the flash", and
by less than ContentDetector's threshold (a flash on a cut changes more than the cut)."""


def content_score(before_HWC: NDArray[np.uint8], after_HWC: NDArray[np.uint8]) -> float:
    """PySceneDetect's content score: mean absolute change of hue, saturation and value, 0..255.

    The same number as `ContentDetector` computes with its default weights (1, 1, 1, 0), at a third
    of the time. Between two pictures without colour it is the change of value alone (weights 0, 0, 1, 0,
    PySceneDetect's ``luma_only``): of a black-and-white film the other two are nothing, or noise in every
    frame, and a third of the change of value stays under the thresholds at nearly every cut.

    Args:
        before_HWC: HSV as OpenCV has it, uint8 ``[H, W, 3]``.
        after_HWC: the picture compared with it.
    """
    import cv2

    if is_grey(after_HWC) and is_grey(before_HWC):
        before_HW, after_HW = cv2.extractChannel(before_HWC, 2), cv2.extractChannel(after_HWC, 2)
        return float(cv2.norm(before_HW, after_HW, cv2.NORM_L1)) / before_HW.size
    return float(cv2.norm(before_HWC, after_HWC, cv2.NORM_L1)) / before_HWC.size


def is_grey(hsv_HWC: NDArray[np.uint8]) -> bool:
    """Whether a picture has no colour to speak of, by every eighth pixel each way.

    Dark ones are not called grey: there noise decides, and its changes should not count three times.
    """
    few_HWC = hsv_HWC[::8, ::8]
    value_N = few_HWC[..., 2].ravel()
    num = len(value_N)
    if np.add.reduce(value_N, dtype=np.int64) < MIN_GREY_VALUE * num:
        return False
    # Whole numbers of this size are exact in float64, of which NumPy has a fast product.
    chroma = few_HWC[..., 1].ravel().astype(np.float64) @ value_N.astype(np.float64)
    return bool(chroma < MAX_GREY_CHROMA * 255 * num)


def _given_score(detector: type[Any]) -> type[Any]:
    """A PySceneDetect detector that is fed the content score instead of a picture."""

    class Given(detector):
        def _calculate_frame_score(self, timecode: Any, frame_img: float) -> float:
            return frame_img

    return Given


class SceneDetectFinder:
    """Hard cuts, fades and dissolves; see the module's docstring for the rules.

    Args:
        config: thresholds.
        fps: frame rate at the start, by which times in ``config`` become frames.
    """

    def __init__(self, config: SceneConfig, fps: Fraction) -> None:
        from scenedetect.detectors import AdaptiveDetector, ContentDetector, ThresholdDetector

        # Minimum scene lengths are ours to keep (`SceneCutter`), so the detectors report
        # everything.
        self._content = _given_score(ContentDetector)(config.content_threshold, min_scene_len=0)
        self._adaptive = _given_score(AdaptiveDetector)(
            config.adaptive_threshold,
            min_scene_len=0,
            window_width=ADAPTIVE_WINDOW,
            min_content_val=config.adaptive_min_content,
        )
        # Bias -1 puts the cut where black begins; it is reported where black ends.
        self._fade = ThresholdDetector(config.fade_threshold, min_scene_len=0, fade_bias=-1.0)
        self._config = config
        self._fps = fps
        self._flash, self._min_black = self._windows(fps)
        self._dissolves = Dissolves(fps) if config.dissolves else None
        self._bursts = Bursts(self._flash, config.content_threshold)
        self._num_frames = 0
        self._previous: NDArray[np.uint8] | None = None
        self._found: list[Transition] = []
        self._black: bool | None = None
        self._settled = 0

    @property
    def settled(self) -> int:
        """No transition that is still to be reported begins before this frame."""
        return self._settled

    def _certain(self) -> int:
        """What is not found yet begins at this frame or later."""
        # One merging distance earlier than anything that may still be found: it could join a
        # neighbour.
        open_starts = [self._bursts.settled(self._num_frames)]
        if self._fade.last_fade["type"] == "out":
            open_starts.append(self._fade.last_fade["frame"].frame_num)
        if self._dissolves is not None:
            open_starts.append(self._dissolves.settled)
        return min(open_starts) - self._flash

    def _windows(self, fps: Fraction) -> tuple[int, int]:
        """Frames of a flash and of black that is a scene."""
        return tuple(  # type: ignore[return-value]
            max(1, round(seconds * fps)) for seconds in (self._config.flash_s, self._config.min_s)
        )

    def set_rate(self, fps: Fraction) -> None:
        """From here on frames come at another rate: what is meant in seconds is as many more."""
        self._flash, self._min_black = self._windows(fps)
        self._bursts.set_flash(self._flash)
        if self._dissolves is not None:
            self._found += self._dissolves.finish()
            self._dissolves = Dissolves(fps, first=self._num_frames)

    def push(self, picture_HWC: NDArray[np.uint8]) -> list[Transition]:
        """Take the next frame's analysis picture (BGR); report what has become certain."""
        import cv2

        index = self._num_frames
        self._num_frames += 1
        hsv_HWC: Any = cv2.cvtColor(picture_HWC, cv2.COLOR_BGR2HSV)
        score = 0.0 if self._previous is None else content_score(self._previous, hsv_HWC)
        self._previous = hsv_HWC
        self._bursts.add_frame(index, hsv_HWC, score)
        # The detectors count in frames, so that nothing depends on an even frame rate; as they only
        # subtract and compare, a plain number does (a FrameTimecode costs 10 microseconds a step).
        for hit in self._content.process_frame(index, score):
            self._bursts.add_hit(hit)
        for hit in self._adaptive.process_frame(index, score):
            self._bursts.add_hit(hit)
        self._found += self._bursts.resolve(index)
        self._add_fades(index, picture_HWC)
        if self._dissolves is not None:
            self._found += self._dissolves.push(index, picture_HWC)
        certain = self._certain()
        ready = self._release(certain) if self._found else []
        self._settled = min([certain, *(transition.end for transition in self._found)])
        return ready

    def finish(self) -> list[Transition]:
        """Report the rest; there are no more frames."""
        self._found += self._bursts.resolve(None)
        if self._fade.last_fade["type"] == "out":
            start = self._fade.last_fade["frame"].frame_num
            if start > 0:
                self._found.append(Transition(start, start, "fade"))
        if self._dissolves is not None:
            self._found += self._dissolves.finish()
        return self._release(self._num_frames + self._flash)

    def _add_fades(self, index: int, picture_HWC: NDArray[np.uint8]) -> None:
        """Black that ends with this frame."""
        import cv2
        from scenedetect import FrameTimecode

        level = sum(cv2.mean(picture_HWC)[:3]) / 3
        black = level < self._fade.threshold
        if black == self._black:
            return  # ThresholdDetector looks at nothing but crossings
        self._black = black
        for cut in self._fade.process_frame(FrameTimecode(index, self._fps), np.float64(level)):
            self._add_black(cut.frame_num, index)

    def _add_black(self, black: int, light: int) -> None:
        """Frames ``[black, light)`` are black and the next one is not."""
        if black > 0 and light - black < self._min_black:
            self._found.append(Transition(black, light, "fade"))
            return
        edges = [black, light] if black > 0 else [light]
        self._found += [Transition(edge, edge, "fade") for edge in edges]

    def _release(self, settled: int) -> list[Transition]:
        """Those that nothing still to come can touch, neighbours joined, in order."""
        joined = join(self._found, gap=self._flash)
        ready = [transition for transition in joined if transition.start < settled]
        self._found = joined[len(ready) :]
        return ready


def join(transitions: Sequence[Transition], *, gap: int) -> list[Transition]:
    """Transitions in order, those that touch or lie at most ``gap`` frames apart made one.

    The joined one spans both; a fade names it before a dissolve, a dissolve before a cut.

    >>> join([Transition(30, 40, "fade"), Transition(29, 29)], gap=6)
    [Transition(end=29, start=40, kind='fade')]
    """
    joined: list[Transition] = []
    for transition in sorted(transitions):
        if not joined or transition.end - joined[-1].start > gap:
            joined.append(transition)
            continue
        last = joined[-1]
        kind = max(last.kind, transition.kind, key=KINDS.index)
        joined[-1] = Transition(last.end, max(last.start, transition.start), kind)
    return joined


class Bursts:
    """Groups hits of the detectors and tells cuts from flashes (rule 2).

    Args:
        flash: frames within which a picture that comes back makes a burst a flash.
        same_shot: content score below which two pictures may be of one shot.
    """

    def __init__(self, flash: int, same_shot: float) -> None:
        self._same_shot = same_shot
        self._hits: list[int] = []
        self._before: NDArray[np.uint8] | None = None
        self._recent: deque[tuple[int, NDArray[np.uint8], float]] = deque()
        self._scores: dict[int, float] = {}
        self.set_flash(flash)

    def set_flash(self, flash: int) -> None:
        """Frames that count from here on."""
        self._flash = flash
        self._delay = max(flash, ADAPTIVE_WINDOW) + 1
        self._recent = deque(self._recent, maxlen=2 * self._delay + ADAPTIVE_WINDOW + 2)

    def settled(self, num_frames: int) -> int:
        """No cut that is still to be reported lies before this frame."""
        return min(self._hits) if self._hits else num_frames - ADAPTIVE_WINDOW - 1

    def add_frame(self, index: int, hsv_HWC: NDArray[np.uint8], score: float) -> None:
        """Take the next frame: HSV picture and content score against the frame before."""
        self._recent.append((index, hsv_HWC, score))

    def add_hit(self, index: int) -> None:
        """A detector says that a shot begins with this frame (one of the last few)."""
        if index == 0 or index in self._scores:
            return
        place = index - self._recent[0][0]
        # AdaptiveDetector reports late: its hit may lie before one of ContentDetector's.
        if not self._hits or index < min(self._hits):
            self._before = self._recent[place - 1][1]
        self._hits.append(index)
        self._scores[index] = self._recent[place][2]

    def resolve(self, index: int | None) -> list[Transition]:
        """The burst as a cut, or nothing: it is still open, there is none, or it was a flash.

        Args:
            index: the newest frame; None after the last one.
        """
        if not self._hits or (index is not None and index < max(self._hits) + self._delay):
            return []
        hits, scores = sorted(self._hits), self._scores
        self._hits, self._scores = [], {}
        if self._came_back(hits[-1], max(scores.values())):
            return []
        if hits[-1] - hits[0] <= self._flash:
            return [Transition(hits[0], hits[-1])]
        strongest = max(hits, key=lambda hit: scores[hit])
        return [Transition(strongest, strongest)]

    def _came_back(self, last_hit: int, change: float) -> bool:
        """Whether a picture from ``last_hit`` on looks like the one before the burst."""
        assert self._before is not None
        after = [hsv for index, hsv, _ in self._recent if index >= last_hit][: self._flash + 1]
        limit = min(RETURNED * change, self._same_shot)
        return any(content_score(self._before, hsv) < limit for hsv in after)


class Dissolves:
    """Finds stretches of frames that are blends of their two ends (rule 4).

    Pictures are reduced to 32x18 pixels, about 12 times a second; blur and thinning make
    motion inside the two shots count less.

    Args:
        fps: frame rate.
        first: number of the first frame.
    """

    SIZE = (32, 18)
    LENGTHS_S = (0.5, 0.67, 0.9, 1.2, 1.6, 2.1, 2.8)
    """Lengths that are tried; one between two of them is found by the longer."""
    OUTSIDE_S = 0.25
    """How long before and after it the picture is looked at."""
    MAX_OUTSIDE = 1.0
    """Speed of change there over the speed inside: a dissolve changes more than its shots."""
    RATE = 12
    MIN_CHANGE = 15.0
    """Root mean square change between the mean-free ends, 0..255; AdaptiveDetector's minimum."""
    MIN_CONTRAST = 5.0
    """An end with a smaller standard deviation is a plain field: a fade, not a dissolve."""
    MAX_CORRELATION = 0.5
    """Ends that correlate more are the same shot: light that changes, a slow pan or zoom."""
    MAX_RESIDUAL = 1 / 18
    """Mean squared distance of the frames between from the blend, over that of the ends. A blend
    loses contrast in its middle; motion that keeps the contrast has the mean of w (1 - w), 1/6: the
    limit is a third of it."""
    MAX_UNEVENNESS = 0.2
    """Largest distance of the weights from an even rise. A hard cut in the middle has 0.5; a window
    longer than the dissolve by a third, 0.17."""

    def __init__(self, fps: Fraction, *, first: int = 0) -> None:
        self._step = max(1, round(fps / self.RATE))
        rate = float(fps) / self._step
        self._lengths = sorted({max(4, round(length * rate)) for length in self.LENGTHS_S})
        # Mean-free, so that light that changes does not count; through the root of their number, so
        # that a product of two is their covariance.
        self._outside = max(1, round(self.OUTSIDE_S * rate))
        self._small: deque[NDArray[np.float32]] = deque(
            maxlen=self._lengths[-1] + 1 + 2 * self._outside
        )
        self._newest = first
        self._open: tuple[int, int] | None = None

    @property
    def settled(self) -> int:
        """No dissolve that is still to be reported begins before this frame."""
        earliest = self._newest - (self._lengths[-1] + 1 + self._outside) * self._step
        return earliest if self._open is None else min(earliest, self._open[0])

    def push(self, index: int, picture_HWC: NDArray[np.uint8]) -> list[Transition]:
        """Take the next frame (BGR); a dissolve that is over, if there is one."""
        import cv2

        if index % self._step:
            return []
        self._newest = index
        small_HWC = cv2.resize(picture_HWC, self.SIZE, interpolation=cv2.INTER_AREA)
        mean_C = np.array(cv2.mean(small_HWC)[:3], np.float32)
        small_N = (small_HWC - mean_C).reshape(-1)
        self._small.append(small_N * np.float32(len(small_N) ** -0.5))
        last = index - self._outside * self._step
        for length in self._lengths:
            if self._is_dissolve(length):
                first = last - length * self._step
                self._open = (first if self._open is None else min(first, self._open[0]), last)
                break
        # Over when two windows in a row have not hit.
        if self._open is not None and last - self._open[1] > 2 * self._step:
            return self.finish()
        return []

    def finish(self) -> list[Transition]:
        """The dissolve that is open, if there is one."""
        done, self._open = self._open, None
        return [] if done is None else [Transition(done[0] + 1, done[1], "dissolve")]

    def _is_dissolve(self, length: int) -> bool:
        """Whether the ``length`` steps that end a quarter of a second ago are a dissolve."""
        outside = self._outside
        if len(self._small) < length + 1 + 2 * outside:
            return False
        last_N, first_N = self._small[-1 - outside], self._small[-1 - outside - length]
        variances = float(first_N @ first_N), float(last_N @ last_N)
        covariance = float(first_N @ last_N)
        squared = sum(variances) - 2 * covariance  # the squared distance of the two
        if (
            squared < self.MIN_CHANGE**2
            or min(variances) < self.MIN_CONTRAST**2
            or covariance > self.MAX_CORRELATION * (variances[0] * variances[1]) ** 0.5
        ):
            return False
        calm = squared * (self.MAX_OUTSIDE * outside / length) ** 2
        before_N = first_N - self._small[-1 - outside - length - outside]
        after_N = self._small[-1] - last_N
        if float(before_N @ before_N) > calm or float(after_N @ after_N) > calm:
            return False
        return self._is_blend(length, squared)

    def _is_blend(self, length: int, squared: float) -> bool:
        """Whether the pictures between lead evenly from the first to the last."""
        ends = -1 - self._outside - length, -1 - self._outside
        first_N, last_N = self._small[ends[0]], self._small[ends[1]]
        way_N = last_N - first_N
        between = [self._small[place] for place in range(ends[0] + 1, ends[1])]
        between_TN = np.stack(between) - first_N
        weights_T = between_TN @ way_N / squared
        even_T = np.arange(1, length, dtype=np.float32) / length
        if float(np.abs(weights_T - even_T).max()) > self.MAX_UNEVENNESS:
            return False
        off_TN = between_TN - weights_T[:, None] * way_N
        return float((off_TN**2).sum(axis=1).mean()) <= self.MAX_RESIDUAL * squared
