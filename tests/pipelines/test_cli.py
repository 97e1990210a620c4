"""The `lavie` command as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines import cli
from pipelines.presets import PRESETS


def run(*arguments: str) -> int:
    return cli.main(list(arguments))


def test_a_preset_is_where_the_defaults_come_from() -> None:
    for name, preset in PRESETS.items():
        command = cli.parse(["curate", "a.mp4", "--out", "corpus", "--preset", name])
        assert command.config == preset()


def test_a_flag_changes_one_setting_of_the_preset() -> None:
    command = cli.parse(
        ["curate", "a.mp4", "--out", "c", "--preset=tiny", "--decode.sample-fps", "3"]
    )
    assert command.config.river.decode.sample_fps == 3
    assert command.config.river.stations == PRESETS["tiny"]().river.stations


def test_help_shows_units_and_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.parse(["export", "--help"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    assert "--max-seconds-per-shard" in text
    assert "(default: 2000.0)" in text


def test_a_setting_out_of_range_is_named_with_its_rule(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.parse(["curate", "a.mp4", "--out", "c", "--decode.sample-fps", "99"])
    assert left.value.code == 2
    words = " ".join("".join(capsys.readouterr()).split())
    assert "sample_fps must be" in words
    assert "99" in words


def test_missing_model_files_stop_the_run_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LAVIE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    out = tmp_path / "corpus"
    assert run("curate", "a.mp4", "--out", str(out), "--preset", "vimeo25m") == 1
    error = " ".join(capsys.readouterr().err.split())
    assert "sac+logos+ava1-l14-linearMSE.pth" in error
    assert "21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0" in error
    assert "lavie weights fetch" in error
    assert not out.exists()


def test_a_rule_on_a_column_that_will_not_be_there_stops_the_run_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "corpus"
    arguments = ("curate", "a.mp4", "--out", str(out), "--preset", "tiny")
    assert run(*arguments, "--rule", "aesthetic_score>=4.5") == 1
    assert "aesthetic_score" in capsys.readouterr().err
    assert not out.exists()


def test_a_rule_that_cannot_be_read_is_shown_with_how_one_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("curate", "a.mp4", "--out", str(tmp_path / "c"), "--preset", "tiny")
    assert run(*arguments, "--rule", "nice clips please") == 2
    assert "COLUMN>=NUMBER" in capsys.readouterr().err


def test_a_source_that_is_not_there_is_said_and_leaves_no_corpus(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(
        "curate", str(tmp_path / "no*.mp4"), "--out", str(tmp_path / "c"), "--preset", "tiny"
    )
    assert "no*.mp4" in capsys.readouterr().err
    assert not (tmp_path / "c" / "corpus.json").exists()


def test_status_of_a_folder_without_a_corpus_says_what_makes_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("status", str(tmp_path)) == 1
    assert "lavie curate" in capsys.readouterr().err


def test_weights_path_prints_the_path_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LAVIE_CACHE", str(tmp_path))
    assert run("weights", "path", "big-buck-bunny.mp4") == 1
    assert "lavie weights fetch big-buck-bunny.mp4" in " ".join(capsys.readouterr().err.split())
    assert run("weights", "path", "transnetv2.pth") == 0
    assert Path(capsys.readouterr().out.strip()).is_file()


def test_an_unknown_model_file_is_named_with_the_choices(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("weights", "check", "nothing") == 1
    assert "embedded" in capsys.readouterr().err


def test_settings_can_be_written_down(tmp_path: Path) -> None:
    from dataclasses import asdict

    for preset in PRESETS.values():
        assert json.loads(json.dumps(asdict(preset().river)))["stations"]
