"""Whole runs of the tiny preset on a small real corpus."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load, load_file

from curation.corpus.store import Store
from pipelines.replay import replay
from training import learner as learner_module
from training import trainer as trainer_module
from training.checkpoint import ChangedRun
from training.data.loader import TrainingData
from training.distributed import process_group
from training.metrics import TooManyBadSteps
from training.presets import tiny
from training.run_config import Source, TrainConfig
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


def run(config: TrainConfig, folder: Path | str, **hooks: object) -> Outcome:
    with process_group() as ranks:
        return train(config, str(folder), ranks, Hooks(**hooks))  # type: ignore[arg-type]


def state(folder: Path, step: int) -> dict[str, torch.Tensor]:
    """Every tensor of a checkpoint: model, optimizer, average, counters."""
    tensors: dict[str, torch.Tensor] = {}
    for path in sorted((folder / "checkpoints" / f"step-{step:08d}").glob("*.safetensors")):
        tensors |= {key: tensor.clone() for key, tensor in load_file(path).items()}
    return tensors


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def log(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in log(folder) if "learning_rate" in line]


@pytest.fixture(scope="module")
def whole_run(config_of, tmp_path_factory) -> Callable[[str], Path]:
    """Folder of a run of four steps that nothing interrupted, with checkpoints 2, 3 and 4."""

    @cache
    def make(stage: str) -> Path:
        folder = tmp_path_factory.mktemp("whole") / stage
        run(config_of(stage, steps=4, save_every=1), folder)
        return folder

    return make


@pytest.mark.parametrize(
    "stage", ["base", "interpolation", pytest.param("super_resolution", marks=pytest.mark.slow)]
)
def test_two_halves_make_the_same_bits_as_one_run(stage, config_of, whole_run, tmp_path):
    run(config_of(stage, steps=2), tmp_path)
    outcome = run(config_of(stage, steps=4), tmp_path)
    whole = whole_run(stage)
    assert outcome.step == 4
    assert equal(state(whole, 4), state(tmp_path, 4))
    assert losses(whole) == losses(tmp_path)
    model = "model/unet/model.safetensors"
    assert (whole / model).read_bytes() == (tmp_path / model).read_bytes()


def command(config: TrainConfig, folder: Path, tmp_path: Path, *more: str) -> list[str]:
    """`lavie train` on a configuration, as arguments of this Python."""
    file = tmp_path / "config.json"
    file.write_text(json.dumps(asdict(config)))
    stage = config.stage.replace("_", "-")
    words = ["-m", "pipelines", "train", stage, "--config-file", str(file), "--out", str(folder)]
    return [*words, "--preset", "tiny", *more]


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


@pytest.mark.parametrize(
    "moment", [pytest.param("begun", marks=pytest.mark.slow), "tensors written"]
)
def test_a_run_killed_while_it_saves_goes_on_with_the_same_bits(
    moment, config_of, whole_run, tmp_path
):
    config = config_of("base", steps=4, save_every=1)
    folder = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, *command(config, folder, tmp_path)], env=environment()
    )
    draft = folder / "checkpoints" / ".writing-step-00000002"
    try:
        while not (draft.exists() if moment == "begun" else list(draft.glob("*.safetensors"))):
            assert process.poll() is None or process.returncode == 0, "the run failed by itself"
            if process.poll() == 0:  # the disk was faster than we: nothing was killed
                pytest.skip("the checkpoint was whole before it could be interrupted")
    finally:
        process.kill()
        process.wait()
    outcome, whole = run(config, folder), whole_run("base")
    assert outcome.step == 4
    assert not draft.exists()
    assert equal(state(whole, 4), state(folder, 4))
    assert losses(whole) == losses(folder)


def test_sigterm_finishes_the_step_saves_and_leaves_with_a_code_to_try_again(config_of, tmp_path):
    config = config_of("base", steps=500, save_every=400)
    folder = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, *command(config, folder, tmp_path)],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "gradient" in line:  # the first step is logged
            process.send_signal(signal.SIGTERM)
            break
    rest = process.stdout.read()
    assert process.wait(timeout=120) == 75
    assert "saved and stopped after step" in rest
    assert "go on with: " in rest
    steps = [path.name for path in (folder / "checkpoints").iterdir()]
    assert len(steps) == 1
    assert not (folder / "model").exists()


def test_a_resume_with_other_settings_is_refused_and_named(config_of, whole_run, tmp_path):
    config = config_of("base")
    shutil.copytree(whole_run("base"), tmp_path / "run")
    other = replace(config, seed=7, optim=replace(config.optim, ema_decay=0.5))
    with pytest.raises(
        ChangedRun, match=r"(?s)optim.ema_decay: was 0.99, is 0.5.*seed: was 0, is 7"
    ):
        run(other, tmp_path / "run")


@pytest.mark.parametrize(
    "name", ["corpus/0/manifest", "autoencoder", "text_encoder", "objective", "architecture"]
)
def test_a_resume_against_other_inputs_is_refused_and_named(name, config_of, whole_run, tmp_path):
    """The checkpoint says what it was made of; here it was made of something else."""
    shutil.copytree(whole_run("base"), tmp_path / "run")
    marker = tmp_path / "run" / "checkpoints" / "step-00000004" / "complete.json"
    content = json.loads(marker.read_text())
    content["made_of"][name] = "0" * 64
    marker.write_text(json.dumps(content))
    with pytest.raises(ChangedRun, match=f"{name}: was 0000"):
        run(config_of("base", steps=5), tmp_path / "run")


def test_a_resume_may_change_what_is_not_learnt(config_of, whole_run, tmp_path):
    config = config_of("base")
    shutil.copytree(whole_run("base"), tmp_path / "run")
    data = replace(config.data, micro_batch_size=1, prefetch=5)
    phases = (replace(config.phases[0], steps=5),)
    assert run(replace(config, data=data, phases=phases), tmp_path / "run").step == 5


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    config_of, whole_run, tmp_path, caplog
):
    config = config_of("base")
    shutil.copytree(whole_run("base"), tmp_path / "run")
    expected = state(tmp_path / "run", 4)
    victim = next((tmp_path / "run" / "checkpoints" / "step-00000004").glob("*.safetensors"))
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    assert run(config, tmp_path / "run").step == 4
    assert "checkpoint of step 4 is passed over" in caplog.text
    assert equal(state(tmp_path / "run", 4), expected)


@pytest.mark.parametrize(
    "part",
    [
        pytest.param("model", marks=pytest.mark.slow),
        pytest.param("optimizer", marks=pytest.mark.slow),
        "average",  # the one that leaves the losses as they were
    ],
)
def test_forgetting_a_part_on_resume_would_be_seen(
    part, config_of, whole_run, tmp_path, monkeypatch
):
    """Negative control of the tests above: each part of the state decides the last bits."""
    whole = tmp_path / "run"
    shutil.copytree(whole_run("base"), whole)
    shutil.rmtree(whole / "checkpoints" / "step-00000004")

    class Forgetful(trainer_module.Checkpoints):
        def load(self, step: int, state: dict[str, object]) -> None:
            super().load(step, {key: value for key, value in state.items() if key != part})

    monkeypatch.setattr(trainer_module, "Checkpoints", Forgetful)
    run(config_of("base"), whole)
    assert not equal(state(whole_run("base"), 4), state(whole, 4))


def ranks_run(number: int, config: TrainConfig, folder: Path, tmp_path: Path) -> None:
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(number)]
    arguments = [sys.executable, *words, *command(config, folder, tmp_path)]
    subprocess.run(arguments, env=environment(), check=True, timeout=280)


def assert_same_but_for_rounding(one: Path, other: Path, step: int) -> None:
    assert losses(one) == pytest.approx(losses(other), rel=1e-5)
    ours, theirs = state(one, step), state(other, step)
    assert ours.keys() == theirs.keys()
    for key in ours:
        if key.startswith("model."):
            # Adam turns a rounding error of a tiny gradient into one of its step
            torch.testing.assert_close(ours[key], theirs[key], rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize(
    "number",
    [pytest.param(2, id="2"), pytest.param(4, id="4", marks=pytest.mark.slow)],
)
def test_more_ranks_learn_the_same(number, config_of, tmp_path):
    config = config_of("base", steps=3, save_every=3)
    config = replace(config, data=replace(config.data, micro_batch_size=1))
    run(config, tmp_path / "one")
    ranks_run(number, config, tmp_path / "more", tmp_path)
    assert_same_but_for_rounding(tmp_path / "one", tmp_path / "more", 3)


@pytest.mark.slow
def test_a_sharded_run_goes_on_alone_and_a_lonely_one_sharded(config_of, tmp_path):
    """FSDP2 on two ranks, then one process, then two ranks again: checkpoints are dealt anew."""
    whole = config_of("base", steps=3, save_every=1)
    whole = replace(whole, data=replace(whole.data, micro_batch_size=1))
    run(whole, tmp_path / "one")
    for steps, ranks in ((1, 2), (2, 1), (3, 2)):
        config = replace(
            whole,
            phases=(replace(whole.phases[0], steps=steps),),
            scale=replace(whole.scale, parallel="fsdp"),
        )
        if ranks == 1:
            run(config, tmp_path / "more")
        else:
            ranks_run(ranks, config, tmp_path / "more", tmp_path)
    assert losses(tmp_path / "one") == pytest.approx(losses(tmp_path / "more"), rel=1e-5)
    ours, theirs = (
        load_file(tmp_path / name / "model" / "unet" / "model.safetensors")
        for name in ("one", "more")
    )
    assert ours.keys() == theirs.keys()
    for key in ours:
        torch.testing.assert_close(ours[key], theirs[key], rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("stage", STAGES)
def test_ranks_share_out_the_very_samples_times_and_noise(stage, config_of, tmp_path):
    config = config_of(stage, steps=2)
    config = replace(config, data=replace(config.data, micro_batch_size=1))
    draw, data = stage_of(config).draw, TrainingData(config, cache=tmp_path)

    def whole_batches(world_size: int) -> list[tuple[object, ...]]:
        found = []
        for rank in range(world_size):
            batches = data.batches(start_step=0, rank=rank, world_size=world_size, draw=draw)
            for batch in batches:
                bits = [batch.draws[name].numpy().tobytes() for name in sorted(batch.draws)]
                pixels = batch.frames_BFCHW.numpy().tobytes()
                found.append(
                    (batch.step, batch.positions, batch.clip_ids, batch.captions, pixels, *bits)
                )
        return sorted(found, key=lambda row: row[:2])

    alone = whole_batches(1)
    assert [row[:2] for row in alone] == [(step, (at,)) for step in range(2) for at in range(4)]
    assert whole_batches(2) == alone
    assert whole_batches(4) == alone


def test_a_step_that_is_not_finite_never_reaches_the_weights_and_names_its_clips(
    config_of, whole_run, tmp_path, monkeypatch
):
    config = config_of("base", steps=6, save_every=1)
    shutil.copytree(whole_run("base"), tmp_path / "run")
    before = state(tmp_path / "run", 4)
    true_errors = learner_module.frame_errors

    def poisoned(predicted, *arguments):
        return true_errors(predicted * float("nan"), *arguments)

    monkeypatch.setattr(learner_module, "frame_errors", poisoned)
    one_more = replace(config, phases=(replace(config.phases[0], steps=5),))
    run(one_more, tmp_path / "run")
    after = state(tmp_path / "run", 5)
    changed = [key for key in before if not torch.equal(before[key], after[key])]
    assert changed == ["progress.bad_steps"]
    events = [line for line in log(tmp_path / "run") if line.get("event") == "not_finite"]
    assert [event["step"] for event in events] == [4]
    assert len(events[0]["clip_ids"]) == config.data.batch_size

    strict = replace(config, watch=replace(config.watch, max_nonfinite_steps=1))
    with pytest.raises(TooManyBadSteps, match="2 steps had a loss or gradient"):
        run(strict, tmp_path / "run")


def test_a_batch_that_does_not_divide_is_refused_before_any_work(config_of):
    with pytest.raises(ValueError, match=r"batch_size must be a multiple .* got 5 and 2"):
        replace(config_of("base").data, batch_size=5)


def test_a_replayed_step_is_the_batch_of_that_step(config_of, whole_run, tmp_path):
    config = config_of("base")
    shutil.copytree(whole_run("base"), tmp_path / "run")
    before = (tmp_path / "run" / "log.jsonl").read_bytes()
    samples = replay(config, str(tmp_path / "run"), 3, Console(quiet=True))
    ids = TrainingData(config, cache=tmp_path / "run" / "catalog").clip_ids(3)
    assert [sample.clip_id for sample in samples] == ids
    alpha = config.sample.images_per_video / config.sample.num_frames
    again = sum(s.video_error + alpha * s.image_error for s in samples) / len(samples)
    line = next(line for line in log(tmp_path / "run") if line["step"] == 3 and "loss" in line)
    assert line["loss"] == pytest.approx(again, rel=1e-5)
    assert (tmp_path / "run" / "replay" / "step-00000003.png").exists()
    assert (tmp_path / "run" / "log.jsonl").read_bytes() == before


def changed(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> set[str]:
    """Names of the network's tensors that differ."""
    names = {key.removeprefix("model.") for key in one if key.startswith("model.")}
    return {name for name in names if not torch.equal(one[f"model.{name}"], other[f"model.{name}"])}


