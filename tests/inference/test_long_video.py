"""Long video: windows whose seams are measured, and clips that continue given frames."""

import numpy as np
import pytest
import torch

from inference.long_video import ContinuationPipeline, given_condition, sliding_windows
from inference.tiny import tiny_model

SMALL = {"num_inference_steps": 4, "output_type": "latent"}


@pytest.fixture
def continuation():
    pipeline = ContinuationPipeline.from_model(tiny_model("base", given_frames=True))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def seam(error_BCTHW, edges):
    """How much the error changes across the edges of windows, through how much elsewhere."""
    change = error_BCTHW.diff(dim=2).abs().transpose(0, 2).flatten(1).mean(1)
    across = torch.zeros(len(change), dtype=torch.bool)
    across[edges] = True
    return float(change[across].mean() / change[~across].mean())


def test_windows_blend_without_seams(tiny_pipeline, seeded):
    pipeline = tiny_pipeline("base", scheduler="ddim")
    given = {"height": 32, "width": 32, "num_frames": 24, "guidance_scale": 1.0} | SMALL
    noise = torch.randn(1, 4, 24, 4, 4, generator=seeded(2))
    whole = pipeline("a panda", latents=noise, **given).frames

    def windowed(overlap):
        windows = sliding_windows(8, overlap)
        return pipeline("a panda", latents=noise, windows=windows, **given).frames

    hard = seam(windowed(0) - whole, [7, 15])
    soft = seam(windowed(4) - whole, [3, 7, 11, 15, 19])
    assert hard > 1.1
    assert soft - 1 < (hard - 1) / 2


def test_windows_make_any_number_of_frames(tiny_pipeline, seeded):
    pipeline = tiny_pipeline("base")
    frames = pipeline(
        "a panda",
        height=16,
        width=16,
        num_frames=37,
        windows=sliding_windows(),
        generator=seeded(1),
        **(SMALL | {"num_inference_steps": 1}),
    ).frames
    assert frames.shape == (1, 4, 37, 2, 2)


def test_windows_longer_than_attention_reaches_are_refused(tiny_pipeline):
    with pytest.raises(ValueError, match="windows must be at most 32 frames long, got 40"):
        tiny_pipeline("base")("a panda", num_frames=50, windows=sliding_windows(40))


def test_the_condition_is_a_mask_and_the_given_latents():
    known = torch.randn(1, 4, 2, 3, 3)
    mask, latents = given_condition(known, 5).split([1, 4], dim=1)
    assert mask[0, 0, :, 0, 0].tolist() == [0, 0, 1, 1, 1]
    assert torch.equal(latents[:, :, :2], known)
    assert not latents[:, :, 2:].any()


def test_the_network_is_given_the_last_frame_of_the_clip_before(continuation, seeded, clip_THWC):
    seen = []
    continuation.unet.register_forward_pre_hook(lambda _m, args: seen.append(args[0][:1].clone()))
    out = continuation(
        "a panda", clip_THWC(frames=1), num_frames=9, clip_frames=5, generator=seeded(1), **SMALL
    ).frames
    assert out.shape == (1, 4, 9, 2, 3)
    first, second = seen[0], seen[4]
    for sample, given in ((first, out[:, :, 0]), (second, out[:, :, 4])):
        assert sample.shape == (1, 9, 5, 2, 3)
        assert sample[0, 4, :, 0, 0].tolist() == [0, 1, 1, 1, 1]
        assert torch.equal(sample[:, 5:, 0], given)
        assert not sample[:, 5:, 1:].any()


def test_given_frames_stay_the_beginning_of_the_result(continuation, seeded, clip_THWC):
    video = clip_THWC(frames=3)
    out = continuation(
        "a panda",
        video,
        num_frames=6,
        clip_frames=5,
        given_frames=2,
        generator=seeded(1),
        **(SMALL | {"output_type": "pt"}),
    ).frames
    frames = torch.from_numpy(video).permute(3, 0, 1, 2)[None] / 127.5 - 1
    latents = continuation.autoencoder.encode(frames, noise=seeded(1))
    expected = (continuation.autoencoder.decode(latents) / 2 + 0.5).clamp(0, 1)
    assert out.shape == (1, 6, 3, 16, 24)
    assert torch.allclose(out[:, :3].transpose(1, 2), expected, atol=1e-4)


def test_another_given_frame_gives_another_video(continuation, seeded, clip_THWC):
    video = clip_THWC(frames=1)
    first, other = (
        continuation("a panda", frame, num_frames=5, generator=seeded(1), **SMALL).frames
        for frame in (video, 255 - video)
    )
    assert not torch.allclose(first[:, :, 1:], other[:, :, 1:], atol=1e-3)


def test_each_clip_may_have_its_prompt(continuation, seeded, clip_THWC):
    given = {"num_frames": 9, "clip_frames": 5} | SMALL
    same, changed = (
        continuation(prompts, clip_THWC(frames=1), generator=seeded(1), **given).frames
        for prompts in (["a panda"], ["a panda", "snow"])
    )
    assert torch.allclose(same[:, :, :5], changed[:, :, :5])
    assert not torch.allclose(same[:, :, 5:], changed[:, :, 5:], atol=1e-3)


def test_nothing_given_starts_from_noise_alone(continuation, seeded):
    out = continuation(
        "a panda", num_frames=4, clip_frames=4, height=16, width=24, generator=seeded(1), **SMALL
    )
    assert out.frames.shape == (1, 4, 4, 2, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"clip_frames": 33}, "clip_frames must be 2 to 32, got 33"),
        ({"given_frames": 16}, r"given_frames must be 1 to clip_frames - 1 \(15\), got 16"),
        ({"num_frames": 0}, "num_frames must be at least 1, got 0"),
        ({"height": 20}, "height and width must be given together, got 20 and None"),
    ],
)
def test_bad_input_is_named_before_any_work(arguments, message, continuation):
    continuation.unet.register_forward_pre_hook(lambda *_: pytest.fail("the network was called"))
    with pytest.raises(ValueError, match=message):
        continuation("a panda", np.zeros((1, 16, 16, 3), np.uint8), **arguments)


def test_a_network_without_the_channels_is_refused():
    with pytest.raises(ValueError, match="9 input channels, trained with its first frame given"):
        ContinuationPipeline.from_model(tiny_model("base"))


def test_the_plain_pipeline_refuses_a_network_with_the_channels(tiny_pipeline):
    pipeline = tiny_pipeline("base", given_frames=True)
    with pytest.raises(ValueError, match="4 input channels to sample from text alone, got 9"):
        pipeline("a panda", height=16, width=16)
