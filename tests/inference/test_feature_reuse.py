"""Reuse of features between steps: what it saves and what it costs, on tiny networks."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from inference.feature_reuse import FeatureReuse
from inference.long_video import sliding_windows
from inference.tiles import Tiling

SMALL = {"height": 16, "width": 32, "num_frames": 2, "num_inference_steps": 8}


def sampled(pipeline, seeded, interval, **more):
    pipeline.enable_feature_reuse(interval)
    with FlopCounterMode(display=False) as counter:
        latents = pipeline(
            "a panda", generator=seeded(1), output_type="latent", **(SMALL | more)
        ).frames
    return latents, counter.get_total_flops()


def test_more_reuse_is_cheaper_and_farther_from_the_plain_video(tiny_pipeline, seeded):
    pipeline = tiny_pipeline("base", scheduler="ddim")
    results = {interval: sampled(pipeline, seeded, interval) for interval in (1, 2, 4)}
    plain, plain_flop = results[1]
    loss = {n: float((x - plain).norm() / plain.norm()) for n, (x, _) in results.items()}
    saved = {n: plain_flop / flop for n, (_, flop) in results.items()}
    assert loss[1] == 0
    assert 0 < loss[2] < loss[4] < 0.5
    assert saved[4] > saved[2] > 1.4


def test_windows_and_split_guidance_have_features_of_their_own(tiny_pipeline, seeded):
    pipeline = tiny_pipeline("base", scheduler="ddim")
    given = {"num_frames": 6, "num_inference_steps": 4, "windows": sliding_windows(4, 2)}
    together, _ = sampled(pipeline, seeded, 2, **given)
    pipeline.enable_guidance_splitting()
    split, _ = sampled(pipeline, seeded, 2, **given)
    assert torch.allclose(together, split, atol=2e-3)


def test_nothing_is_held_after_a_video(tiny_pipeline, seeded):
    pipeline = tiny_pipeline("base")
    sampled(pipeline, seeded, 3, num_inference_steps=2)
    assert pipeline._reuse._held == []


def test_features_of_many_tiles_are_refused(tiny_pipeline, clip_THWC):
    pipeline = tiny_pipeline("super_resolution")
    pipeline.enable_feature_reuse(2)
    with pytest.raises(ValueError, match="feature reuse keeps features of every tile, 3 here"):
        pipeline("a", clip_THWC(frames=8, size=(8, 8)), tiling=Tiling(frames=4, frame_overlap=2))


def test_an_interval_counts_steps():
    reuse = FeatureReuse(2)
    held = []
    for step in range(4):
        reuse.begin_step(step)
        held.append([reuse.of_next_call(), reuse.of_next_call()])
    assert held[0][0] is held[1][0]
    assert held[0][1] is held[1][1]
    assert held[0][0] is not held[0][1]
    assert held[2][0] is not held[0][0]
    with pytest.raises(ValueError, match="interval must be at least 1, got 0"):
        FeatureReuse(0)
