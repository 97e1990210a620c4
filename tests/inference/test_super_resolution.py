"""The super-resolution pipeline: the release's pieces by hand, and tiles with measured seams."""

import numpy as np
import pytest
import torch

from inference.tiles import Tiling

A = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))  # alpha_bar of the latents
LOW_A = np.cumprod(1 - np.linspace(1e-4**0.5, 0.02**0.5, 1000) ** 2)  # of the low-res frames
INDEPENDENT = Tiling(frame_overlap=0)


def enlarged(pipeline, video, **arguments):
    given = {"num_inference_steps": 2, "output_type": "latent"} | arguments
    return pipeline("a panda", video, **given).frames


@torch.no_grad()
def test_independent_pieces_are_the_equations_step_by_step(
    tiny_pipeline, recorded, seeded, clip_THWC
):
    pipeline = tiny_pipeline("super_resolution")
    video = clip_THWC(frames=10, size=(8, 8))
    output, latents, times = recorded(
        pipeline,
        "a_panda",
        video,
        generator=seeded(10),
        num_inference_steps=4,
        guidance_scale=5.0,
        output_type="latent",
        tiling=INDEPENDENT,
    )
    assert times == [751, 501, 251, 1] * 2
    tokens = pipeline.tokenizer(
        ["blur, worst quality", "a_panda"], padding="max_length", max_length=77, return_tensors="pt"
    )
    negative, positive = pipeline.text_encoder(tokens.input_ids).last_hidden_state.split(1)
    frames = torch.from_numpy(video).permute(3, 0, 1, 2)[None] / 127.5 - 1
    level = torch.tensor([50])
    draws = seeded(10)  # one generator, carried from piece to piece
    noted = iter(latents)
    for piece in frames.split(8, dim=2):
        n = torch.randn(piece.shape, generator=draws)
        low = (np.sqrt(LOW_A[50]) * piece + np.sqrt(1 - LOW_A[50]) * n).float()
        x = torch.randn(1, 4, *piece.shape[2:], generator=draws)
        for t in (751, 501, 251, 1):
            sample, time = torch.cat([x, low], dim=1), torch.tensor([t])
            uncond, cond = (
                pipeline.unet(sample, time, text, noise_level_B=level).double().numpy()
                for text in (negative, positive)
            )
            v = uncond + 5.0 * (cond - uncond)
            now = x.double().numpy()
            a, a_prev = A[t], A[t - 250] if t > 1 else A[0]
            x0 = np.sqrt(a) * now - np.sqrt(1 - a) * v
            eps = np.sqrt(a) * v + np.sqrt(1 - a) * now
            expected = np.sqrt(a_prev) * x0 + np.sqrt(1 - a_prev) * eps
            x = next(noted)
            assert np.abs(x.numpy() - expected).max() < 1e-4 * np.abs(expected).max()
    assert torch.equal(output.frames[:, :, 8:], x)
    assert next(noted, None) is None


def test_an_interruption_ends_the_pieces_that_follow(tiny_pipeline, clip_THWC):
    def stop(pipe, _step, _time, tensors):
        pipe.interrupt = True
        return tensors

    pipeline = tiny_pipeline("super_resolution")
    video = clip_THWC(frames=5, size=(8, 8))
    tiling = Tiling(frames=2, frame_overlap=0)
    assert enlarged(pipeline, video, tiling=tiling, callback_on_step_end=stop).shape[2] == 2


def test_a_short_clip_is_one_piece_under_the_default_tiling(tiny_pipeline, seeded, clip_THWC):
    pipeline = tiny_pipeline("super_resolution")
    video = clip_THWC(frames=3, size=(8, 8))
    assert torch.equal(
        enlarged(pipeline, video, generator=seeded(1)),
        enlarged(pipeline, video, generator=seeded(1), tiling=INDEPENDENT),
    )


def test_noise_of_a_frame_does_not_depend_on_the_length_of_the_video(tiny_pipeline, seeded):
    pipeline = tiny_pipeline("super_resolution")
    draws = [
        list(pipeline._draw_by_frame(torch.Size((1, 3, frames, 8, 8)), seeded(4)))
        for frames in (9, 12)
    ]
    for (low, latents), (other_low, other) in zip(draws[0], draws[1][:9], strict=True):
        assert torch.equal(low, other_low)
        assert torch.equal(latents, other)


