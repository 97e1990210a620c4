"""Deep features that are left by one call and taken over by the next."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from training.models.unet import DeepFeatures

STAGES = ("base", "interpolation", "super_resolution")


@pytest.mark.parametrize("stage", STAGES)
def test_a_call_that_leaves_its_features_gives_the_same_output(stage, tiny_net, inputs):
    net = tiny_net(stage)
    given = inputs(net)
    with torch.no_grad():
        plain, deep = net(**given), DeepFeatures()
        assert torch.equal(net(**given, deep=deep), plain)
        assert torch.allclose(net(**given, deep=deep), plain, atol=1e-6)


@pytest.mark.parametrize("stage", STAGES)
def test_a_call_that_takes_features_over_still_sees_its_own_sample(stage, tiny_net, inputs):
    net = tiny_net(stage)
    given, deep = inputs(net), DeepFeatures()
    with torch.no_grad():
        first = net(**given, deep=deep)
        other = given | {"sample_BCTHW": given["sample_BCTHW"] + 0.1}
        near, exact = net(**other, deep=deep), net(**other)
    assert not torch.equal(near, first)
    assert (near - exact).abs().mean() < 2 * (first - exact).abs().mean()


def test_a_call_that_takes_features_over_costs_a_fraction(tiny_net, inputs):
    net = tiny_net("base")
    given, deep, flop = inputs(net), DeepFeatures(), []
    for _ in range(2):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            net(**given, deep=deep)
        flop.append(counter.get_total_flops())
    assert flop[1] < 0.4 * flop[0]
