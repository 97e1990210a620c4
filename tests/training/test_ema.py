"""The average of the weights against float64."""

import numpy as np
import pytest
import torch
from torch import nn

from training.ema import ExponentialAverage


def test_over_twenty_thousand_steps_the_average_stays_within_a_thousandth_of_float64():
    """A parameter that drifts from 1.0 to 1.5, as in a long run; decay 0.9999 after warm-up."""
    net = nn.Linear(1, 1, bias=False)
    net.weight.data.fill_(1.0)
    average = ExponentialAverage(net, 0.9999)
    exact, steps = 1.0, 20_000
    drift = np.linspace(1.0, 1.5, steps + 1)[1:]
    for n, value in enumerate(drift):
        net.weight.data.fill_(float(value))
        average.update()
        decay = min(0.9999, (1 + n) / (10 + n))
        exact = decay * exact + (1 - decay) * float(np.float32(value))
    assert int(average.num_updates) == steps
    assert float(average.shadow["weight"]) == pytest.approx(exact, abs=1e-3)
    assert abs(float(average.shadow["weight"]) - 1.5) > 0.01  # it does lag behind the weights


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_of_16_bits_are_refused(dtype):
    net = nn.Linear(2, 2).to(dtype)
    with pytest.raises(ValueError, match="a 16-bit average never moves"):
        ExponentialAverage(net, 0.9999)


def test_a_step_that_was_left_out_moves_neither_average_nor_count():
    net = nn.Linear(2, 2)
    average = ExponentialAverage(net, 0.9)
    before = average.shadow["weight"].clone()
    net.weight.data += 1
    average.update(found_inf=torch.tensor(1.0))
    assert torch.equal(average.shadow["weight"], before)
    assert int(average.num_updates) == 0
    average.update(found_inf=torch.tensor(0.0))
    # first update: decay min(0.9, 1/10)
    torch.testing.assert_close(average.shadow["weight"], before + 0.9)


def test_swapping_twice_is_nothing_and_once_gives_the_average():
    net = nn.Linear(2, 2)
    average = ExponentialAverage(net, 0.9)
    net.weight.data += 1
    weight, shadow = net.weight.detach().clone(), average.shadow["weight"].clone()
    average.swap()
    assert torch.equal(net.weight, shadow)
    average.swap()
    assert torch.equal(net.weight, weight)


def test_frozen_parameters_have_no_average():
    net = nn.Linear(2, 2)
    net.bias.requires_grad_(False)
    assert set(ExponentialAverage(net, 0.9).shadow) == {"weight"}
