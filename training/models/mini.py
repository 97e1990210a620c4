"""lavie-mini's networks: LaVie's architecture at a size that two processor cores can really train."""

from __future__ import annotations

from dataclasses import replace

from training.models.schedule import Stage
from training.models.unet_config import UNetConfig


def mini_config(stage: Stage) -> UNetConfig:
    """A stage with three levels of 48 to 96 channels, transformers on all: 4.7 M parameters for base.

    Heads are 48 wide, since 32 of their dimensions are turned by rotary angles.
    """
    return replace(
        UNetConfig.of(stage),
        block_out_channels=(48, 96, 96),
        num_attention_heads=(1, 2, 2),
        attention_levels=(stage != "super_resolution", True, True),
        only_cross_attention=(stage == "super_resolution",) * 2 + (False,),
        layers_per_block=1,
        norm_num_groups=16,
    )
