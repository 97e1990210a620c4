"""`lavie train` as a user runs it; and the whole way, from shards through training to an mp4."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from curation.corpus.manifest import canonical_json
from curation.corpus.shards import manifest_digest, read_manifest
from curation.corpus.store import Store
from inference.long_video import ContinuationPipeline
from inference.weights import exported_weights
from pipelines.cli import main
from pipelines.ray_config import RayConfig
from pipelines.train import train_here, train_on_ray
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
    assert "0-video-64x64: 100% at 8 frames a second" in told

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
        (["base", "--corpus", "nowhere", "--preset", "tiny"], "--corpus: nowhere holds no"),
        (["base", "--corpus", "CORPUS", "--preset", "tiny", "--steps", "0"], "--steps: steps of"),
        (
            ["base", "--corpus", "CORPUS", "--preset", "tiny", "--loss.zero-terminal-snr"],
            "zero_terminal_snr needs loss.prediction velocity or sample",
        ),
        (
            ["base", "--corpus", "CORPUS", "--preset", "tiny", "--data.micro-batch-size", "3"],
            "batch_size must be a multiple of micro_batch_size, got 4 and 3",
        ),
        (
            ["interpolation", "--corpus", "CORPUS", "--preset", "tiny", "--sample.num-frames", "8"],
            "num_frames of interpolation must be 4 k + 1",
        ),
        (
            ["base", "--corpus", "CORPUS", "--preset", "tiny", "--selection", "../x"],
            "--selection: the name of a selection",
        ),
        (["base", "--corpus", "https://x/y", "--preset", "tiny"], "--corpus: it lies in a folder"),
        (
            ["base", "--corpus", "CORPUS", "--preset", "tiny", "--replay", "1"],
            "holds no run to replay a step of",
        ),
        (
            ["base", "--corpus", "CORPUS", "--preset", "tiny", "--cluster.num-workers", "0"],
            "num_workers must be at least 1, got 0",
        ),
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
    ids=range(17),
)
def test_what_cannot_be_trained_is_refused_before_the_first_step(
    arguments, message, small_corpus, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("LAVIE_CACHE", str(tmp_path / "empty"))
    words = [str(small_corpus) if word == "CORPUS" else word for word in arguments]
    try:
        code = main(["train", *words, "--out", str(tmp_path / "run")])
    except SystemExit as refused:  # by the parser
        code = refused.code
    told = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert message in told
    of_the_world = ("weights fetch", "no full batch", "wandb")  # not what was typed
    assert code == (1 if any(words in told for words in of_the_world) else 2)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_stopgap_captions_are_trained_on_when_asked_for(small_corpus, tmp_path, capsys):
    corpus = tmp_path / "corpus"
    shutil.copytree(small_corpus, corpus)
    store = Store(str(corpus))
    manifest = read_manifest(store, "default") | {"caption_engines": {"tags": 46}}
    manifest["digest"] = manifest_digest(manifest)
    store.write("shards/default/manifest.json", canonical_json(manifest))
    arguments = ["train", "base", "--corpus", str(corpus), "--out", str(tmp_path / "run")]
    arguments += ["--preset", "tiny", "--steps", "1", "--phases.0.sizes-px", "32", "48"]
    assert main(arguments) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "46 of the 46 captioned clips" in told
    assert "Traceback" not in told
    assert not (tmp_path / "run").exists()
    assert main([*arguments, "--allow-stopgap-captions"]) == 0
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    assert saved["data"]["allow_stopgap_captions"] is True


def test_a_configuration_with_a_wrong_field_is_named(tmp_path, capsys):
    file = tmp_path / "config.json"
    content = asdict(tiny("base"))
    content["optim"]["ema_decay"] = 1.5
    file.write_text(json.dumps(content))
    assert main(["train", "base", "--config-file", str(file), "--out", str(tmp_path / "r")]) == 2
    assert "ema_decay must be in [0, 1), got 1.5" in " ".join(capsys.readouterr().err.split())


def test_a_setting_of_another_version_is_named_and_not_passed_over(tmp_path, capsys):
    file = tmp_path / "config.json"
    content = asdict(tiny("base"))
    content["model"]["start"] = content["model"].pop("initial_weights")
    content["phases"][0]["lr"] = 1.0
    file.write_text(json.dumps(content))
    assert main(["train", "base", "--config-file", str(file), "--out", str(tmp_path / "r")]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "settings that this version does not know: phases.0.lr, model.start" in told


def test_a_folder_of_somebody_else_is_not_trained_into(small_corpus, tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("mine")
    arguments = ["train", "base", "--corpus", str(small_corpus), "--preset", "tiny"]
    assert main([*arguments, "--out", str(tmp_path)]) == 2
    assert "was not made by this command, it holds thesis.txt" in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]


def test_ctrl_c_saves_the_step_and_says_how_to_go_on(small_corpus, tmp_path):
    """A real process, with reading processes; the signal goes to all of them, as a terminal's does."""
    run = tmp_path / "run"
    command = [sys.executable, "-m", "pipelines", "train", "base", "--corpus", str(small_corpus)]
    command += ["--preset", "tiny", "--out", str(run), "--watch.evaluation-samples", "2"]
    command += ["--data.num-workers", "1", "--watch.log-every-steps", "1", "--steps", "100000"]
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
        cwd=root,
    ) as trainer:
        assert trainer.stdout is not None
        for line in trainer.stdout:
            if line.startswith("step ") and "loss" in line and "held-out" not in line:
                break
        os.killpg(trainer.pid, signal.SIGINT)
        told, warned = trainer.communicate(timeout=120)
    assert trainer.returncode == 75, warned
    assert "Ctrl-C again stops now" in warned
    stopped = int(re.search(r"saved and stopped after step (\d+)", told).group(1))
    assert f"--out {run}" in told.split("go on with: lavie train")[1]
    saved = run / "checkpoints" / f"step-{stopped:08d}"
    assert json.loads((saved / "complete.json").read_text())["step"] == stopped


