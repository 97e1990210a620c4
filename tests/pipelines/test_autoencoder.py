"""A small cascade's beginning as a user makes it: autoencoder, network on its latents, a video."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from inference.video_file import read_video
from pipelines.cli import main
from training.models.autoencoder import Autoencoder
from training.models.exported import load_model, read_objective


@pytest.fixture(scope="module")
def companions(small_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("small") / "companions"
    arguments = ["train", "autoencoder", "--corpus", str(small_corpus), "--out", str(out)]
    arguments += ["--frames.size-px", "32", "48", "--frames.fps", "1", "--steps", "2"]
    arguments += ["--network.width", "16", "--network.num-blocks", "1"]
    assert main(arguments) == 0
    return out


def test_the_autoencoder_says_what_it_gives_back_beside_plain_components(companions: Path):
    told = json.loads((companions / "fidelity.json").read_text())
    assert set(told["psnr_db"]) == {"plain", "decoded", "decoded_with_noise"}
    assert told["settings"]["network"]["latent_channels"] == 8
    assert Autoencoder.load(companions / "vae").latents.channels == 8


def test_a_network_is_trained_on_its_latents_and_samples_to_a_file(
    companions: Path, small_corpus: Path, tmp_path: Path
):
    run = tmp_path / "base"
    arguments = ["train", "base", "--corpus", str(small_corpus), "--out", str(run)]
    arguments += ["--preset", "mini", "--model.companions", str(companions), "--steps", "1"]
    arguments += ["--phases.0.sizes-px", "32", "48", "--data.batch-size", "2"]
    arguments += ["--data.micro-batch-size", "2", "--watch.evaluation-samples", "1"]
    assert main(arguments) == 0
    model = load_model(run / "model", read_objective(run / "model"))
    assert (model.net.config.in_channels, model.net.config.cross_attention_dim) == (8, 384)
    assert model.objective.latent_scale == 1.0
    assert not list((run / "model" / "text_encoder").glob("*.safetensors"))

    out = tmp_path / "video.mp4"
    arguments = ["sample", "what wide-0 shows", "--weights", str(run), "--out", str(out)]
    assert main([*arguments, "--base.steps", "1"]) == 0  # at the size and pace of its training
    video = read_video(out)
    assert (video.frames_THWC.shape, video.fps) == ((8, 32, 48, 3), 8.0)
    asked = ["--base.steps", "1", "--num-frames", "4", "--width", "64", "--overwrite"]
    assert main([*arguments, *asked]) == 0
    assert read_video(out).frames_THWC.shape == (4, 32, 64, 3)


def test_a_folder_that_is_there_is_not_written_over(companions: Path, small_corpus: Path, capsys):
    arguments = ["train", "autoencoder", "--corpus", str(small_corpus), "--out", str(companions)]
    assert main(arguments) == 2
    assert "is there already; name a new one" in capsys.readouterr().err


def test_a_corpus_without_shards_is_one_sentence(tmp_path: Path, capsys):
    (tmp_path / "corpus").mkdir()
    out = str(tmp_path / "companions")
    arguments = ["train", "autoencoder", "--corpus", str(tmp_path / "corpus"), "--out", out]
    assert main(arguments) == 2
    assert "--corpus" in capsys.readouterr().err
    assert not (tmp_path / "companions").exists()
