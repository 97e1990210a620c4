import pytest
import torch

from training.models.autoencoder import Autoencoder


@pytest.fixture
def vae():
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    torch.manual_seed(5)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 16),
        norm_num_groups=4,
        latent_channels=4,
        scaling_factor=0.08333,
    ).eval()


def video(frames=5, size=(8, 12)):
    return torch.rand(2, 3, frames, *size, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_a_frame_is_encoded_and_decoded_as_the_image_autoencoder_does(vae):
    ours = Autoencoder(vae)
    mean, std = ours.encode_moments(video())
    with torch.no_grad():
        posterior = vae.encode(video()[:, :, 3]).latent_dist
        decoded = vae.decode(mean[:, :, 3]).sample
    assert torch.allclose(mean[:, :, 3], posterior.mean, atol=1e-6)
    assert torch.allclose(std[:, :, 3], posterior.std, atol=1e-6)
    assert torch.allclose(ours.decode(mean * ours.scale)[:, :, 3], decoded, atol=1e-5)
    assert (ours.scale, ours.downsampling) == (0.08333, 4)


def test_frames_at_once_bound_memory_and_leave_the_numbers(vae):
    all_at_once = Autoencoder(vae, frames_at_once=100).encode_moments(video())[0]
    one_by_one = Autoencoder(vae, frames_at_once=1).encode_moments(video())[0]
    assert all_at_once.shape == (2, 4, 5, 2, 3)
    assert torch.allclose(all_at_once, one_by_one, atol=1e-6)


def test_a_sample_of_the_posterior_is_scaled_and_repeatable(vae):
    ours = Autoencoder(vae)
    mean, std = ours.encode_moments(video())
    first, again = (ours.encode(video(), noise=torch.Generator().manual_seed(2)) for _ in range(2))
    drawn = torch.randn(mean.shape, generator=torch.Generator().manual_seed(2))
    assert torch.equal(first, again)
    assert torch.allclose(first, 0.08333 * (mean + std * drawn))


def test_an_autoencoder_comes_back_bit_for_bit(vae, tmp_path):
    ours = Autoencoder(vae)
    ours.save(tmp_path / "vae")
    back = Autoencoder.load(tmp_path / "vae")
    assert torch.equal(ours.encode_moments(video())[0], back.encode_moments(video())[0])
    assert back.scale == ours.scale
    assert not any(p.requires_grad for p in back.parameters())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: a.encode(torch.zeros(1, 4, 2, 8, 8)), r"video must be \[B, 3, T, H, W\]"),
        (lambda a: a.encode(torch.zeros(1, 3, 2, 8, 9)), "multiples of 4, got 8x9"),
        (lambda a: a.decode(torch.zeros(1, 3, 2, 8, 8)), r"latents must be \[B, 4, T, h, w\]"),
        (lambda a: Autoencoder(a.vae, frames_at_once=0), "frames_at_once must be at least 1"),
    ],
)
def test_a_wrong_argument_is_named(call, message, vae):
    with pytest.raises(ValueError, match=message):
        call(Autoencoder(vae))


def test_a_folder_without_safetensors_is_refused(vae, tmp_path):
    vae.save_pretrained(tmp_path, safe_serialization=False)
    with pytest.raises(FileNotFoundError, match=r"diffusion_pytorch_model\.safetensors is missing"):
        Autoencoder.load(tmp_path)