def test_a_curriculum_changes_what_learns_and_goes_on_in_any_phase(config_of, tmp_path):
    config = config_of("base", save_every=1)
    first = replace(config.phases[0], name="all", steps=1)
    second = replace(first, name="time", trainable="temporal", steps=2, sizes_px=((32, 48),))
    config = replace(
        config, phases=(first, second), optim=replace(config.optim, warmup_steps=1, decay="cosine")
    )
    run(config, tmp_path / "whole")
    states = [state(tmp_path / "whole", step) for step in (1, 2, 3)]
    late = changed(states[0], states[2])
    assert late
    assert all("_temp" in name for name in late)
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "checkpoints" / "step-00000003")
    run(config, tmp_path / "cut")
    assert equal(states[2], state(tmp_path / "cut", 3))


def test_adapters_learn_alone_and_are_saved_for_diffusers(config_of, tmp_path):
    config = config_of("base", steps=2, save_every=1)
    config = replace(config, lora=replace(config.lora, rank=2))
    run(config, tmp_path)
    learnt = changed(state(tmp_path, 1), state(tmp_path, 2))
    assert learnt
    assert all(".lora_" in name for name in learnt)
    file = tmp_path / "lora" / "pytorch_lora_weights.safetensors"
    keys = set(load_file(file))
    assert all(key.startswith("unet.") and key.endswith("weight") for key in keys)
    assert {key.rsplit(".", 2)[1] for key in keys} == {"lora_A", "lora_B"}
    assert not any("_temp" in key for key in keys)
    assert not (tmp_path / "model").exists()


