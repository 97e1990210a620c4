"""No operation of a step makes the host wait for the device.

Tensors on torch's meta device stand for a device whose numbers the host does not know: reading one
fails there, as it would wait on CUDA, and a copy from the CPU is seen by the dispatcher.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from training.data.batch import Batch, Sample, stack
from training.distributed import Ranks
from training.learner import Learner
from training.metrics import LossSums
from training.models.tiny import NUM_TOKENS, TEXT_WIDTH, tiny_autoencoder, tiny_unet
from training.presets import tiny
from training.run_config import LossConfig, TrainConfig
from training.stages import Companions, stage_of

SIZE = (32, 48)
META = torch.device("meta")


class Copies(TorchDispatchMode):
    """Counts the copies of CPU tensors to the device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None) -> Any:
        out = func(*args, **(kwargs or {}))
        first = args[0] if args else None
        tensors = isinstance(first, Tensor) and isinstance(out, Tensor)
        if tensors and first.device.type == "cpu" and out.device.type == "meta":
            self.found[str(func)] += 1
        return out


class Attention(TorchFunctionMode):
    """Keeps queries, keys, values and masks of every attention."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[list[Tensor]] = []

    def __torch_function__(self, func, types, args=(), kwargs=None) -> Any:
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention:
            mask = kwargs.get("attn_mask")
            self.calls.append([*args[:3], *([] if mask is None else [mask])])
        return func(*args, **kwargs)


def batch_of(config: TrainConfig) -> Batch:
    """Two samples; of super-resolution as pixels, else as latents; their text always as states."""
    stage, frames = stage_of(config), config.sample.num_frames
    images = config.sample.images_per_video
    pixels = config.stage == "super_resolution"
    moments = torch.zeros(4, frames + images, SIZE[0] // 8, SIZE[1] // 8)
    samples = [
        Sample(
            step=0,
            position=position,
            size_px=SIZE,
            clip_id="drawn",
            image_ids=(),
            captions=("",) * (1 + images),
            frames_FCHW=torch.zeros(frames + images, 3, *SIZE, dtype=torch.uint8)
            if pixels
            else None,
            mean_CFhw=None if pixels else moments,
            logvar_CFhw=None if pixels else moments,
            text_KLD=torch.zeros(1 + images, NUM_TOKENS, TEXT_WIDTH),
            num_video_frames=frames,
            num_images=images,
        )
        for position in range(2)
    ]
    draws = [stage.draw(0, sample) for sample in samples]
    return stack(samples, draws, kind="joint" if images else "video", pool="drawn")


def learner_of(config: TrainConfig) -> Learner:
    autoencoder = None
    if config.stage == "super_resolution":
        autoencoder = tiny_autoencoder(config.stage)
    learner = Learner(
        config,
        stage_of(config),
        tiny_unet(config.stage),
        Companions(autoencoder, None),
        Ranks(0, 1, META),
    )
    learner.begin_phase(0)
    return learner


LOSS = LossConfig(min_snr_gamma=5.0, offset_noise=0.1, condition_noise_steps=100)


@pytest.mark.parametrize("stage", ["base", "interpolation", "super_resolution"])
def test_the_host_waits_for_no_number_of_a_micro_batch(stage: str) -> None:
    config = replace(tiny(stage), loss=LOSS)
    learner, batch = learner_of(config), batch_of(config).to(META)
    sums = LossSums(META)
    learner.accumulate(
        batch, num_micro_batches=2, last=False
    )  # the schedule's table is copied once
    copies = Copies()
    with copies:
        for _ in range(2):
            loss, errors, feed = learner.accumulate(batch, num_micro_batches=2, last=True)
            sums.add_errors(errors, feed.timestep_B)
    assert loss.is_meta
    assert not copies.found


def test_reading_a_number_would_be_seen() -> None:
    config = tiny("base")
    learner, batch = learner_of(config), batch_of(config).to(META)
    loss, _, _ = learner.accumulate(batch, num_micro_batches=1, last=True)
    with pytest.raises(RuntimeError, match="meta tensors"):
        float(loss)
    copies = Copies()
    with copies:
        torch.zeros(3).to(META)
    assert sum(copies.found.values()) == 1


@pytest.mark.parametrize(("stage", "tensors"), [("base", {3, 4}), ("interpolation", {3})])
@pytest.mark.parametrize("channels_last", [False, True])
def test_attention_lies_as_cudas_fused_kernels_want_it(
    stage: str, tensors: set[int], channels_last: bool
) -> None:
    """They refuse whatever has a last dimension with another stride than 1."""
    config = tiny(stage)
    config = replace(config, scale=replace(config.scale, channels_last=channels_last))
    learner, batch = learner_of(config), batch_of(config).to(META)
    attention = Attention()
    with attention:
        learner.accumulate(batch, num_micro_batches=1, last=True)
    assert {len(call) for call in attention.calls} == tensors  # the fourth is the relative bias
    assert {tensor.stride(-1) for call in attention.calls for tensor in call} == {1}
