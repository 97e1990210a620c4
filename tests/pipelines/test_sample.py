"""`lavie sample` as a user meets it, and many videos with resume, here and on Ray."""

import hashlib
import json
import re
from pathlib import Path

import pytest
import torch
from rich.console import Console

from curation.corpus.store import Store
from curation.errors import LavieError
from inference.settings import CascadeConfig, MachineConfig, StageSettings
from inference.tiny import tiny_model
from inference.video_file import Encoding, read_video
from inference.weights import TinyWeights
from pipelines.cli import main
from pipelines.sample import (
    Personalisation,
    SampleJob,
    differences,
    file_name,
    read_prompts,
    sample_batch,
)
from training.models.exported import save_model

SMALL = ("--height", "16", "--width", "16", "--num-frames", "2", "--base.steps", "2")
CONSOLE = Console(quiet=True)


@pytest.fixture(autouse=True)
def one_thread():
    """The same sums on every machine."""
    torch.set_num_threads(1)


@pytest.fixture
def job(tmp_path):
    """``job(seed=3, steps=1)``: tiny videos into a folder, from weights of a seed."""

    def build(*, folder="videos", seed=0, steps=1):
        return SampleJob(
            out=Store(str(tmp_path / folder)),
            config=CascadeConfig(
                height=16, width=16, num_frames=2, base=StageSettings(steps=steps)
            ),
            weights={"base": TinyWeights(stage="base", seed=seed)},
            machine=MachineConfig(device="cpu", dtype="fp32"),
            personalisation=Personalisation(),
            encoding=Encoding(threads=1),
        )

    return build


