"""The small autoencoder: principal components there, and back by inversion and what the decoder adds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from training.models.autoencoder import Autoencoder
from training.models.patch_autoencoder import (
    PatchAutoencoder,
    PatchAutoencoderConfig,
    PatchStatistics,
)

SMALL = PatchAutoencoderConfig(patch_px=4, latent_channels=6, width=8, num_blocks=1, fine_width=4)


def pictures(num: int = 12, side: int = 16) -> torch.Tensor:
    """Smooth coloured noise, -1 to 1, whose patches vary along some axes more than along others."""
    coarse = torch.randn(
        num, 3, side // 4 + 1, side // 4 + 1, generator=torch.Generator().manual_seed(1)
    )
    fine = 0.1 * torch.randn(num, 3, side, side, generator=torch.Generator().manual_seed(2))
    wide = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")
    return (0.5 * wide + fine).clamp(-1, 1)


def fitted(config: PatchAutoencoderConfig, frames: torch.Tensor) -> PatchAutoencoder:
    statistics = PatchStatistics(config.patch_px)
    for part in frames.split(5):
        statistics.add(part)
    vae = PatchAutoencoder(config)
    vae.set_components(statistics.components())
    return vae


def eigenvalues(frames: torch.Tensor, px: int) -> np.ndarray:
    """Variances along all axes of the patches, cut out with numpy, largest first."""
    num, channels, height, width = frames.shape
    grid = frames.numpy().reshape(num, channels, height // px, px, width // px, px)
    rows = grid.transpose(0, 2, 4, 1, 3, 5).reshape(-1, channels * px * px)
    return np.linalg.eigvalsh(np.cov(rows.T.astype(np.float64), bias=True))[::-1]


def test_what_is_lost_is_the_variance_along_the_axes_that_are_left_out():
    frames = pictures()
    vae = fitted(SMALL, frames)
    mean = vae.encode(frames)[0].parameters.chunk(2, dim=1)[0]
    lost = eigenvalues(frames, 4)[SMALL.latent_channels :].sum() / SMALL.patch_size
    error = (vae.inverted(mean) - frames).square().mean().item()
    assert error == pytest.approx(lost, rel=1e-3)


def test_all_components_bring_every_frame_back():
    frames = pictures()
    vae = fitted(replace(SMALL, latent_channels=SMALL.patch_size), frames)
    mean = vae.encode(frames)[0].parameters.chunk(2, dim=1)[0]
    assert torch.allclose(vae.inverted(mean), frames, atol=1e-4)


def test_latents_have_unit_power_and_no_mean_and_fall_with_the_root_of_the_deviation():
    frames = pictures()
    mean = fitted(SMALL, frames).encode(frames)[0].parameters.chunk(2, dim=1)[0]
    rows = mean.movedim(1, -1).flatten(0, -2).double()
    assert rows.square().mean().item() == pytest.approx(1, rel=1e-4)
    assert rows.mean(dim=0).abs().max() < 1e-4
    deviations = np.sqrt(eigenvalues(frames, 4)[: SMALL.latent_channels])
    ratios = rows.std(dim=0, correction=0).numpy() / np.sqrt(deviations)
    assert ratios == pytest.approx(np.full(SMALL.latent_channels, ratios[0]), rel=1e-3)


def test_an_untrained_decoder_is_the_plain_inversion():
    vae = fitted(SMALL, pictures())
    latents = torch.randn(2, 6, 3, 5, generator=torch.Generator().manual_seed(3))
    assert torch.equal(vae.decode(latents)[0], vae.inverted(latents))
    assert vae.decode(latents)[0].shape == (2, 3, 12, 20)


def test_films_of_one_plain_colour_have_components_too():
    frames = torch.full((3, 3, 8, 8), 0.25)
    vae = fitted(SMALL, frames)
    mean = vae.encode(frames)[0].parameters.chunk(2, dim=1)[0]
    assert torch.allclose(vae.decode(mean)[0], frames, atol=1e-4)


def test_it_is_saved_and_read_as_a_component_like_any_other(tmp_path: Path):
    vae = fitted(SMALL, pictures())
    torch.nn.init.normal_(vae.conv_out.weight, std=0.1)
    ours = Autoencoder(vae)
    ours.save(tmp_path / "vae")
    back = Autoencoder.load(tmp_path / "vae")
    assert (back.latents.channels, back.downsampling, back.scale) == (6, 4, 1.0)
    video = pictures().unflatten(0, (2, 6)).transpose(1, 2)
    mean, std = back.encode_moments(video)
    assert torch.equal(mean, ours.encode_moments(video)[0])
    assert torch.allclose(std, torch.full_like(std, SMALL.posterior_std))
    assert torch.equal(back.decode(mean), ours.decode(mean))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"patch_px": 6}, "patch_px must be a multiple of 4, got 6"),
        ({"latent_channels": 49}, "latent_channels must be 1 to the 48 numbers of a patch, got 49"),
        ({"posterior_std": 0.0}, "posterior_std must be positive"),
    ],
)
def test_what_no_autoencoder_can_be_built_from_is_refused(change: dict, words: str):
    with pytest.raises(ValueError, match=words):
        replace(SMALL, **change)


def test_a_folder_of_another_kind_is_refused_by_name(tmp_path: Path):
    fitted(SMALL, pictures()).save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"width"', '"breadth"'))
    with pytest.raises(ValueError, match=r"is not a PatchAutoencoder's.*breadth"):
        PatchAutoencoder.from_pretrained(tmp_path)
