"""`lavie train` as a user runs it; and the whole way, from shards through training to an mp4."""

import json
import subprocess
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from inference.long_video import ContinuationPipeline
from inference.weights import exported_weights
from pipelines.cli import main
from pipelines.train import RayConfig, train_here, train_on_ray
from training.presets import tiny
from training.run_config import Source

STAGES = ("base", "interpolation", "super-resolution")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    """The number of threads decides the last bits."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def trained_cascade(small_corpus: Path, tmp_path_factory) -> Path:
    """Runs of all three stages: two steps each, a video sampled after the second."""
    runs = tmp_path_factory.mktemp("runs")
    for stage in STAGES:
        arguments = ["train", stage, "--corpus", str(small_corpus), "--out", str(runs / stage)]
        arguments += ["--preset", "tiny", "--steps", "2", "--phases.0.sizes-px", "64", "64"]
        arguments += ["--watch.sample-every-steps", "2", "--watch.evaluation-samples", "2"]
        assert main(arguments) == 0
    return runs


def described(path: Path, ffmpeg_exe: str) -> str:
    """What ffmpeg says of a file after decoding all of it."""
    command = [ffmpeg_exe, "-nostdin", "-i", str(path), "-f", "null", "-"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stderr


def test_the_trained_cascade_samples_through_all_stages_to_a_file_that_plays(
    trained_cascade, tmp_path, ffmpeg_exe
):
    out = tmp_path / "panda.mp4"
    arguments = [
        "sample",
        "what wide-0 shows",
        "--weights",
        str(trained_cascade),
        "--out",
        str(out),
    ]
    arguments += ["--stages", "base,interpolation,super-resolution", "--num-frames", "4"]
    arguments += ["--height", "64", "--width", "64", "--base.steps", "2"]
    arguments += ["--interpolation.steps", "2", "--super-resolution.steps", "2"]
    assert main(arguments) == 0
    told = described(out, ffmpeg_exe)
    assert "h264" in told
    assert "yuv420p" in told
    assert "256x256" in told
    assert "24 fps" in told
    assert "frame=   13" in told  # 4 key frames, 3 between each two
    beside = json.loads((tmp_path / "panda.mp4.json").read_text())
    assert beside["prompt"] == "what wide-0 shows"


@pytest.mark.parametrize(
    ("stage", "frames", "size"),
    [("base", 8, "64x64"), ("interpolation", 13, "64x64"), ("super-resolution", 4, "64x64")],
)
def test_videos_are_sampled_in_mid_training(stage, frames, size, trained_cascade, ffmpeg_exe):
    video = trained_cascade / stage / "samples" / "step-00000002" / "0.mp4"
    told = described(video, ffmpeg_exe)
    assert size in told
    assert f"frame={frames:5d}" in told


def test_a_run_leaves_curves_a_log_its_configuration_and_a_model(trained_cascade):
    run = trained_cascade / "base"
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    names = {name for line in lines for name in line}
    wanted = {
        "loss/video",
        "loss/image",
        "gradient_norm",
        "learning_rate",
        "speed/samples_per_s",
        "speed/data_wait_share",
        "held_out/raw/video",
        "held_out/average/image",
    }
    assert wanted <= names
    assert any(name.startswith("loss_by_time/video/") for name in names)
    assert list((run / "tensorboard").glob("events*"))
    assert json.loads((run / "config.json").read_text())["stage"] == "base"
    assert (run / "model" / "tokenizer").is_dir()


def test_what_a_run_is_fed_with_is_said_before_the_first_step(small_corpus, tmp_path, capsys):
    arguments = ["train", "base", "--corpus", str(small_corpus), "--out", str(tmp_path)]
    arguments += ["--preset", "tiny", "--steps", "1", "--phases.0.sizes-px", "64", "64"]
    arguments += ["--watch.evaluation-samples", "2", "--model.first-frame-channels"]
    assert main(arguments) == 0
    told = capsys.readouterr().out
    assert told.index("clips to train on") < told.index("step 0 of 1")
    # 38 clips, of which some are held out
    row = next(line for line in told.splitlines() if "video-64x64" in line and "only" in line)
    clips, _, _, held_out, *_ = [cell.strip() for cell in row.strip("│").split("│")][2:]
    assert int(clips) + int(held_out) == 38
    assert int(held_out) >= 1

    # The same run, trained with its first frame given, continues a frame.
    weights = exported_weights(tmp_path, ("base",))["base"]
    pipeline = ContinuationPipeline.from_model(weights.load())
    first_THWC = np.full((1, 64, 64, 3), 128, np.uint8)
    output = pipeline(
        "what wide-0 shows",
        first_THWC,
        num_frames=7,
        clip_frames=4,
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    )
    assert output.frames.shape == (1, 7, 64, 64, 3)


def test_the_saved_configuration_starts_the_same_run(trained_cascade, tmp_path):
    config = trained_cascade / "base" / "config.json"
    out = str(tmp_path / "again")
    assert main(["train", "base", "--config-file", str(config), "--out", out]) == 0
    ours, theirs = (
        load_file(folder / "model" / "unet" / "model.safetensors")
        for folder in (tmp_path / "again", trained_cascade / "base")
    )
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["base", "--preset", "tiny"], "no corpus to train on; name one with --corpus"),
        (["base", "--corpus", "nowhere", "--preset", "tiny"], "holds no"),
        (["base", "--corpus", "CORPUS"], "lavie weights fetch stable-diffusion-1.4"),
        (["interpolation", "--corpus", "CORPUS"], "lavie weights fetch lavie"),
        (
            [
                "base",
                "--corpus",
                "CORPUS",
                "--preset",
                "tiny",
                "--model.initial-weights",
                "/nowhere",
            ],
            "training base cannot start from /nowhere",
        ),
        (
            ["base", "--corpus", "CORPUS", "--preset", "tiny", "--data.batch-size", "64"],
            "no full batch",
        ),
        (
            ["base", "--corpus", "CORPUS", "--selection", "a", "--selection", "b"],
            "--selection is given 2 times for 1 --corpus",
        ),
        (["base", "--config-file", "/nowhere.json"], "no configuration at /nowhere.json"),
        (
            ["base", "--corpus", "CORPUS", "--preset", "tiny", "--watch.wandb-project", "p"],
            "the package wandb is missing",
        ),
    ],
    ids=range(9),
)
def test_what_cannot_be_trained_is_refused_before_the_first_step(
    arguments, message, small_corpus, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("LAVIE_CACHE", str(tmp_path / "empty"))
    words = [str(small_corpus) if word == "CORPUS" else word for word in arguments]
    assert main(["train", *words, "--out", str(tmp_path / "run")]) == 1
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_configuration_with_a_wrong_field_is_named(tmp_path, capsys):
    file = tmp_path / "config.json"
    content = asdict(tiny("base"))
    content["optim"]["ema_decay"] = 1.5
    file.write_text(json.dumps(content))
    assert main(["train", "base", "--config-file", str(file), "--out", str(tmp_path / "r")]) == 1
    assert "ema_decay must be in [0, 1), got 1.5" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_a_run_begun_alone_goes_on_under_ray_train_and_learns_the_same(small_corpus, tmp_path):
    preset = tiny("base")
    config = replace(
        preset,
        phases=(replace(preset.phases[0], steps=3),),
        data=replace(preset.data, sources=(Source(corpus=str(small_corpus)),), micro_batch_size=1),
        save=replace(preset.save, every_steps=1),
        watch=replace(preset.watch, evaluation_samples=2, log_every_steps=1),
    )
    train_here(config, str(tmp_path / "alone"), on_log=lambda *_: None)
    first = replace(config, phases=(replace(config.phases[0], steps=1),))
    train_here(first, str(tmp_path / "both"), on_log=lambda *_: None)
    how = RayConfig(num_workers=2, cpus_per_worker=0.5, storage=str(tmp_path / "ray"))
    train_on_ray(config, str(tmp_path / "both"), how)
    alone, both = (
        load_file(tmp_path / name / "model" / "unet" / "model.safetensors")
        for name in ("alone", "both")
    )
    for key in alone:
        torch.testing.assert_close(both[key], alone[key], rtol=1e-3, atol=2e-4)
