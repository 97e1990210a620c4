"""Transitions by PySceneDetect's detectors and by tests of what lies between, on one stream of pictures.

1. Every frame has PySceneDetect's content score against the frame before. It is computed once and
   given to both `ContentDetector` and `AdaptiveDetector`; what either reports is a *hit*.
2. A hit is a cut, unless movement of the camera or light explains it, or the picture before it
   comes back within ``flash_s`` behind frames without contrast (`curation.decode.hard_cuts`). Hits of
   neighbouring frames are one cut; what lies between two others is a shot, however short.
3. A plain picture (black, white, any colour) between two shots belongs to neither, and so do the
   ramps that lead there and back; one that is long enough for a scene is one
   (`curation.decode.fades`).
4. Two shots that are mixed in one picture, or lie side by side in it, are a dissolve or a wipe
   (`curation.decode.gradual`).
5. Transitions within ``flash_s`` of a gradual one are part of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curation.decode.bars import Bars
from curation.decode.fades import Fades
from curation.decode.gradual import HEIGHT, WIDTH, Gradual
from curation.decode.hard_cuts import NEAR, HardCuts
from curation.decode.scenes import SceneConfig, Transition

ADAPTIVE_WINDOW = 2
"""Frames on each side that AdaptiveDetector compares with: PySceneDetect's default, and its
delay."""
MAX_GREY_CHROMA = 4.0
"""Mean of max(R,G,B) - min(R,G,B), 0..255, below which a picture is grey: coding a grey film in colour
leaves 1 to 2, a colour film that looks washed out has over 10."""
MIN_GREY_VALUE = 32.0
"""Mean of max(R,G,B) below which a picture is dark rather than grey."""
GREY_CONTRAST = 24.0
"""Standard deviation of value under which the change of a grey picture is scaled up: two shots of one mean
and a deviation of 13 differ by 15, the least that AdaptiveDetector takes for a cut, flatter ones by less. Of
42 cuts of a cartoon made grey and five times as flat, 41 are found so, and one without."""
LEAST_GREY_CHANGE = 4.0
"""Change of value, and contrast, that is not scaled up any further: coding and grain stay under it."""
KINDS = ("cut", "wipe", "dissolve", "fade")
EVERYWHERE = (slice(None), slice(None))
SMALL = (WIDTH, HEIGHT)
"""Size of the pictures in which gradual transitions are looked for."""


def content_score(before_HWC: NDArray[np.uint8], after_HWC: NDArray[np.uint8]) -> float:
    """PySceneDetect's content score: mean absolute change of hue, saturation and value, 0..255.

    The same number as `ContentDetector` computes with its default weights (1, 1, 1, 0), at a third
    of the time. Between two pictures without colour it is the change of value alone (weights 0, 0, 1, 0,
    PySceneDetect's ``luma_only``), scaled up where both
    are flat: of a black-and-white film the other two are nothing, or noise in every
    frame, and a third of the change of value stays under the thresholds at nearly every cut.

    Args:
        before_HWC: HSV as OpenCV has it, uint8 ``[H, W, 3]``.
        after_HWC: the picture compared with it.
    """
    import cv2

    if is_grey(after_HWC) and is_grey(before_HWC):
        before_HW, after_HW = cv2.extractChannel(before_HWC, 2), cv2.extractChannel(after_HWC, 2)
        change = float(cv2.norm(before_HW, after_HW, cv2.NORM_L1)) / before_HW.size
        if change < LEAST_GREY_CHANGE:
            return change
        contrast = max(float(cv2.meanStdDev(each)[1][0, 0]) for each in (before_HW, after_HW))
        return change * max(1.0, GREY_CONTRAST / max(contrast, LEAST_GREY_CHANGE))
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
    """Hard cuts, fades, dissolves and wipes; see the module's docstring for the rules.

    Args:
        config: thresholds.
        fps: frame rate at the start, by which times in ``config`` become frames.
    """

    def __init__(self, config: SceneConfig, fps: Fraction) -> None:
        from scenedetect.detectors import AdaptiveDetector, ContentDetector

        # Minimum scene lengths are ours to keep (`SceneCutter`), so the detectors report
        # everything.
        self._content = _given_score(ContentDetector)(config.content_threshold, min_scene_len=0)
        self._adaptive = _given_score(AdaptiveDetector)(
            config.adaptive_threshold,
            min_scene_len=0,
            window_width=ADAPTIVE_WINDOW,
            min_content_val=config.adaptive_min_content,
        )
        self._config = config
        self._flash, min_scene = self._windows(fps)
        self._cuts = HardCuts(self._flash, lateness=ADAPTIVE_WINDOW)
        self._fades = Fades(config.fade_threshold, fps, flash=self._flash, min_scene=min_scene)
        self._gradual = Gradual(fps) if config.dissolves else None
        self._bars = Bars()
        self._num_frames = 0
        self._previous: NDArray[np.uint8] | None = None
        self._found: list[Transition] = []
        self._settled = 0

    @property
    def settled(self) -> int:
        """No transition that is still to be reported begins before this frame."""
        return self._settled

    def _certain(self) -> int:
        """What is not found yet begins at this frame or later."""
        # One merging distance earlier than anything that may still be found: it could join a
        # neighbour.
        open_starts = [
            self._cuts.settled(self._num_frames),
            self._fades.settled(self._num_frames),
        ]
        if self._gradual is not None:
            open_starts.append(self._gradual.settled)
        return min(open_starts) - self._flash

    def _windows(self, fps: Fraction) -> tuple[int, int]:
        """Frames of a flash and of black that is a scene."""
        return tuple(  # type: ignore[return-value]
            max(1, round(seconds * fps)) for seconds in (self._config.flash_s, self._config.min_s)
        )

    def set_rate(self, fps: Fraction) -> None:
        """From here on frames come at another rate: what is meant in seconds is as many more."""
        self._flash, min_scene = self._windows(fps)
        self._cuts.set_flash(self._flash)
        self._fades.set_rate(fps, flash=self._flash, min_scene=min_scene)
        if self._gradual is not None:
            self._restart(fps)

    def _restart(self, fps: Fraction) -> None:
        """Look for gradual transitions anew: what comes cannot be compared with what was."""
        assert self._gradual is not None, "it is looked for"
        self._found += self._gradual.finish()
        self._gradual = Gradual(fps, first=self._num_frames)

    def push(self, picture_HWC: NDArray[np.uint8]) -> list[Transition]:
        """Take the next frame's analysis picture (BGR); report what has become certain."""
        import cv2

        index = self._num_frames
        self._num_frames += 1
        hsv_HWC: Any = cv2.cvtColor(picture_HWC, cv2.COLOR_BGR2HSV)
        if self._bars.push(picture_HWC) and self._gradual is not None:
            self._restart(self._gradual.fps)
        area = self._bars.area or EVERYWHERE
        before_HWC, self._previous = self._previous, hsv_HWC
        score = 0.0 if before_HWC is None else content_score(before_HWC[area], hsv_HWC[area])
        self._cuts.add_frame(hsv_HWC)
        # The detectors count in frames, so that nothing depends on an even frame rate; as they only
        # subtract and compare, a plain number does (a FrameTimecode costs 10 microseconds a step).
        for hit in self._content.process_frame(index, score):
            self._cuts.add_hit(hit)
        for hit in self._adaptive.process_frame(index, score):
            self._cuts.add_hit(hit)
        self._add_cuts(self._cuts.resolve(index))
        small_HWC: Any = cv2.resize(picture_HWC[area], SMALL, interpolation=cv2.INTER_AREA)
        self._found += self._fades.push(index, small_HWC)
        if self._gradual is not None:
            self._found += self._gradual.push(index, small_HWC)
        certain = self._certain()
        ready = self._release(certain) if self._found else []
        self._settled = min([certain, *(transition.end for transition in self._found)])
        return ready

    def finish(self) -> list[Transition]:
        """Report the rest; there are no more frames."""
        self._add_cuts(self._cuts.resolve(None))
        self._found += self._fades.finish()
        if self._gradual is not None:
            self._found += self._gradual.finish()
        return self._release(self._num_frames + self._flash)

    def _add_cuts(self, cuts: list[Transition]) -> None:
        """Take cuts that are certain; no ramp of a fade reaches over them."""
        for cut in cuts:
            self._fades.add_edge(cut.start)
        self._found += cuts

    def _release(self, settled: int) -> list[Transition]:
        """Those that nothing still to come can touch, neighbours joined, in order."""
        joined = join(self._found, gap=self._flash)
        ready = [transition for transition in joined if transition.start < settled]
        self._found = joined[len(ready) :]
        return ready


def join(transitions: Sequence[Transition], *, gap: int) -> list[Transition]:
    """Transitions in order, those that overlap made one, and others within ``gap`` frames of a gradual one.

    The joined one spans both; a fade names it before a dissolve, a dissolve before a cut. Two cuts stay
    two, however close: what lies between them is a shot.

    >>> [(each.end, each.start) for each in join([Transition(30, 40, "fade"), Transition(29, 29)], gap=6)]
    [(29, 40)]
    """
    joined: list[Transition] = []
    for transition in sorted(transitions):
        if not joined:
            joined.append(transition)
            continue
        last = joined[-1]
        kind = max(last.kind, transition.kind, key=KINDS.index)
        if transition.end - last.start > (NEAR if kind == "cut" else gap):
            joined.append(transition)
            continue
        sure = max(last.confidence or 0.0, transition.confidence or 0.0)
        joined[-1] = Transition(last.end, max(last.start, transition.start), kind, sure)
    return joined
