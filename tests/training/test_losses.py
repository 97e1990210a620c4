"""Targets, weights and the joint loss, against the formulas of their papers."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from training.losses import (
    FrameErrors,
    frame_errors,
    image_weight,
    joint_loss,
    min_snr_weight,
    objective_of,
    target,
    uninformed_loss,
    with_offset,
)
from training.models.schedule import NoiseSchedule, Objective
from training.run_config import LossConfig, SampleConfig, TrainConfig


def alpha_bar(t: np.ndarray) -> np.ndarray:
    """Product of 1 - beta over linear betas from 1e-4 to 0.02, in float64 by numpy."""
    return np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[t]


@pytest.fixture
def x0_eps_t() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    x0 = torch.randn(3, 4, 2, 2, 2, generator=generator)
    eps = torch.randn(3, 4, 2, 2, 2, generator=generator)
    return x0, eps, torch.tensor([0, 500, 999])


def test_the_three_targets_are_noise_velocity_and_clean_latents(x0_eps_t):
    x0, eps, t = x0_eps_t
    base = Objective.of("base")
    a = torch.from_numpy(alpha_bar(t.numpy())).reshape(-1, 1, 1, 1, 1)
    velocity = (a.sqrt() * eps - (1 - a).sqrt() * x0).float()
    assert torch.equal(target(base, x0, eps, t), eps)
    assert torch.equal(target(replace(base, prediction="sample"), x0, eps, t), x0)
    got = target(replace(base, prediction="velocity"), x0, eps, t)
    torch.testing.assert_close(got, velocity, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("prediction", ["epsilon", "velocity", "sample"])
def test_min_snr_weighs_every_prediction_as_the_same_error_in_x0(prediction, x0_eps_t):
    """arXiv 2303.09556: the loss is min(snr, gamma) |x0 - x0'|^2, whatever is predicted."""
    x0, eps, t = x0_eps_t
    objective = replace(Objective.of("base"), prediction=prediction)
    a = torch.from_numpy(alpha_bar(t.numpy())).reshape(-1, 1, 1, 1, 1)
    x_t = a.sqrt() * x0 + (1 - a).sqrt() * eps
    wanted = target(objective, x0.double(), eps.double(), t)
    said = wanted + 0.1 * torch.ones_like(wanted)
    if prediction == "epsilon":
        x0_said = (x_t - (1 - a).sqrt() * said) / a.sqrt()
    elif prediction == "velocity":
        x0_said = a.sqrt() * x_t - (1 - a).sqrt() * said
    else:
        x0_said = said
    snr = (a / (1 - a)).flatten()
    expected = snr.clamp(max=5) * (x0_said - x0).square().mean(dim=(1, 2, 3, 4))
    weight = min_snr_weight(objective, t, 5.0)
    got = weight * (said - wanted).square().mean(dim=(1, 2, 3, 4))
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-12)


def test_min_snr_of_velocity_is_nothing_where_no_signal_is_left():
    objective = replace(
        Objective.of("super_resolution"), schedule=NoiseSchedule(zero_terminal_snr=True)
    )
    assert min_snr_weight(objective, torch.tensor([999]), 5.0).tolist() == [0.0]


def test_offset_noise_shifts_a_whole_clip_and_each_image_by_itself():
    """Per clip, not per frame: frames of one video keep their differences."""
    eps = torch.zeros(2, 4, 5, 3, 3)  # three frames, two images
    shift = torch.arange(2 * 4 * 3).float().reshape(2, 4, 3)
    got = with_offset(eps, shift, num_video_frames=3)
    for frame, text in enumerate([0, 0, 0, 1, 2]):
        expected = shift[:, :, text, None, None].expand(-1, -1, 3, 3)
        assert torch.equal(got[:, :, frame], expected)


def test_offset_noise_of_images_alone():
    shift = torch.randn(1, 4, 2)
    got = with_offset(torch.zeros(1, 4, 2, 1, 1), shift, num_video_frames=0)
    assert torch.equal(got[:, :, :, 0, 0], shift)