@torch.no_grad()
def whole_without_tiles(pipeline, video, generator):
    """Latents of all frames in one call a step, from the noise that tiles are given."""
    frames = torch.from_numpy(video).permute(3, 0, 1, 2)[None] / 127.5 - 1
    draws = list(pipeline._draw_by_frame(frames.shape, generator))
    n, x = (torch.cat(each, dim=2) for each in zip(*draws, strict=True))
    low = (np.sqrt(LOW_A[50]) * frames + np.sqrt(1 - LOW_A[50]) * n).float()
    tokens = pipeline.tokenizer(
        ["a panda"], padding="max_length", max_length=77, return_tensors="pt"
    )
    text = pipeline.text_encoder(tokens.input_ids).last_hidden_state
    pipeline.scheduler.set_timesteps(4)
    for t in pipeline.scheduler.timesteps:
        sample = torch.cat([x, low], dim=1)
        v = pipeline.unet(sample, t[None], text, noise_level_B=torch.tensor([50]))
        x = pipeline.scheduler.step(v, t, x).prev_sample
    return x


def seam(error_BCTHW, axis, edges):
    """How much the error changes across the edges of tiles, through how much it does elsewhere."""
    change = error_BCTHW.diff(dim=axis).abs().transpose(0, axis).flatten(1).mean(1)
    across = torch.zeros(len(change), dtype=torch.bool)
    across[edges] = True
    return float(change[across].mean() / change[~across].mean())


def test_blending_takes_the_seams_away(tiny_pipeline, seeded, clip_THWC):
    pipeline = tiny_pipeline("super_resolution")
    video = clip_THWC(frames=4, size=(8, 48))
    whole = whole_without_tiles(pipeline, video, seeded(3))

    def seam_of(overlap, edges):
        tiling = Tiling(frames=4, width=24, overlap=overlap)
        tiled = enlarged(
            pipeline,
            video,
            tiling=tiling,
            generator=seeded(3),
            num_inference_steps=4,
            guidance_scale=1.0,
        )
        return seam(tiled - whole, 4, edges)

    assert seam_of(0, [23]) > 1.8
    assert seam_of(8, [15, 23, 31, 39]) < 1.35


def test_blended_tiles_stay_near_the_whole_frame(tiny_pipeline, seeded, clip_THWC):
    pipeline = tiny_pipeline("super_resolution")
    video = clip_THWC(frames=4, size=(8, 24))
    whole = enlarged(pipeline, video, generator=seeded(3), tiling=Tiling(frames=3))
    tiled = enlarged(
        pipeline, video, generator=seeded(3), tiling=Tiling(frames=3, width=16, overlap=8)
    )
    other = enlarged(pipeline, video, generator=seeded(4), tiling=Tiling(frames=3))
    assert (tiled - whole).abs().mean() < 0.5 * (other - whole).abs().mean()


def test_the_network_sees_no_more_than_a_tile(tiny_pipeline, clip_THWC):
    pipeline = tiny_pipeline("super_resolution")
    sizes = set()
    pipeline.unet.register_forward_pre_hook(lambda _m, args: sizes.add(tuple(args[0].shape)))
    tiling = Tiling(frames=5, frame_overlap=1, height=8, width=8, overlap=2)
    enlarged(pipeline, clip_THWC(frames=9, size=(8, 16)), tiling=tiling, num_inference_steps=1)
    assert sizes == {(1, 7, 5, 8, 8)}  # one prompt of guidance at a time


def test_a_cast_leaves_the_autoencoder_as_it_was(tiny_pipeline):
    pipeline = tiny_pipeline("super_resolution")
    before = {key: value.clone() for key, value in pipeline.vae.state_dict().items()}
    pipeline.to(torch.float16)
    assert pipeline.unet.dtype == pipeline.text_encoder.dtype == torch.float16
    assert all(torch.equal(value, before[key]) for key, value in pipeline.vae.state_dict().items())


def test_pixels_are_cut_off_not_rounded(tiny_pipeline, seeded, clip_THWC):
    pipeline = tiny_pipeline("super_resolution")
    video = clip_THWC(frames=2, size=(8, 8))
    values = pipeline("a", video, num_inference_steps=1, generator=seeded(1), output_type="np")
    images = pipeline("a", video, num_inference_steps=1, generator=seeded(1), output_type="pil")
    assert values.frames.shape == (1, 2, 32, 32, 3)
    cut_off = np.floor(values.frames[0] * 255)
    assert np.array_equal(np.stack([np.asarray(f) for f in images.frames[0]]), cut_off)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"noise_level": 351}, "noise_level must be 0 to 350, got 351"),
        ({"noise_level": -1}, "noise_level must be 0 to 350, got -1"),
        ({"height": 8}, "height and width must be given together, got 8 and None"),
    ],
)
def test_bad_input_is_named_before_any_work(arguments, message, tiny_pipeline, clip_THWC):
    pipeline = tiny_pipeline("super_resolution")
    pipeline.unet.register_forward_pre_hook(lambda *_: pytest.fail("the network was called"))
    with pytest.raises(ValueError, match=message):
        enlarged(pipeline, clip_THWC(), **arguments)
