"""Whole runs of the tiny preset on a small real corpus."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from training.checkpoint import ChangedRun
from training.config import Source, TrainConfig
from training.data.loader import TrainingData
from training.distributed import joined
from training.presets import tiny
from training.stages import stage_of
from training.trainer import Hooks, Outcome, train

STAGES = ("base", "interpolation", "super_resolution")


@pytest.fixture(scope="module")
def config_of(small_corpus: Path) -> Callable[..., TrainConfig]:
    """``config_of("base", steps=4, save_every=2)``: the tiny preset on the small corpus."""

    def make(stage: str, *, steps: int = 4, save_every: int = 2) -> TrainConfig:
        preset = tiny(stage)
        return replace(
            preset,
            phases=(replace(preset.phases[0], steps=steps, sizes_px=((48, 64),)),),
            data=replace(preset.data, sources=(Source(corpus=str(small_corpus)),)),
            save=replace(preset.save, every_steps=save_every),
            watch=replace(
                preset.watch,
                log_every_steps=1,
                evaluate_every_steps=1000,
                evaluation_samples=2,
                evaluation_timesteps=(500,),
            ),
        )

    return make


def run(config: TrainConfig, folder: Path, **hooks: object) -> Outcome:
    with joined() as ranks:
        return train(config, str(folder), ranks, Hooks(**hooks))  # type: ignore[arg-type]


def state(folder: Path, step: int) -> dict[str, torch.Tensor]:
    """Every tensor of a checkpoint: model, optimizer, average, counters."""
    tensors: dict[str, torch.Tensor] = {}
    for path in sorted((folder / "checkpoints" / f"step-{step:08d}").glob("*.safetensors")):
        tensors |= load_file(path)
    return tensors


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def log(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in log(folder) if "learning_rate" in line]


@pytest.mark.parametrize("stage", STAGES)
def test_two_halves_make_the_same_bits_as_one_run(stage, config_of, tmp_path):
    run(config_of(stage, steps=4), tmp_path / "whole")
    run(config_of(stage, steps=2), tmp_path / "halves")
    outcome = run(config_of(stage, steps=4), tmp_path / "halves")
    assert outcome.step == 4
    assert equal(state(tmp_path / "whole", 4), state(tmp_path / "halves", 4))
    assert losses(tmp_path / "whole") == losses(tmp_path / "halves")
    model = "model/unet/model.safetensors"
    assert (tmp_path / "whole" / model).read_bytes() == (tmp_path / "halves" / model).read_bytes()
