"""The decoder learns on top of principal components; the same run gives the same weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from training.autoencoder import AutoencoderConfig, fidelity, psnr, train_decoder, with_components
from training.data.films import FramesConfig
from training.models.patch_autoencoder import PatchAutoencoderConfig

CONFIG = AutoencoderConfig(
    frames=FramesConfig(size_px=(16, 16), zoom=1),
    network=PatchAutoencoderConfig(
        patch_px=4, latent_channels=4, width=16, num_blocks=1, fine_width=8
    ),
    steps=150,
    batch_size=4,
    learning_rate=4e-3,
)


def edges(num: int, seed: int) -> torch.Tensor:
    """Two flat colours on either side of a line, uint8: neighbours tell where it runs, one patch does not."""
    draw = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    frames = []
    for _ in range(num):
        angle, colours = 6.28 * torch.rand(1, generator=draw), torch.rand(2, 3, generator=draw)
        side = (x - 8) * torch.cos(angle) + (y - 8) * torch.sin(angle) > 0
        frames.append(torch.where(side, colours[0, :, None, None], colours[1, :, None, None]))
    return (255 * torch.stack(frames)).round().to(torch.uint8)


def test_the_decoder_gives_back_more_of_held_out_frames_than_the_plain_inversion():
    train, held_out = edges(200, 1), edges(40, 2)
    vae = with_components(CONFIG, train)
    before = fidelity(vae, held_out, seed=0)
    assert before.decoded == before.plain > before.decoded_with_noise
    seen = []
    train_decoder(vae, train, CONFIG, lambda step, ratio: seen.append((step, ratio)))
    after = fidelity(vae, held_out, seed=0)
    assert after.plain == before.plain
    assert after.decoded > after.plain + 0.5
    assert [step for step, _ in seen] == list(range(1, 151))


def test_the_same_run_gives_the_same_weights_and_another_seed_others():
    train = edges(20, 1)

    def trained(config: AutoencoderConfig) -> dict[str, torch.Tensor]:
        vae = with_components(config, train)
        train_decoder(vae, train, config)
        return vae.state_dict()

    short = replace(CONFIG, steps=3)
    first, again, other = trained(short), trained(short), trained(replace(short, seed=1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["conv_in.weight"], other["conv_in.weight"])
    assert torch.equal(first["analysis_KP"], other["analysis_KP"])


def test_the_ratio_is_that_of_bytes():
    # an error of one step of 255 everywhere: 20 log10 255 = 48.13 dB
    assert psnr((2 / 255) ** 2) == pytest.approx(48.1308, abs=1e-3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"frames": FramesConfig(size_px=(16, 18))}, "multiples of patch_px, 4, got 16x18"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
    ],
)
def test_settings_that_make_no_run_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        replace(CONFIG, **change)
