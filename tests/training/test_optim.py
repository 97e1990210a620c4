"""The learning rate as a function of the step; a step left out on the device."""

import math

import pytest
import torch
from torch import nn

from training.optim import learning_rate, make_optimizer, step_unless
from training.run_config import OptimConfig, Phase, TrainConfig

PHASE = Phase(steps=110, learning_rate=2e-4)


def test_the_learning_rate_rises_over_the_warm_up_and_stays():
    config = OptimConfig(warmup_steps=10)
    assert learning_rate(config, PHASE, 0) == pytest.approx(2e-5)
    assert learning_rate(config, PHASE, 9) == pytest.approx(2e-4)
    assert learning_rate(config, PHASE, 109) == pytest.approx(2e-4)


def test_a_cosine_ends_at_its_final_share():
    config = OptimConfig(warmup_steps=10, decay="cosine", final_share=0.1)
    assert learning_rate(config, PHASE, 10) == pytest.approx(2e-4)
    assert learning_rate(config, PHASE, 60) == pytest.approx(2e-4 * (0.1 + 0.9 * 0.5))
    last = 2e-4 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 0.99)))
    assert learning_rate(config, PHASE, 109) == pytest.approx(last)


def test_a_step_is_that_of_torchs_own_adamw_and_one_left_out_is_nothing():
    config = TrainConfig(optim=OptimConfig(weight_decay=0.1))
    ours, theirs = nn.Linear(3, 2), nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    optimizer = make_optimizer(ours.parameters(), config)
    plain = torch.optim.AdamW(theirs.parameters(), lr=1e-3, weight_decay=0.1, foreach=False)
    for step in range(3):
        for net in (ours, theirs):
            net.zero_grad()
            net(torch.full((1, 3), 1.0 + step)).square().sum().backward()
        step_unless(optimizer, torch.tensor(0.0), 1e-3)
        plain.step()
    torch.testing.assert_close(ours.weight, theirs.weight)
    before = ours.weight.detach().clone()
    ours.weight.grad.fill_(float("nan"))
    step_unless(optimizer, torch.tensor(1.0), 1e-3)
    assert torch.equal(ours.weight, before)
