from dataclasses import replace

import numpy as np
import pytest
import torch

from training.models.schedule import NoiseSchedule, Objective

STAGES = ("base", "interpolation", "super_resolution")


def terminal_snr(schedule: NoiseSchedule) -> float:
    last = schedule.alphas_cumprod()[-1]
    return float(last / (1 - last))


def test_the_last_step_of_lavie_is_much_nearer_to_pure_noise_than_stable_diffusions():
    assert terminal_snr(NoiseSchedule.lavie()) == pytest.approx(4.0e-5, rel=0.02)
    assert terminal_snr(NoiseSchedule.stable_diffusion()) == pytest.approx(4.7e-3, rel=0.02)


@pytest.mark.parametrize(
    "schedule",
    [NoiseSchedule.lavie(), NoiseSchedule.low_resolution(), NoiseSchedule.stable_diffusion()],
)
def test_schedules_are_those_of_diffusers(schedule):
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    theirs = DDPMScheduler(
        beta_start=schedule.beta_start, beta_end=schedule.beta_end, beta_schedule=schedule.curve
    )
    ours = schedule.alphas_cumprod().float()
    assert torch.allclose(ours, theirs.alphas_cumprod, rtol=2e-5, atol=0)
    x0, eps, t = torch.randn(3, 4, 2, 5, 5), torch.randn(3, 4, 2, 5, 5), torch.tensor([0, 500, 999])
    assert torch.allclose(schedule.add_noise(x0, eps, t), theirs.add_noise(x0, eps, t), atol=1e-5)
    assert torch.allclose(schedule.velocity(x0, eps, t), theirs.get_velocity(x0, eps, t), atol=1e-5)


def test_a_cumulative_product_in_float64_matches_numpy():
    betas = np.linspace(1e-4, 0.02, 1000, dtype=np.float64)
    got = NoiseSchedule.lavie().alphas_cumprod().numpy()
    assert np.allclose(got, np.cumprod(1 - betas), rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: NoiseSchedule(curve="cosine"), "curve must be .* got 'cosine'"),
        (lambda: NoiseSchedule(beta_start=0.1), "betas must rise .* got 0.1 to 0.02"),
        (lambda: NoiseSchedule(num_steps=1), "num_steps must be at least 2, got 1"),
        (lambda: NoiseSchedule().signal_and_noise(torch.tensor([1000])), "got 1000 to 1000"),
        (lambda: NoiseSchedule().signal_and_noise(torch.tensor([0.5])), "must hold integers"),
        (lambda: replace(Objective.of("base"), stage="late"), "stage must be one of"),
        (lambda: replace(Objective.of("base"), prediction="x0"), "prediction must be one of"),
        (lambda: replace(Objective.of("base"), latent_scale=0.0), "latent_scale must be positive"),
        (lambda: replace(Objective.of("base"), stage="super_resolution"), "low_resolution_sched"),
        (lambda: Objective.from_json({"stage": "base"}), "not an objective"),
    ],
)
def test_a_wrong_value_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("stage", STAGES)
def test_an_objective_survives_json(stage):
    objective = Objective.of(stage)
    assert Objective.from_json(objective.to_json()) == objective
    assert Objective.from_json(objective.to_json()).digest() == objective.digest()


def test_digests_tell_objectives_apart():
    digests = {Objective.of(stage).digest() for stage in STAGES}
    assert len(digests) == 3


def test_every_difference_of_two_objectives_is_named():
    other = replace(
        Objective.of("base"), latent_scale=0.13025, schedule=NoiseSchedule.stable_diffusion()
    )
    with pytest.raises(ValueError, match=r"latent_scale is 0.13025, expected 0.18215.*scaled"):
        other.check_equals(Objective.of("base"))


def test_zero_terminal_snr_keeps_the_first_step_and_ends_without_signal():
    """arXiv 2305.08891: sqrt(alpha_bar) shifted by its last value, scaled back to its first."""
    plain = NoiseSchedule().alphas_cumprod().sqrt().numpy()
    got = NoiseSchedule(zero_terminal_snr=True).alphas_cumprod().sqrt().numpy()
    expected = (plain - plain[-1]) / (plain[0] - plain[-1]) * plain[0]
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-15)
    assert got[-1] == 0
    ratio = NoiseSchedule(zero_terminal_snr=True).signal_to_noise(torch.tensor([0, 999]))
    assert ratio[1] == 0
    assert float(ratio[0]) == pytest.approx(0.9999 / 0.0001)


def test_zero_terminal_snr_is_refused_for_epsilon():
    with pytest.raises(ValueError, match="zero_terminal_snr needs the velocity"):
        replace(Objective.of("base"), schedule=NoiseSchedule(zero_terminal_snr=True))
