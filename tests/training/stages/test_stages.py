"""What each stage feeds its network, against the rules of the released samplers and the paper."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from training.data.batch import Batch, Sample, stack
from training.initial_weights import companions_of, initial_network
from training.losses import frame_errors, image_weight, joint_loss, target
from training.models.tiny import TEXT_WIDTH
from training.models.unet import UNet
from training.presets import tiny
from training.run_config import LossConfig, ModelConfig, Source, TrainConfig
from training.stages import Companions, encoded, stage_of
from training.stages.interpolation import key_of_frame, num_keys
from training.stages.super_resolution import low_resolution

SIZE = (32, 48)


def sample_of(config: TrainConfig, position: int, *, video: int, images: int) -> Sample:
    generator = torch.Generator().manual_seed(position)
    frames = torch.randint(0, 256, (video + images, 3, *SIZE), generator=generator)
    return Sample(
        step=5,
        position=position,
        size_px=SIZE,
        clip_id=f"clip-{position}" if video else "",
        image_ids=tuple(f"image-{position}-{at}" for at in range(images)),
        captions=tuple(f"caption {position} {at}" for at in range(min(1, video) + images)),
        frames_FCHW=frames.to(torch.uint8),
        num_video_frames=video,
        num_images=images,
    )


def batch_of(config: TrainConfig, *, video: int, images: int = 0, kind: str = "video") -> Batch:
    stage = stage_of(config)
    samples = [sample_of(config, at, video=video, images=images) for at in range(2)]
    draws = [stage.draw(5, sample) for sample in samples]
    return stack(samples, draws, kind=kind, pool="pool")  # type: ignore[arg-type]


def companions(config: TrainConfig) -> Companions:
    return companions_of(config, stage_of(config).objective, TEXT_WIDTH)


def alpha_bar(t: int, *, scaled: bool = False) -> float:
    power = 2 if scaled else 1
    betas = np.linspace(1e-4 ** (1 / power), 0.02 ** (1 / power), 1000) ** power
    return float(np.cumprod(1 - betas)[t])


def test_base_feeds_the_noisy_latents_of_video_and_images_at_one_time_a_sample():
    config = tiny("base")
    batch = batch_of(config, video=8, images=2, kind="joint")
    feed = stage_of(config).feed(batch, companions(config))
    assert feed.sample_BCFhw.shape == (2, 4, 10, 4, 6)
    assert feed.text.shape[:2] == (2, 3)
    assert feed.num_images == 2
    for row in range(2):
        a = alpha_bar(int(feed.timestep_B[row]))
        expected = a**0.5 * feed.x0_BCFhw[row] + (1 - a) ** 0.5 * batch.draws["eps"][row]
        torch.testing.assert_close(feed.sample_BCFhw[row], expected, rtol=1e-5, atol=1e-6)


def test_latents_are_the_posterior_of_the_autoencoder_times_its_scale():
    """diffusers' own posterior, whose sample is mean + std * noise."""
    config = tiny("base")
    batch, models = batch_of(config, video=3), companions(config)
    feed = stage_of(config).feed(batch, models)
    frames = batch.frames_BFCHW[1].float() / 127.5 - 1
    posterior = models.autoencoder.vae.encode(frames).latent_dist
    noise = batch.draws["posterior"][1].transpose(0, 1)
    expected = 0.18215 * (posterior.mean + posterior.std * noise)
    torch.testing.assert_close(feed.x0_BCFhw[1].transpose(0, 1), expected, rtol=1e-4, atol=1e-5)


def test_first_frame_channels_give_frame_0_and_mask_what_is_to_be_made():
    """SEINE's layout: mask 0 on the given frame, 1 elsewhere; masked latents 0 where unknown."""
    config = replace(
        tiny("base"), model=ModelConfig(initial_weights="tiny", first_frame_channels=True)
    )
    batch = batch_of(config, video=4, images=1, kind="joint")
    feed = stage_of(config).feed(batch, companions(config))
    assert feed.sample_BCFhw.shape[1] == 9
    mask, given = feed.sample_BCFhw[:, 4], feed.sample_BCFhw[:, 5:]
    assert mask[:, 0].eq(0).all()
    assert mask[:, 1:].eq(1).all()
    assert torch.equal(given[:, :, 0], feed.x0_BCFhw[:, :, 0])
    assert given[:, :, 1:].eq(0).all()
    net = initial_network(config, stage_of(config).objective)
    plain = initial_network(tiny("base"), stage_of(config).objective)
    args = (feed.timestep_B, feed.text)
    wide = net(feed.sample_BCFhw, *args, num_images=1)
    assert torch.equal(wide, plain(feed.sample_BCFhw[:, :4], *args, num_images=1))


