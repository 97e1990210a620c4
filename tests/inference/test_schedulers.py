"""Every sampler against its equation, computed here in fp64 from the release's betas."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from inference.schedulers import RELEASED, make_scheduler
from training.models.schedule import NoiseSchedule, Objective

A = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))  # alpha_bar of LaVie's schedule
BASE, VSR = Objective.of("base"), Objective.of("super_resolution")
KEPT_50 = [round(k * 999 / 49) for k in range(50)]


def draw(seed):
    return torch.randn(1, 4, 2, 3, 3, generator=torch.Generator().manual_seed(seed))


def stepped(scheduler, time, x, prediction, **more):
    return scheduler.step(prediction, time, x, return_dict=False, **more)[0].double().numpy()


def close(got, expected):
    return np.abs(got - expected).max() <= 2e-5 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("name", "objective", "expected"),
    [
        ("ddpm", BASE, list(range(980, -1, -20))),
        ("ddim", BASE, list(range(981, 0, -20))),
        ("ddim", VSR, list(range(981, 0, -20))),
        ("respaced-ddim", BASE, KEPT_50[::-1]),
        ("euler", BASE, np.linspace(999, 0, 50).tolist()),
    ],
    ids=["ddpm", "ddim", "ddim-velocity", "respaced", "euler"],
)
def test_fifty_steps_have_the_times_of_the_release(name, objective, expected):
    scheduler = make_scheduler(name, objective)
    scheduler.set_timesteps(50)
    assert np.allclose(scheduler.timesteps.numpy(), expected, atol=1e-4)


def test_the_kept_times_of_interpolation_are_those_of_the_release():
    scheduler = make_scheduler("respaced-ddim", BASE)
    scheduler.set_timesteps(50)
    kept = scheduler.timesteps.tolist()[::-1]
    assert kept[:6] == [0, 20, 41, 61, 82, 102]
    assert kept[-3:] == [958, 979, 999]


@pytest.mark.parametrize("step", [0, 1, 25, 49])
def test_ddpm_steps_by_its_posterior(step):
    scheduler = make_scheduler("ddpm", BASE)
    scheduler.set_timesteps(50)
    t = 980 - 20 * step
    x, eps = draw(1), draw(2)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(7)).double().numpy()
    got = stepped(scheduler, t, x, eps, generator=torch.Generator().manual_seed(7))

    x, eps = x.double().numpy(), eps.double().numpy()
    a, a_prev = A[t], A[t - 20] if t >= 20 else 1.0
    beta = 1 - a / a_prev
    x0 = (x - np.sqrt(1 - a) * eps) / np.sqrt(a)
    mean = np.sqrt(a_prev) * beta / (1 - a) * x0 + np.sqrt(a / a_prev) * (1 - a_prev) / (1 - a) * x
    variance = max((1 - a_prev) / (1 - a) * beta, 1e-20)
    assert close(got, mean + (np.sqrt(variance) * noise if t > 0 else 0))


@pytest.mark.parametrize("step", [0, 30, 49])
@pytest.mark.parametrize("objective", [BASE, VSR], ids=["epsilon", "velocity"])
def test_ddim_steps_to_the_first_alpha_at_the_end(objective, step):
    scheduler = make_scheduler("ddim", objective)
    scheduler.set_timesteps(50)
    t = 981 - 20 * step
    x, predicted = draw(1), draw(2)
    got = stepped(scheduler, t, x, predicted)

    x, predicted = x.double().numpy(), predicted.double().numpy()
    a, a_prev = A[t], A[t - 20] if t >= 20 else A[0]
    if objective.prediction == "epsilon":
        eps, x0 = predicted, (x - np.sqrt(1 - a) * predicted) / np.sqrt(a)
    else:
        x0 = np.sqrt(a) * x - np.sqrt(1 - a) * predicted
        eps = np.sqrt(a) * predicted + np.sqrt(1 - a) * x
    assert close(got, np.sqrt(a_prev) * x0 + np.sqrt(1 - a_prev) * eps)


@pytest.mark.parametrize("step", [0, 1, 48, 49])
@pytest.mark.parametrize("prediction", ["epsilon", "velocity", "sample"])
def test_respaced_ddim_steps_to_clean_latents_at_the_end(prediction, step):
    scheduler = make_scheduler("respaced-ddim", replace(BASE, prediction=prediction))
    scheduler.set_timesteps(50)
    kept = KEPT_50[::-1]
    a, a_prev = A[kept[step]], A[kept[step + 1]] if step < 49 else 1.0
    x0, eps = draw(1).double(), draw(2).double()
    x = np.sqrt(a) * x0 + np.sqrt(1 - a) * eps
    velocity = np.sqrt(a) * eps - np.sqrt(1 - a) * x0
    predicted = {"epsilon": eps, "velocity": velocity, "sample": x0}[prediction]
    got = stepped(scheduler, torch.tensor(kept[step]), x, predicted)
    assert close(got, (np.sqrt(a_prev) * x0 + np.sqrt(1 - a_prev) * eps).numpy())


def test_respaced_ddim_gives_back_the_dtype_of_the_sample():
    scheduler = make_scheduler("respaced-ddim", BASE)
    scheduler.set_timesteps(5)
    out = scheduler.step(draw(1).half(), 999, draw(2).half())
    assert out.prev_sample.dtype == torch.float16


@pytest.mark.parametrize("step", [0, 30, 49])
def test_euler_follows_the_slope_of_sigma(step):
    scheduler = make_scheduler("euler", BASE)
    scheduler.set_timesteps(50)
    sigma_of = np.sqrt((1 - A) / A)
    times = np.linspace(999, 0, 50)
    sigmas = [*np.interp(times, np.arange(1000), sigma_of), 0.0]
    assert np.isclose(float(scheduler.init_noise_sigma), 157.407, atol=0.02)
    t = scheduler.timesteps[step]
    x, eps = draw(1) * sigmas[step], draw(2)
    scaled = scheduler.scale_model_input(x, t)
    assert close(scaled.double().numpy(), (x / np.sqrt(sigmas[step] ** 2 + 1)).double().numpy())
    got = stepped(scheduler, t, x, eps)
    x, eps = x.double().numpy(), eps.double().numpy()
    expected = x + (sigmas[step + 1] - sigmas[step]) * eps
    # diffusers takes 1 - alpha_bar in fp32, which costs four digits where alpha_bar is nearly 1
    assert np.abs(got - expected).max() < 2e-5 * sigmas[step] + 5e-6


def test_dpm_solver_recovers_a_point_when_its_noise_is_predicted_exactly():
    # for data that is one point the exact solution is known: x_t = sqrt(a) x0 + sqrt(1 - a) eps
    scheduler = make_scheduler("dpm-solver++", BASE)
    scheduler.set_timesteps(10)
    x0, eps = draw(1), draw(2)
    x = eps
    for t in scheduler.timesteps:
        a = float(A[int(t)])
        x = scheduler.step((x - a**0.5 * x0) / (1 - a) ** 0.5, t, x, return_dict=False)[0]
    assert torch.allclose(x, x0, atol=0.02)


@pytest.mark.parametrize("name", ["ddpm", "ddim", "euler", "dpm-solver++", "respaced-ddim"])
def test_a_schedule_without_signal_at_its_end_is_sampled_from_there(name):
    objective = replace(BASE, prediction="velocity", schedule=NoiseSchedule(zero_terminal_snr=True))
    scheduler = make_scheduler(name, objective)
    scheduler.set_timesteps(10)
    assert int(scheduler.timesteps[0]) == 999
    x = draw(1)
    for t in scheduler.timesteps:
        scaled = scheduler.scale_model_input(x, t)
        x = scheduler.step(0.1 * scaled, t, x, return_dict=False)[0]
    assert torch.isfinite(x).all()


def test_the_released_sampler_of_each_stage_exists():
    for stage, name in RELEASED.items():
        assert make_scheduler(name, Objective.of(stage)).config["num_train_timesteps"] == 1000


def test_an_unknown_sampler_is_named_with_the_choices():
    with pytest.raises(ValueError, match=r"scheduler must be one of .*'euler'.* got 'plms'"):
        make_scheduler("plms", BASE)


def test_one_kept_time_is_refused():
    with pytest.raises(ValueError, match="num_inference_steps must be 2 to 1000, got 1"):
        make_scheduler("respaced-ddim", BASE).set_timesteps(1)
