"""CLIPSIM, against open_clip asked directly, a frame at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from inference.evaluate.clipsim import FRAMES_AT_ONCE, ClipScorer

CAPTION = "a panda drinking coffee"


def test_clipsim_is_the_mean_of_the_cosines_that_open_clip_gives(
    tiny_clip_folder: Path, tiny_scorer: ClipScorer, noise_frames: Callable[..., np.ndarray]
) -> None:
    import open_clip
    import torch
    from PIL import Image

    frames_THWC = noise_frames(0)
    name = f"local-dir:{tiny_clip_folder}"
    model, preprocess = open_clip.create_model_from_pretrained(name)
    text = model.encode_text(open_clip.get_tokenizer(name)([CAPTION]))[0].detach()
    cosines = []
    for frame_HWC in frames_THWC:
        with torch.inference_mode():
            image = model.eval().encode_image(preprocess(Image.fromarray(frame_HWC))[None])[0]
        cosines.append(float(image @ text / (image.norm() * text.norm())))
    assert tiny_scorer.clipsim(frames_THWC, CAPTION) == pytest.approx(np.mean(cosines), abs=1e-5)


def test_the_order_of_frames_does_not_matter(
    tiny_scorer: ClipScorer, noise_frames: Callable[..., np.ndarray]
) -> None:
    frames_THWC = noise_frames(1)
    forwards = tiny_scorer.clipsim(frames_THWC, CAPTION)
    assert tiny_scorer.clipsim(frames_THWC[::-1], CAPTION) == pytest.approx(forwards, abs=1e-6)


def test_a_long_video_is_the_mean_over_all_its_frames(
    tiny_scorer: ClipScorer, noise_frames: Callable[..., np.ndarray]
) -> None:
    frames_THWC = np.concatenate([noise_frames(2, FRAMES_AT_ONCE), noise_frames(3, 3)])
    single = [tiny_scorer.clipsim(frame[None], CAPTION) for frame in frames_THWC]
    assert tiny_scorer.clipsim(frames_THWC, CAPTION) == pytest.approx(np.mean(single), abs=1e-6)
