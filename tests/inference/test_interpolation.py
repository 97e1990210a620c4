"""The interpolation pipeline: the release's conditioning, guidance and steps, by hand."""

import numpy as np
import pytest
import torch

from inference.interpolation import key_of_frame, num_frames_of
from inference.tiles import Tiling
from training.models.autoencoder import Autoencoder

A = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))  # alpha_bar of LaVie's schedule


def sampled(pipeline, video, prompt="a panda", **arguments):
    given = {"num_inference_steps": 3, "output_type": "latent"} | arguments
    return pipeline(prompt, video, **given).frames


def test_sixteen_key_frames_become_sixty_one_and_groups_are_shifted_by_one():
    keys = key_of_frame(16).tolist()
    assert num_frames_of(16) == len(keys) == 61
    # the release repeats each key four times and crops [1:-2]
    assert keys == np.repeat(np.arange(16), 4)[1:-2].tolist()
    assert [keys.index(k) for k in (1, 2, 15)] == [3, 7, 59]


@torch.no_grad()
def test_encoding_the_keys_alone_equals_encoding_every_frame(tiny_pipeline, seeded, clip_THWC):
    pipeline = tiny_pipeline("interpolation")
    ours = pipeline._condition(
        torch.from_numpy(clip_THWC(frames=16)).permute(3, 0, 1, 2)[None] / 127.5 - 1, seeded(1)
    )
    # the release: 61 frames i // 4, all encoded, every fourth kept, repeated and cropped
    frames = np.linspace(0, 15, 61).astype(int)
    assert frames.tolist() == [i // 4 for i in range(61)]
    every = torch.from_numpy(clip_THWC(frames=16)[frames]).permute(0, 3, 1, 2) / 127.5 - 1
    posterior = pipeline.vae.encode(every).latent_dist
    latents = posterior.mean + posterior.std * torch.randn(61, 4, 2, 3, generator=seeded(1))
    kept = (latents * 0.18215)[::4].repeat_interleave(4, dim=0)[1:-2]
    assert torch.allclose(ours[0].transpose(0, 1), kept, atol=1e-5)


@torch.no_grad()
def test_sampling_is_the_equations_step_by_step(tiny_pipeline, recorded, seeded, clip_THWC):
    pipeline = tiny_pipeline("interpolation")
    video = clip_THWC(frames=3)
    _, latents, times = recorded(
        pipeline,
        "a_panda",
        video,
        generator=seeded(5),
        output_type="latent",
        num_inference_steps=4,
        guidance_scale=4.0,
    )
    assert times == [999, 666, 333, 0]
    draws = seeded(5)
    frames = torch.from_numpy(video).permute(3, 0, 1, 2)[None] / 127.5 - 1
    autoencoder = Autoencoder(pipeline.vae)
    mean, std = autoencoder.encode_moments(frames)
    noise = torch.randn(1, 9, 4, 2, 3, generator=draws)[:, ::4].transpose(1, 2)
    condition = (0.18215 * (mean + std * noise))[:, :, [0, 0, 0, 1, 1, 1, 1, 2, 2]]
    x = torch.randn(1, 4, 9, 2, 3, generator=draws)
    tokens = pipeline.tokenizer(
        ["a_panda, 4k.", "None"], padding="max_length", max_length=77, return_tensors="pt"
    )
    positive, negative = pipeline.text_encoder(tokens.input_ids).last_hidden_state.split(1)
    for t, t_next, after in zip(times, [666, 333, 0, None], latents, strict=True):
        time = torch.tensor([int(t)])
        sample = torch.cat([x, condition], dim=1)
        cond = pipeline.unet(sample, time, positive).double().numpy()
        uncond = pipeline.unet(sample, time, negative).double().numpy()
        eps = uncond + 4.0 * (cond - uncond)
        a, a_prev = A[int(t)], 1.0 if t_next is None else A[t_next]
        x0 = (x.double().numpy() - np.sqrt(1 - a) * eps) / np.sqrt(a)
        expected = np.sqrt(a_prev) * x0 + np.sqrt(1 - a_prev) * eps
        assert np.abs(after.numpy() - expected).max() < 1e-4 * np.abs(expected).max()
        x = after


def test_prompt_rows_come_first(tiny_pipeline, clip_THWC):
    pipeline = tiny_pipeline("interpolation")
    seen = []
    pipeline.unet.register_forward_pre_hook(lambda _m, args: seen.append(args[2].clone()))
    sampled(pipeline, clip_THWC(frames=2))
    words = ["a panda, 4k.", "None"]
    tokens = pipeline.tokenizer(words, padding="max_length", max_length=77, return_tensors="pt")
    expected = pipeline.text_encoder(tokens.input_ids).last_hidden_state
    assert torch.allclose(seen[0], expected, atol=1e-6)


def test_the_frames_may_be_given_in_every_form(tiny_pipeline, seeded, clip_THWC):
    from PIL import Image

    pipeline = tiny_pipeline("interpolation")
    video = clip_THWC(frames=2)
    forms = [
        video,
        video[None],
        video.astype(np.float32) / 255,
        torch.from_numpy(video).permute(0, 3, 1, 2)[None] / 255,
        [Image.fromarray(frame) for frame in video],
        [[Image.fromarray(frame) for frame in video]],
    ]
    results = [sampled(pipeline, form, generator=seeded(1)) for form in forms]
    assert all(torch.allclose(result, results[0], atol=2e-3) for result in results)


def test_frames_are_scaled_where_a_size_is_asked_for(tiny_pipeline, clip_THWC):
    latents = sampled(
        tiny_pipeline("interpolation"), clip_THWC(frames=2, size=(30, 50)), height=16, width=32
    )
    assert latents.shape == (1, 4, 5, 2, 4)


def test_windows_take_more_key_frames(tiny_pipeline, clip_THWC):
    pipeline = tiny_pipeline("interpolation")
    windows = Tiling(frames=17, frame_overlap=4)
    latents = sampled(
        pipeline, clip_THWC(frames=18, size=(8, 8)), windows=windows, num_inference_steps=2
    )
    assert latents.shape[2] == 69
    assert torch.isfinite(latents).all()


@pytest.mark.parametrize(
    ("video", "message"),
    [
        (np.zeros((1, 16, 16, 3), np.uint8), "2 to 16 frames without windows, got 1"),
        (np.zeros((17, 16, 16, 3), np.uint8), "2 to 16 frames without windows, got 17"),
        (np.zeros((4, 15, 16, 3), np.uint8), "multiples of 8, got 15x16"),
        (np.zeros((4, 16, 16), np.uint8), r"video must be \[T, H, W, 3\]"),
        (np.zeros((2, 4, 16, 16, 3), np.uint8), "one video a prompt, got 2 for 1"),
        (np.full((4, 16, 16, 3), 2.0), "values 0 to 1, got 2.0 to 2.0"),
        (np.full((4, 16, 16, 3), np.nan), "values 0 to 1, got nan"),
        (np.zeros((4, 16, 16, 3), np.int64), "uint8 or floating point, got torch.int64"),
        (torch.zeros(4, 3, 16, 16), r"video must be \[B, T, 3, H, W\]"),
        ([], "at least one frame, got none"),
        ([np.zeros((8, 8, 3)), np.zeros((8, 16, 3))], "frames of one size"),
    ],
    ids=[
        "one-frame",
        "too-many",
        "size",
        "no-colour",
        "two-videos",
        "range",
        "nan",
        "integers",
        "four-axes",
        "empty",
        "two-sizes",
    ],
)
def test_bad_frames_are_named_before_any_work(video, message, tiny_pipeline):
    pipeline = tiny_pipeline("interpolation")
    pipeline.vae.encoder.register_forward_pre_hook(lambda *_: pytest.fail("frames were encoded"))
    with pytest.raises(ValueError, match=message):
        sampled(pipeline, video)