def videos(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.mp4")}


def test_a_prompt_becomes_a_video_with_its_origin(tmp_path, capsys):
    out = tmp_path / "panda.mp4"
    assert main(["sample", "a panda", "--weights", "tiny", "--out", str(out), *SMALL]) == 0
    said = capsys.readouterr()
    assert str(out) in said.out
    assert "coloured noise" in said.err
    assert "base: 2 of 2 steps" in said.err
    video = read_video(out)
    assert video.frames_THWC.shape == (2, 16, 16, 3)
    assert video.description["prompt"] == "a panda"


def test_all_stages_with_commas_and_the_stages_between_beside(tmp_path):
    out = tmp_path / "panda.gif"
    stages = ("--stages", "base,interpolation,super-resolution")
    steps = ("--interpolation.steps", "2", "--super-resolution.steps", "1")
    code = main(
        ["sample", "a panda", "--weights", "tiny", "--out", str(out), *SMALL, *stages, *steps]
    )
    assert code == 0
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [
        f"panda{stage}.gif{end}"
        for stage in ("-base", "-interpolation", "")
        for end in ("", ".json")
    ]


def test_a_video_of_ones_own_is_interpolated(tmp_path, make_video):
    given = make_video(tmp_path / "given.mp4", [("red", 3)], size=(32, 32), fps=8)
    arguments = ["sample", "red", "--weights", "tiny", "--stages", "interpolation"]
    arguments += ["--video", str(given), "--out", str(tmp_path / "out.mp4"), *SMALL]
    assert main([*arguments, "--interpolation.steps", "2"]) == 0
    video = read_video(tmp_path / "out.mp4")
    assert video.frames_THWC.shape == (9, 16, 16, 3)
    assert video.fps == 24


def test_exported_weights_are_sampled_from(tmp_path):
    save_model(tiny_model("base", seed=5), tmp_path / "model")
    out = tmp_path / "panda.mp4"
    arguments = ["sample", "a panda", "--weights", str(tmp_path / "model"), "--out", str(out)]
    assert main([*arguments, *SMALL]) == 0
    assert len(read_video(out).description["weights_sha256"]["base"]) == 64


def test_weights_that_are_no_numbers_leave_no_video(tmp_path, capsys):
    model = tiny_model("base")
    model.net.conv_out.bias.data[0] = torch.nan
    save_model(model, tmp_path / "model")
    out = tmp_path / "black.mp4"
    arguments = ["sample", "a panda", "--weights", str(tmp_path / "model"), "--out", str(out)]
    assert main([*arguments, *SMALL]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "base, step 1 of 2" in said
    assert "conv_out.bias" in said
    assert "Traceback" not in said
    assert not out.exists()


def test_a_lora_changes_the_video_by_its_weight_and_is_on_record(tmp_path, monkeypatch):
    from safetensors.torch import save_file

    monkeypatch.setenv("LAVIE_CACHE", str(tmp_path / "cache"))
    name = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_v"
    factors = {"A": torch.eye(2, 32), "B": 5 * torch.eye(32, 2)}
    lora = tmp_path / "panda.safetensors"
    save_file({f"{name}.lora_{key}.weight": value for key, value in factors.items()}, lora)

    def sampled(*more):
        out = tmp_path / f"{len(list(tmp_path.iterdir()))}.mp4"
        arguments = ["sample", "a panda", "--weights", "tiny", "--out", str(out), *SMALL, *more]
        assert main(arguments) == 0
        return read_video(out)

    plain, none = sampled(), sampled("--lora", f"{lora}=0")
    whole = sampled("--lora", str(lora))
    assert (plain.frames_THWC == none.frames_THWC).all()
    assert (plain.frames_THWC != whole.frames_THWC).any()
    (said,) = whole.description["adjustment"]["loras"]
    digest = hashlib.sha256(lora.read_bytes()).hexdigest()
    assert said == {"name": lora.name, "sha256": {lora.name: digest}, "weight": 1.0}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["a", "--weights", "tiny", "--height", "100"], 2, "multiples of 8, got 100x512"),
        (["a", "--weights", "tiny", "--stages", "bass"], 2, "stages must be of base,"),
        (["--weights", "tiny"], 2, "give one prompt, or --prompts"),
        (["a", "--weights", "tiny", "--ray"], 2, "--ray is for many videos"),
        (["a", "--weights", "tiny", "--video", "gone.mp4"], 2, "no video at gone.mp4"),
        (["a", "--weights", "tiny", "--stages", "interpolation"], 2, "a video must be given"),
        (["a", "--weights", "nowhere"], 2, "no model of stage base in nowhere"),
        (["a", "--weights", "tiny", "--lora", "gone"], 2, "--lora: there is no file 'gone'"),
        (["a", "--weights", "tiny", "--device", "gpu"], 2, "device must be a torch device"),
        (["--weights", "tiny", "--prompts", "gone.txt"], 2, "no prompts can be read from gone.txt"),
    ],
)
def test_bad_input_is_named_before_any_work(arguments, code, message, tmp_path, capsys):
    out = ["--out", str(tmp_path / "new" / "x.mp4")]
    with pytest.raises(SystemExit) as end:  # of tyro, for what it refuses itself
        raise SystemExit(main(["sample", *arguments, *out]))
    assert end.value.code == code
    said = capsys.readouterr()
    assert message in " ".join((said.err + said.out).replace("\u2502", " ").split())
    assert not (tmp_path / "new").exists()


def test_an_existing_video_is_kept_until_overwrite_is_given(tmp_path, capsys):
    out = tmp_path / "x.mp4"
    out.write_text("precious")
    arguments = ["sample", "a panda", "--weights", "tiny", "--out", str(out), "--base.steps", "1"]
    arguments += ["--height", "32", "--width", "32", "--num-frames", "2"]
    assert main(arguments) == 2
    assert "is there already; --overwrite replaces it" in " ".join(capsys.readouterr().err.split())
    assert out.read_text() == "precious"
    assert main([*arguments, "--overwrite"]) == 0
    assert out.read_bytes()[4:8] == b"ftyp"


def test_many_videos_do_not_go_into_a_folder_of_somebody_else(tmp_path, capsys):
    (tmp_path / "prompts.txt").write_text("a panda")
    arguments = ["sample", "--weights", "tiny", "--prompts", str(tmp_path / "prompts.txt")]
    assert main([*arguments, "--out", str(tmp_path)]) == 2
    assert "it holds prompts.txt; name another folder" in " ".join(capsys.readouterr().err.split())