def test_the_joint_loss_is_the_mean_over_all_frames_when_alpha_is_images_over_frames():
    """The group's published loss: a mean of squared errors over T + M frames (T=16, M=4)."""
    predicted, wanted = torch.randn(2, 4, 20, 2, 2), torch.randn(2, 4, 20, 2, 2)
    config = TrainConfig(sample=SampleConfig(num_frames=16, images_per_video=4))
    alpha = image_weight(config)
    assert alpha == 0.25
    errors = frame_errors(predicted, wanted, None, 16)
    plain = (predicted - wanted).square().mean()
    torch.testing.assert_close(joint_loss(errors, LossConfig(), alpha) * 16 / 20, plain)


def test_alpha_weighs_the_images_alone():
    errors = FrameErrors(torch.tensor([2.0, 4.0]), torch.tensor([10.0, 30.0]))
    assert float(joint_loss(errors, LossConfig(), 0.5)) == 3 + 0.5 * 20


def test_separate_batches_have_the_expected_gradient_of_the_joint_loss():
    """E over the kinds of batch, with their shares, of the gradient is that of L_V + alpha L_I."""
    weight = torch.tensor([1.5, -0.5], requires_grad=True)
    videos, images = torch.tensor([3.0, 1.0]), torch.tensor([-2.0, 5.0])
    loss = LossConfig(joint="separate", image_batch_share=0.3)

    def error(x: torch.Tensor) -> torch.Tensor:
        return (weight * x).sum().square().reshape(1)

    def gradient(errors: FrameErrors, config: LossConfig) -> torch.Tensor:
        (found,) = torch.autograd.grad(joint_loss(errors, config, 0.25), weight)
        return found

    joint = gradient(FrameErrors(error(videos), error(images)), LossConfig())
    expected = 0.7 * gradient(FrameErrors(error(videos), None), loss)
    expected += 0.3 * gradient(FrameErrors(None, error(images)), loss)
    torch.testing.assert_close(expected, joint)


def test_a_run_may_change_prediction_and_schedule_of_its_stage():
    config = TrainConfig(loss=LossConfig(prediction="velocity", zero_terminal_snr=True))
    objective = objective_of(config)
    assert objective.prediction == "velocity"
    assert objective.schedule.zero_terminal_snr
    with pytest.raises(ValueError, match=r"zero_terminal_snr needs loss\.prediction velocity"):
        objective_of(TrainConfig(loss=LossConfig(zero_terminal_snr=True)))


@pytest.mark.parametrize("prediction", ["epsilon", "velocity", "sample"])
def test_the_loss_without_a_network_is_that_of_the_best_linear_guess(prediction):
    objective = replace(Objective.of("base"), prediction=prediction)
    draw = torch.Generator().manual_seed(0)
    deviation_C = torch.tensor([0.3, 1.0, 2.5], dtype=torch.float64)
    mean_C = torch.tensor([1.0, -2.0, 0.0], dtype=torch.float64)
    x0 = mean_C + deviation_C * torch.randn(200_000, 3, generator=draw, dtype=torch.float64)
    eps = torch.randn(x0.shape, generator=draw, dtype=torch.float64)
    for timestep in (50, 450, 850):
        times = torch.full((len(x0),), timestep)
        noisy = objective.schedule.add_noise(x0, eps, times)
        wanted = target(objective, x0, eps, times)
        left = 0.0
        for channel in range(
            3
        ):  # numpy's least squares with a constant: the best linear guess there is
            known = np.stack([noisy[:, channel].numpy(), np.ones(len(x0))], axis=1)
            left += (
                np.linalg.lstsq(known, wanted[:, channel].numpy(), rcond=None)[1][0] / len(x0) / 3
            )
        assert uninformed_loss(objective, deviation_C**2, [timestep]) == pytest.approx(
            left, rel=0.02
        )
