from dataclasses import FrozenInstanceError, replace

import pytest

from training.models.unet_config import UNetConfig


def test_the_named_configurations_differ_in_what_the_paper_says():
    base, interpolation = UNetConfig.base(), UNetConfig.interpolation()
    assert (base.in_channels, interpolation.in_channels) == (4, 8)
    assert base.temporal_positions
    assert not interpolation.temporal_positions
    assert UNetConfig.super_resolution().takes_noise_level
    assert not base.takes_noise_level


def test_a_configuration_cannot_be_changed_in_place():
    with pytest.raises(FrozenInstanceError):
        UNetConfig.base().in_channels = 9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block_out_channels": ()}, "block_out_channels must name at least one level"),
        ({"attention_levels": (True,)}, r"attention_levels must .* got \(True,\)"),
        ({"num_attention_heads": (8, 8)}, r"num_attention_heads must .* got \(8, 8\)"),
        ({"num_attention_heads": 7}, "got 320 channels and 7 heads at level 0"),
        ({"num_attention_heads": 20}, r"heads must be at least 32 wide .* got 16"),
        ({"norm_num_groups": 48}, r"norm_num_groups \(48\), got 320"),
        ({"layers_per_block": 0}, "layers_per_block must be at least 1, got 0"),
        ({"frame_attention": "all"}, "frame_attention must be one of .* got 'all'"),
        ({"in_channels": 0}, "in_channels must be at least 1, got 0"),
    ],
)
def test_a_configuration_that_cannot_be_built_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(UNetConfig.base(), **change)
