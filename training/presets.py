"""Named runs: LaVie's three stages as the paper describes them, and a size for two processor cores.

Where the paper gives no value, the docstrings say whose value stands in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from training.models.schedule import Stage
from training.run_config import (
    DataConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    Phase,
    SampleConfig,
    SaveConfig,
    ScaleConfig,
    TrainConfig,
    WatchConfig,
)

PresetName = Literal["paper", "mini", "tiny"]

DROPPED_CAPTION = {"base": "", "interpolation": "None", "super_resolution": "None"}
"""What stands for no caption; the released samplers' negative prompts are of the same kind."""


def paper(stage: Stage) -> TrainConfig:
    """The stage as the paper trains it; initial weights and sources are the caller's to name.

    Steps, batch size and learning rate are not in the paper: 100,000 steps of 80 samples (Cinemo,
    the same network and group) at 1e-4 (Latte, the same group), clipped at 1.
    """
    if stage == "base":
        sample = SampleConfig()
        phase = Phase(steps=100_000)
    elif stage == "interpolation":
        # 256 x 256 patches: of frames scaled to cover them, at a place drawn for each clip
        sample = SampleConfig(
            num_frames=61, fps=24.0, images_per_video=0, crop="random", dropped_caption="None"
        )
        phase = Phase(steps=100_000, sizes_px=((256, 256),))
    else:
        sample = SampleConfig(
            num_frames=8,
            fps=24.0,
            images_per_video=0,
            fit="patch",
            image_clips=True,
            dropped_caption="None",
        )
        phase = Phase(steps=100_000, sizes_px=((320, 320),), trainable="temporal")
    return TrainConfig(
        stage=stage,
        phases=(phase,),
        sample=sample,
        model=ModelConfig(initial_weights=""),
        optim=OptimConfig(warmup_steps=1000),
    )


def tiny(stage: Stage) -> TrainConfig:
    """A network of about a million parameters on 64 x 64 pixels; what the tests train, in seconds."""
    published = paper(stage)
    frames = {"base": 8, "interpolation": 13, "super_resolution": 4}[stage]
    return replace(
        published,
        phases=(replace(published.phases[0], steps=200, sizes_px=((64, 64),), learning_rate=1e-3),),
        sample=replace(
            published.sample,
            num_frames=frames,
            images_per_video=2 if stage == "base" else 0,
            image_clips=False,
        ),
        data=DataConfig(
            batch_size=4,
            micro_batch_size=2,
            holdout_share=0.1,
            holdout_by="clip",
            max_dropped_share=1.0,
            num_workers=0,
        ),
        model=ModelConfig(initial_weights="tiny"),
        optim=OptimConfig(ema_decay=0.99),
        scale=ScaleConfig(autocast="off"),
        save=SaveConfig(every_steps=50),
        watch=WatchConfig(evaluate_every_steps=50, evaluation_samples=16),
    )


def mini(stage: Stage) -> TrainConfig:
    """lavie-mini: 5 million parameters on 64 x 112 pixels, which learn the films that packages ship.

    Hours on one processor core; docs/mini.md tells the story.

    Velocity and min-SNR 5 learn fastest in few steps (arXiv 2303.09556); a cosine and a short average
    make the most of a run that ends soon.
    """
    published = paper(stage)
    frames = {"base": 8, "interpolation": 29, "super_resolution": 4}[stage]
    return replace(
        published,
        phases=(Phase(steps=2500, sizes_px=((64, 112),), learning_rate=1e-3),),
        sample=replace(
            published.sample,
            num_frames=frames,
            images_per_video=2 if stage == "base" else 0,
            crop="center",
            image_clips=False,
        ),
        data=DataConfig(
            batch_size=16,
            micro_batch_size=16,
            holdout_share=0.05,
            holdout_by="clip",
            max_dropped_share=1.0,
            num_workers=0,
        ),
        model=ModelConfig(initial_weights="mini"),
        loss=LossConfig(prediction="velocity", min_snr_gamma=5.0),
        optim=OptimConfig(warmup_steps=100, decay="cosine", ema_decay=0.99),
        save=SaveConfig(every_steps=100),
        watch=WatchConfig(evaluate_every_steps=500, evaluation_samples=16),
    )


PRESETS: dict[PresetName, Callable[[Stage], TrainConfig]] = {
    "paper": paper,
    "mini": mini,
    "tiny": tiny,
}