def test_missing_released_weights_come_with_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("LAVIE_CACHE", str(tmp_path / "empty"))
    monkeypatch.delenv("LAVIE_WEIGHTS", raising=False)
    stages = ("--stages", "base,super-resolution")
    assert main(["sample", "a panda", "--out", str(tmp_path / "x.mp4"), *stages]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "lavie weights fetch lavie stable-diffusion-1.4 x4-upscaler" in said
    assert "lavie_vsr.pt" in said


def test_every_prompt_and_seed_gets_one_file(job, tmp_path):
    made = sample_batch(job(), ["a panda", "snow"], [1, 2], console=CONSOLE)
    there = {path.name for path in (tmp_path / "videos").iterdir()}
    names = [file_name(prompt, seed) for prompt in ("a panda", "snow") for seed in (1, 2)]
    assert made == 4
    assert there == {*names, *(f"{name}.json" for name in names), "sampling.json"}
    said = json.loads((tmp_path / "videos" / f"{names[3]}.json").read_text("utf-8"))
    assert (said["prompt"], said["seed"]) == ("snow", 2)


def test_a_run_goes_on_where_it_stopped(job, tmp_path):
    sample_batch(job(), ["a panda"], [1, 2, 3], console=CONSOLE)
    before = videos(tmp_path / "videos")
    # killed after the video and before its JSON: not done
    (tmp_path / "videos" / f"{file_name('a panda', 2)}.json").unlink()
    made = sample_batch(job(), ["a panda", "snow"], [1, 2, 3], console=CONSOLE)
    after = videos(tmp_path / "videos")
    assert made == 4
    assert {name: after[name] for name in before} == before


def test_other_settings_or_weights_are_refused_by_name(job):
    sample_batch(job(), ["a panda"], [1], console=CONSOLE)
    with pytest.raises(LavieError, match=r"settings\.base\.steps was 1, is 2"):
        sample_batch(job(steps=2), ["a panda"], [1], console=CONSOLE)
    with pytest.raises(LavieError, match=r"weights_sha256\.base was tiny-untrained-seed-0"):
        sample_batch(job(seed=1), ["a panda"], [1], console=CONSOLE)


@pytest.mark.slow
def test_ray_makes_the_same_bytes_and_resumes(job, tmp_path):
    prompts = ["a panda", "snow", "rain"]
    sample_batch(job(folder="here"), prompts, [1], console=CONSOLE)
    try:
        made = sample_batch(job(folder="ray"), prompts, [1], console=CONSOLE, ray_address="local")
        again = sample_batch(job(folder="ray"), prompts, [1], console=CONSOLE, ray_address="local")
    finally:
        import ray

        ray.shutdown()
    assert (made, again) == (3, 0)
    assert videos(tmp_path / "ray") == videos(tmp_path / "here")


def test_names_are_readable_and_differ_for_every_prompt():
    assert file_name("A panda, drinking coffee", 3).startswith("a-panda-drinking-coffee-")
    assert file_name("a panda", 1) != file_name("A panda!", 1)
    assert file_name("\u718a\u732b", 1).endswith("-1.mp4")
    assert len(file_name("word " * 100, 1)) < 90
    assert "/" not in file_name("../../etc/passwd", 1)


def test_prompts_are_lines_without_comments_and_repetitions(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("# animals\na panda\n\n  snow  \na panda\n", encoding="utf-8")
    assert read_prompts(path) == ["a panda", "snow"]
    path.write_text("# nothing\n", encoding="utf-8")
    with pytest.raises(LavieError, match="holds no prompt"):
        read_prompts(path)


def test_differences_are_named_by_their_path():
    assert differences({"a": {"b": [1]}, "c": 1}, {"a": {"b": [1]}, "c": 1}) == []
    assert differences({"a": {"b": 1}}, {"a": {}}) == ["a.b was 1, is None"]


def test_every_flag_in_the_documentation_exists(capsys):
    page = (Path(__file__).parents[2] / "docs" / "sampling.md").read_text("utf-8")
    with pytest.raises(SystemExit):
        main(["sample", "--help"])
    offered = set(re.findall(r"--[a-z][a-z.-]*", capsys.readouterr().out))
    elsewhere = {"--size"}  # of the benchmark
    assert set(re.findall(r"--[a-z][a-z.-]*[a-z]", page)) - offered <= elsewhere
