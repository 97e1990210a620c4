"""`lavie evaluate` as a user meets it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines import cli


def run(*arguments: str | Path) -> int:
    return cli.main(["evaluate", *map(str, arguments)])


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory, make_video: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("films")
    for index, look in enumerate(("red", "teal", "gold")):
        make_video(folder / f"{index}.mp4", [(look, 16)], size=(64, 48), fps=8)
        (folder / f"{index}.mp4.json").write_text(json.dumps({"prompt": look, "seed": index}))
    return folder


@pytest.fixture(scope="module")
def extractor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TorchScript program: the mean of each channel."""
    import torch

    class Means(torch.nn.Module):
        def forward(self, video: torch.Tensor) -> torch.Tensor:
            return video.mean(dim=[2, 3, 4])

    path = tmp_path_factory.mktemp("extractor") / "means.pt"
    torch.jit.script(Means()).save(str(path))
    return path


def test_ucf101_prints_fvd_beside_the_papers_and_names_deviations(
    films: Path, extractor: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sha256 = hashlib.sha256(extractor.read_bytes()).hexdigest()
    common = ("--protocol", "ucf101", "--videos", films, "--extractor", extractor)
    common += ("--extractor-sha256", sha256, "--frechet.generated.crop-px", "40")
    kept = tmp_path / "reference.safetensors"
    out = tmp_path / "first.json"
    assert run(*common, "--reference", films, "--save-reference", kept, "--out", out) == 0
    said = capsys.readouterr()
    assert "LaVie's paper: 526.3" in said.out
    assert "generated.crop_px is 40, the protocol has 270" in said.out
    assert sha256 in said.err
    result = json.loads(out.read_text())
    assert result["videos"]["count"] == 3

    assert run(*common, "--reference", kept, "--out", tmp_path / "again.json") == 0
    again = json.loads((tmp_path / "again.json").read_text())
    assert again["metrics"] == result["metrics"]


def test_a_frame_smaller_than_the_papers_crop_stops_the_run(
    films: Path, extractor: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sha256 = hashlib.sha256(extractor.read_bytes()).hexdigest()
    out = tmp_path / "r.json"
    flags = ("--reference", films, "--extractor", extractor, "--extractor-sha256", sha256)
    assert run("--protocol", "ucf101", "--videos", films, *flags, "--out", out) == 1
    assert "is 64x48, a centre square of 270 cannot be cut" in capsys.readouterr().err
    assert not out.exists()


def test_msrvtt_measures_clipsim_with_the_prompts_beside_the_videos(
    films: Path, tiny_clip_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r.json"
    flags = ("--clip.architecture", tiny_clip_folder, "--out", out)
    assert run("--protocol", "msrvtt", "--videos", films, *flags) == 0
    assert "CLIPSIM: " in capsys.readouterr().out
    assert json.loads(out.read_text())["clip"]["name"] == tiny_clip_folder.name


def test_vbench_gets_its_names(films: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps([]))
    flags = ("--protocol", "vbench", "--videos", films, "--out", tmp_path / "vbench")
    assert run(*flags, "--prompts", prompts) == 2
    more = tmp_path / "videos"
    more.mkdir()
    for seed in range(5):
        (more / f"{seed}.mp4").write_bytes(b"video")
        (more / f"{seed}.mp4.json").write_text(json.dumps({"prompt": "a cat", "seed": seed}))
    (tmp_path / "p.txt").write_text("a cat\n")
    flags = ("--protocol", "vbench", "--videos", more, "--out", tmp_path / "vbench")
    assert run(*flags, "--prompts", tmp_path / "p.txt") == 0
    names = sorted(path.name for path in (tmp_path / "vbench").iterdir())
    assert names == [f"a cat-{i}.mp4" for i in range(5)]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--protocol", "ucf101"), "needs --reference"),
        (("--protocol", "vbench"), "needs --prompts"),
        (("--protocol", "msrvtt", "--reference", "r"), "belongs to --protocol ucf101"),
        (("--protocol", "msrvtt", "--frechet.seed", "-1"), "seed must be at least 0"),
    ],
    ids=["reference", "prompts", "foreign", "seed"],
)
def test_flags_that_do_not_fit_the_protocol_are_wrong_usage(
    flags: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--videos", "v", "--out", "r.json", *flags) == 2
    assert message in capsys.readouterr().err


def test_clip_weights_that_are_missing_stop_the_run_before_any_work(
    films: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LAVIE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    assert run("--protocol", "msrvtt", "--videos", films, "--out", tmp_path / "r.json") == 1
    assert "lavie weights fetch" in " ".join(capsys.readouterr().err.split())