def test_frame_j_of_61_is_conditioned_on_key_frame_j_plus_1_over_4():
    """Spec of the release: j = 4k - 1 .. 4k + 2 use key k, and the 16 keys are frames 0, 4, ..., 60."""
    of_frame = key_of_frame(61).tolist()
    expected = [k for k in range(16) for j in range(4 * k - 1, 4 * k + 3) if 0 <= j <= 60]
    assert of_frame == expected
    assert num_keys(61) == 16
    with pytest.raises(ValueError, match="num_frames of interpolation must be 4 k"):
        stage_of(replace(tiny("interpolation"), sample=replace(tiny("base").sample, num_frames=16)))


def test_interpolation_feeds_clean_key_frames_behind_the_noisy_latents():
    config = tiny("interpolation")
    batch = batch_of(config, video=13)
    feed = stage_of(config).feed(batch, companions(config))
    assert feed.sample_BCFhw.shape == (2, 8, 13, 4, 6)
    for j in range(13):
        expected = feed.x0_BCFhw[:, :, 4 * ((j + 1) // 4)]
        assert torch.equal(feed.sample_BCFhw[:, 4:, j], expected)


def test_noise_on_the_key_frames_is_that_of_its_own_time_shared_by_the_frames_of_a_key():
    config = replace(tiny("interpolation"), loss=LossConfig(condition_noise_steps=300))
    batch = batch_of(config, video=13)
    feed = stage_of(config).feed(batch, companions(config))
    for row in range(2):
        time = int(batch.draws["condition_timestep"][row])
        assert 0 <= time < 300
        a = alpha_bar(time)
        for j in (0, 2, 7, 12):
            key = (j + 1) // 4
            clean, eps = feed.x0_BCFhw[row, :, 4 * key], batch.draws["condition_eps"][row, :, key]
            expected = a**0.5 * clean + (1 - a) ** 0.5 * eps
            torch.testing.assert_close(
                feed.sample_BCFhw[row, 4:, j], expected, rtol=1e-5, atol=1e-6
            )


def test_super_resolution_feeds_noisy_low_resolution_frames_and_their_level():
    config = tiny("super_resolution")
    batch = batch_of(config, video=4)
    feed = stage_of(config).feed(batch, companions(config))
    assert feed.sample_BCFhw.shape == (2, 7, 4, 8, 12)
    levels = feed.noise_level_B.tolist()
    assert levels == batch.draws["noise_level"].tolist()
    for row, level in enumerate(levels):
        a = alpha_bar(level, scaled=True)
        eps = batch.draws["low_resolution_eps"][row]
        low = low_resolution(batch.frames_BFCHW)[row]
        expected = a**0.5 * low + (1 - a) ** 0.5 * eps
        torch.testing.assert_close(feed.sample_BCFhw[row, 4:], expected, rtol=1e-5, atol=1e-6)


def test_low_resolution_is_the_mean_of_4_by_4_pixels():
    frames = torch.randint(0, 256, (1, 2, 3, 8, 12), dtype=torch.uint8)
    means = frames.numpy().astype(np.float64).reshape(1, 2, 3, 2, 4, 3, 4).mean(axis=(4, 6))
    got = low_resolution(frames).transpose(1, 2).numpy()
    np.testing.assert_allclose(got, means / 127.5 - 1, atol=1e-6)


def test_noise_levels_are_0_to_349():
    config = tiny("super_resolution")
    stage = stage_of(config)
    levels = [
        int(stage.draw(step, sample_of(config, 0, video=4, images=0))["noise_level"])
        for step in range(400)
    ]
    assert min(levels) >= 0
    assert max(levels) <= 349
    assert max(levels) > 330
    assert min(levels) < 20


def test_draws_are_a_function_of_seed_step_and_position():
    config = tiny("base")
    one = stage_of(config).draw(3, sample_of(config, 1, video=8, images=2))
    again = stage_of(config).draw(3, sample_of(config, 1, video=8, images=2))
    assert all(torch.equal(one[name], again[name]) for name in one)
    for other in (
        stage_of(config).draw(4, sample_of(config, 1, video=8, images=2)),
        stage_of(config).draw(3, sample_of(config, 0, video=8, images=2)),
        stage_of(replace(config, seed=1)).draw(3, sample_of(config, 1, video=8, images=2)),
    ):
        assert not torch.equal(one["eps"], other["eps"])
    assert not torch.equal(one["eps"], one["posterior"])


@pytest.mark.parametrize("stage", ["base", "interpolation"])
def test_what_was_encoded_beforehand_feeds_the_same(stage):
    config = tiny(stage)
    batch = batch_of(config, video=config.sample.num_frames)
    models = companions(config)
    before = stage_of(config).feed(batch, models)
    after = stage_of(config).feed(
        replace(encoded(batch, models), frames_BFCHW=None), Companions(None, None)
    )
    torch.testing.assert_close(after.sample_BCFhw, before.sample_BCFhw, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(after.text, before.text)


def test_super_resolution_refuses_what_was_encoded_since_it_needs_pixels():
    config = tiny("super_resolution")
    sources = (Source(corpus="c", encoded="0123"),)
    with pytest.raises(ValueError, match="super_resolution trains from pixels"):
        stage_of(replace(config, data=replace(config.data, sources=sources)))


def joint_step(net: UNet, config: TrainConfig, batch: Batch) -> torch.Tensor:
    stage = stage_of(config)
    feed = stage.feed(batch, companions(config))
    said = net(feed.sample_BCFhw, feed.timestep_B, feed.text, num_images=feed.num_images)
    wanted = target(stage.objective, feed.x0_BCFhw, feed.eps_BCFhw, feed.timestep_B)
    errors = frame_errors(said, wanted, None, batch.num_video_frames)
    return joint_loss(errors, config.loss, image_weight(config))


def test_the_joint_step_is_the_mean_over_all_frames_of_the_group(rule_net):
    """Section 11.2: squared error averaged over T + M frames, one time a sample, own texts.

    Loss and gradient norm are compared with that sentence written out by hand: noise by numpy's
    schedule, the network asked once, nothing of the trainer's losses.
    """
    config = tiny("base")
    video, images = config.sample.num_frames, config.sample.images_per_video
    batch = batch_of(config, video=video, images=images, kind="joint")
    net = rule_net("base")
    loss = joint_step(net, config, batch)
    loss.backward()
    norm = torch.stack([p.grad.norm() for p in net.parameters() if p.grad is not None]).norm()

    models = companions(config)
    rgb = batch.frames_BFCHW.transpose(1, 2).float() / 127.5 - 1
    mean, std = models.autoencoder.encode_moments(rgb)
    x0, eps = 0.18215 * (mean + std * batch.draws["posterior"]), batch.draws["eps"]
    a = torch.tensor([alpha_bar(int(t)) for t in batch.draws["timestep"]]).float()
    a = a.reshape(-1, 1, 1, 1, 1)
    text = torch.stack([models.text_encoder.encode(captions) for captions in batch.captions])
    net.zero_grad()
    noisy = a.sqrt() * x0 + (1 - a).sqrt() * eps
    said = net(noisy, batch.draws["timestep"], text, num_images=images)
    by_hand = (said - eps).square().mean()
    by_hand.backward()
    norm_by_hand = torch.stack(
        [p.grad.norm() for p in net.parameters() if p.grad is not None]
    ).norm()

    share = (video + images) / video  # L_video + M/T L_image over the mean of all frames
    torch.testing.assert_close(loss, share * by_hand, rtol=2e-6, atol=0)
    torch.testing.assert_close(norm, share * norm_by_hand, rtol=2e-5, atol=0)


def test_images_alone_teach_no_temporal_layer(rule_net):
    config = tiny("base")
    batch = batch_of(config, video=0, images=2, kind="images")
    net = rule_net("base")
    joint_step(net, config, batch).backward()
    taught = {name for name, p in net.named_parameters() if p.grad is not None and p.grad.any()}
    assert not any("_temp" in name for name in taught)
    assert any("attn2" in name for name in taught)