def test_batches_of_images_and_of_videos_alone_train_and_go_on_exactly(config_of, tmp_path):
    config = config_of("base", steps=4, save_every=2)
    config = replace(config, loss=replace(config.loss, joint="separate", min_snr_gamma=5.0))
    run(config, tmp_path / "whole")
    lines = [line for line in log(tmp_path / "whole") if "learning_rate" in line]
    kinds = {
        tuple(sorted(key for key in line if key in ("loss/video", "loss/image"))) for line in lines
    }
    assert kinds == {("loss/video",), ("loss/image",)}
    half = replace(config, phases=(replace(config.phases[0], steps=2),))
    run(half, tmp_path / "halves")
    run(config, tmp_path / "halves")
    assert equal(state(tmp_path / "whole", 4), state(tmp_path / "halves", 4))


def test_bf16_passes_leave_weights_and_average_in_fp32(config_of, tmp_path):
    config = config_of("base", steps=2, save_every=1)
    config = replace(
        config,
        scale=replace(
            config.scale, autocast="bf16", checkpoint_activations=True, channels_last=True
        ),
        loss=replace(config.loss, offset_noise=0.1),
    )
    run(config, tmp_path)
    whole = state(tmp_path, 2)
    shutil.rmtree(tmp_path / "checkpoints" / "step-00000002")
    run(config, tmp_path)
    assert equal(whole, state(tmp_path, 2))
    floats = {tensor.dtype for tensor in state(tmp_path, 2).values() if tensor.is_floating_point()}
    assert floats == {torch.float32}
    assert all(loss == loss for loss in losses(tmp_path))


def test_a_run_in_an_object_store_goes_on_exactly(config_of, whole_run, s3_bucket):
    run(config_of("base", steps=2), f"{s3_bucket}/run")
    run(config_of("base"), f"{s3_bucket}/run")
    store = Store(f"{s3_bucket}/run")
    tensors = {}
    for name in store.files("checkpoints/step-00000004"):
        if name.endswith(".safetensors"):
            tensors |= load(store.read(name))
    assert equal(tensors, state(whole_run("base"), 4))
    assert store.exists("model/unet/model.safetensors")
    assert store.exists("config.json")
    lines = [json.loads(line) for line in store.read("log.jsonl").splitlines()]
    assert [line["step"] for line in lines if "learning_rate" in line] == [0, 1, 2, 3]