@pytest.mark.slow
def test_a_second_ctrl_c_stops_at_once_and_saves_nothing(small_corpus, tmp_path):
    run = tmp_path / "run"
    command = [sys.executable, "-m", "pipelines", "train", "base", "--corpus", str(small_corpus)]
    command += ["--preset", "tiny", "--out", str(run), "--watch.evaluation-samples", "2"]
    # A long step, so that the first Ctrl-C cannot have its way before the second comes.
    command += ["--data.batch-size", "32", "--data.micro-batch-size", "1"]
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as trainer:
        assert trainer.stderr is not None
        while not (run / "config.json").exists():  # the handlers are there before it
            assert trainer.poll() is None
            time.sleep(0.1)
        trainer.send_signal(signal.SIGINT)
        for line in trainer.stderr:
            if "Ctrl-C again stops now" in line:
                break
        trainer.send_signal(signal.SIGINT)
        _, told = trainer.communicate(timeout=60)
    assert trainer.returncode == 130, told
    assert "interrupted" in told
    assert "Traceback" not in told
    assert not list(run.glob("checkpoints/*/complete.json"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "times", "code"), [("SIGINT", 1, 75), ("SIGTERM", 1, 75), ("SIGINT", 2, 130)]
)
def test_a_signal_saves_the_step_of_all_workers_under_ray_train(
    number, times, code, small_corpus, tmp_path
):
    """A real process with two workers of a private Ray; the second Ctrl-C does not wait for them."""
    run = tmp_path / "run"
    command = [sys.executable, "-m", "pipelines", "train", "base", "--corpus", str(small_corpus)]
    command += ["--preset", "tiny", "--out", str(run), "--watch.evaluation-samples", "2", "--ray"]
    command += ["--data.micro-batch-size", "1", "--watch.log-every-steps", "1", "--steps", "100000"]
    command += ["--cluster.num-workers", "2", "--cluster.cpus-per-worker", "0.5"]
    command += ["--cluster.storage", str(tmp_path / "ray")]
    if times == 2:
        command += ["--data.batch-size", "32"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
        cwd=Path(__file__).parents[2],
    ) as trainer:
        begun = run / ("config.json" if times == 2 else "log.jsonl")
        while not begun.exists():
            assert trainer.poll() is None, trainer.communicate()
            time.sleep(0.2)
        for _ in range(times):
            # Terminals send Ctrl-C to all that they have started, and batch systems SIGTERM.
            os.killpg(trainer.pid, getattr(signal, number))
            time.sleep(0.3)
        told, warned = trainer.communicate(timeout=120)
    assert trainer.returncode == code, warned
    complete = list(run.glob("checkpoints/*/complete.json"))
    if code == 130:
        assert not complete
        return
    stopped = int(re.search(r"saved and stopped after step (\d+)", told).group(1))
    saved = run / "checkpoints" / f"step-{stopped:08d}"
    assert json.loads((saved / "complete.json").read_text())["step"] == stopped


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
