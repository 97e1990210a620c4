"""The `lavie` command as a user meets it."""

from __future__ import annotations

import importlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from curation.corpus.manifest import CorpusInfo, read_corpus
from curation.corpus.store import Store
from curation.select.rule_presets import PRESETS as RECIPES
from pipelines import cli
from pipelines.presets import PRESETS
from pipelines.ray_cluster import _sigterm_kept


def run(*arguments: str) -> int:
    return cli.main(list(arguments))


@pytest.fixture
def films(tmp_path: Path, make_video: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a film, a picture and a text; the working folder."""
    folder = tmp_path / "films"
    folder.mkdir()
    make_video(folder / "film.mp4", [("red", 12)], size=(64, 36))
    Image.new("RGB", (64, 64)).save(folder / "picture.png")
    (folder / "notes.txt").write_text("notes")
    monkeypatch.chdir(folder)
    return folder


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


MISTAKES = [
    ("ftp://host/a.mp4", "sources: ", "s3://, gs:// and hf:// stores, or on http://"),
    ("https://host/list.csv", "sources: ", "a list is read from a file or a store; download it"),
    ("https://u:p@host/a.mp4", "sources: ", "carries a user name or a password"),
    ("hf://datasets/a.mp4", "sources: ", "'hf://datasets/a.mp4'"),
    ("ftp://host/a.mp4", "sources: ", "'ftp://host/a.mp4'"),
    ("s3://", "sources: ", "names no bucket"),
    ("gone/a.mp4", "sources: ", "'gone/a.mp4' does not exist"),
    ("", "sources: ", "empty name"),
    ("film.mp4 --rule motion_mean=>0.1", "--rule: ", "write motion_mean>="),
    ("film.mp4 --rule category==Ads", "--rule: ", "write category="),
    ("film.mp4 --rule caption==foo", "--rule: ", "write caption="),
    ("film.mp4 --rule motion_mean>=abc", "--rule: ", "got 'abc'"),
    ("film.mp4 --rule motoin_mean>=1", "--rule: ", "did you mean motion_mean"),
    ("film.mp4 --rule has_audio=true", "--rule: ", "has_audio is bool"),
    ("film.mp4 --rule fps>=5 --rule fps>=5", "--rule: ", "appears twice"),
    ("film.mp4 --drop-rule fps", "--drop-rule: ", "no rule is called 'fps'"),
    ("film.mp4 --selection ../evil", "--selection: ", "'../evil'"),
    ("film.mp4 --until nonsense", "--until ", "'nonsense'"),
    ("film.mp4 --dedup.max-distance-bits 40", "--dedup.max-distance-bits: ", "got 40"),
    ("film.mp4 --decode.threads 2 --export.threads 0", "--export.threads: ", "got 0"),
    ("s3:/x", "sources: ", "s3: without '//' names no file and no object"),
    ("film.mp4 --limit -3", "--limit: ", "got -3"),
    ("film.mp4 --sources-per-part 0", "--sources-per-part: ", "got 0"),
    ("film.mp4 --decode.sample-fps 99", "--decode.sample-fps: ", "got 99"),
    ("film.mp4 --decode.scenes.min-s 20 --decode.scenes.max-s 3", "--decode.scenes.max-s", "3.0"),
    ("film.mp4 --stations captions nonsense", "--stations: ", "nonsense"),
    ("film.mp4 --link-roots /", "--link-roots: ", "no effect without"),
    ("film.mp4 --until measure --until select", "--until ", "given 2 times"),
    ("film.mp4 --ray-address nowhere", "--ray-address: ", "HOST:PORT"),
    ("film.mp4 --ray-address h:99999 --dry-run", "--ray-address: ", "HOST:PORT"),
    ("*.mkv", "sources: ", "'*.mkv' names no video or image"),
    ("empty.csv", "list 'empty.csv' ", "has no rows"),
    ("gone.csv", "there is no list ", "'gone.csv'"),
    (
        "film.mp4 --presett tiny",
        "--presett: ",
        "no flag of lavie curate; perhaps you meant --preset",
    ),
    ("film.mp4 --decode.scene.min-s 2", "--decode.scene.min-s: ", "--decode.scenes.min-s"),
    ("film.mp4 --incomplete-layers fil", "--incomplete-layers: ", "perhaps you meant fill"),
    ("film.mp4 --limit", "--limit: ", "a value is due"),
    ("film.mp4 --limit 1e3", "--limit: ", "a whole number is due, got '1e3'"),
    ("film.mp4 --export.crf abc", "--export.crf: ", "a whole number is due, got 'abc'"),
    ("film.mp4 --decode.sample-fps abc", "--decode.sample-fps: ", "a number is due, got 'abc'"),
]


@pytest.mark.parametrize(("typed", "begins", "says"), MISTAKES, ids=[m[0] for m in MISTAKES])
def test_a_mistake_is_one_sentence_with_its_flag_and_exit_code_2(
    typed: str, begins: str, says: str, films: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (films / "empty.csv").write_text("uri,caption\n")
    source, _, flags = typed.partition(" ")
    arguments = ["curate", source, "--out", str(films / "c"), "--preset", "tiny", *flags.split()]
    assert run(*arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"error: {begins}")
    assert says in lines[0]


TILES_THAT_BLEND = (
    "sample --prompts {}/t --weights tiny --out {}/o --stages base,super-resolution "
    "--reuse-features 2"
)
UCF101 = "evaluate --protocol ucf101 --videos {}/v --out {}/r --reference {}/v --extractor {}/b"

WRONG_ANYWHERE = [
    ("status", "lavie status: CORPUS (Folder or prefix of the corpus) is missing"),
    ("status c d", "lavie status: takes no further word, got 'd'"),
    ("verify c --repiar", "--repiar: no flag of lavie verify; perhaps you meant --repair"),
    ("curat films", "there is no command 'curat'; perhaps you meant curate"),
    (
        "train bas --out {}/o",
        "NETWORK: it is one of base, interpolation, super-resolution, got 'bas'",
    ),
    ("status s3://", "CORPUS: 's3://' names no bucket"),
    ("report gs:///c", "CORPUS: 'gs:///c' names no bucket"),
    ("sample cat --out {}/o.mp4 --encoding.preset nonsense", "nonsense"),
    ("sample cat --out {}/o.mp4 --encoding.threads -1", "--encoding.threads: "),
    ("sample cat --weights tiny --out {}/o.mp4 --seed -1", "--seed: a seed is 0 to "),
    ("sample cat --weights tiny --out {}/o.mp4 --seed 9223372036854775808", "--seed: a seed is"),
    ("sample --prompts {}/t --weights tiny --out {}/o --seeds 1 -1", "--seeds: a seed is 0 to "),
    ("sample cat --out {}/o.mp4 --base.guidance nan", "--base.guidance: a finite number is due"),
    ("sample cat --out {}/o.mp4 --base.guidance inf", "--base.guidance: a finite number is due"),
    ("sample cat --out {}/o.mp4 --seed 3.5", "--seed: a whole number is due, got '3.5'"),
    ("sample cat --out {}/o.mp4 --num-frames 0", "--num-frames: num_frames must be 1 to 32"),
    ("sample cat --out {}/o.mp4 --height 63", "--height: height and width must be"),
    ("sample cat --out {}/o.mp4 --height 64 --tiling.height 0", "--tiling.height: height of"),
    ("sample cat --out {}/o.mp4 --base.steps 9 --interpolation.steps 0", "--interpolation.steps:"),
    ("verify s3:/x", "CORPUS: s3: without '//' names no file and no object"),
    ("curate {} --out s3:/x", "--out: s3: without '//' names no file and no object"),
    ("sample cat --out {}/o.mp4 --stages nonsense", "--stages: stages must be of base"),
    ("sample cat --out {}/o.mp4 --weights {}/nowhere", "--weights: no model of stage base"),
    ("sample cat --weights tiny --out {}/o.mp4 --device nonsense", "--device, --dtype: device"),
    ("sample cat --weights tiny --out {}/o.mp4 --lora {}/b", "--lora: {}/b is not a checkpoint"),
    ("sample cat --weights tiny --out {}/o.mp4 --lora {}/nowhere", "--lora: there is no file"),
    ("sample cat --weights tiny --out {}/o.mp4 --lora {}/b=x", "--lora: a file or file=weight"),
    ("sample cat --weights tiny --out {}/o.mp4 --lora {}/b=nan", "--lora: a weight is a finite"),
    ("sample cat --weights tiny --out {}/o.mp4 --lora {}", "--lora: no checkpoint at {}/"),
    ("sample cat --weights tiny --out {}/o.mp4 --word {}/nowhere", "--word: there is no file"),
    ("sample cat --weights tiny --out {}/o.mp4 --word {}/b", "--word: {}/b is no file of tensors"),
    ("sample cat --weights tiny --out {}/o.mp4 --word {}", "--word: no learned word at {}"),
    (
        "sample cat --weights tiny --out {}/o.mp4 --image-weights {}/nowhere",
        "--image-weights: there is no file",
    ),
    (
        "sample cat --weights tiny --out {}/o.mp4 --height 64 --width 64 --image-weights {}/b",
        "--image-weights: {}/b is not a checkpoint",
    ),
    ("sample cat --weights tiny --out {}/o.mp4 --seeds 1 2", "--seeds is for many videos"),
    ("sample cat --weights tiny --out {}/o.mp4 --base.seed -1", "--base.seed: seed must be 0 to"),
    ("sample cat --weights tiny --out {}/o.mp4 --noise-level 999", "--noise-level: noise_level"),
    ("sample cat --weights tiny --out {}/o.mp4 --noise-from cuda", "--noise-from: noise_from cuda"),
    ("sample cat --weights tiny --out {}/o.mp4 --device meta", "--device, --dtype: device must be"),
    ("sample cat --weights tiny --out {}/o.mp4 --tiling.overlap -1", "--tiling.overlap: overlap"),
    ("sample cat --weights tiny --out {}/o.mp4 --reuse-features 0", "--reuse-features: reuse_feat"),
    (TILES_THAT_BLEND, "--reuse-features: features are kept for each tile"),
    ("sample --prompts {}/t --weights tiny --out {}/o --lora {}/b", "--lora: {}/b is not a check"),
    ("sample --prompts {}/b --weights tiny --out {}/o", "--prompts: no prompts can be read"),
    ("sample --prompts {}/empty --weights tiny --out {}/o", "--prompts: "),
    ("sample cat --weights tiny --out /proc/x/y", "--out: /proc/x cannot be written"),
    (
        "train base --corpus {} --out {}/r --data.batch-size abc",
        "--data.batch-size: a whole number",
    ),
    (
        "train base --corpus {} --out {}/r --sample.fps nan",
        "--sample.fps: fps must be positive, got nan",
    ),
    ("evaluate --protocol msrvtt --videos {} --out {}/t", "--out: "),
    ("evaluate --protocol msrvtt --videos {}/nowhere --out {}/r", "--videos: no folder of videos"),
    ("evaluate --protocol msrvtt --videos {} --out /proc/x/y", "--out: /proc/x cannot be written"),
    (
        "evaluate --protocol vbench --videos {}/v --out {}/x --prompts {}/b",
        "--prompts: {}/b must be a text",
    ),
    ("evaluate --protocol vbench --videos {}/v --out {}/v", "--protocol vbench needs --prompts"),
    ("evaluate --protocol msrvtt --videos {}/v --out {}/r --captions {}/b", "--captions: {}/b is"),
    ("evaluate --protocol msrvtt --videos {}/v --out {}/r", "--videos: no captions at {}/v/a.mp4"),
    (
        f"{UCF101} --extractor-sha256 abc",
        "--extractor-sha256: 64 hexadecimal digits",
    ),
    (
        f"{UCF101} --extractor-sha256 {'0' * 64}",
        "--extractor: extractor {}/b has sha256",
    ),
    ("studio --port 0", "--port: port must be 1 to 65535"),
    ("studio --weights tiny --out /proc/x/y", "--out: /proc/x/y cannot be written"),
    ("studio --weights {}/nowhere --out {}", "--weights: no model of stage base"),
    ("studio --weights tiny --out {} --loras {}/nowhere", "--loras: no folder of LoRAs"),
    ("studio --weights tiny --out {} --height 63", "--height, --width: height and width must be"),
    ("studio --weights tiny --out {} --stages nonsense", "--stages: stages must be of base"),
    ("studio --weights tiny --out {} --stages interpolation", "--stages: the page needs"),
    ("studio --weights tiny --out {} --device nonsense", "--device, --dtype: device must be"),
    ("studio --weights tiny --out {} --num-frames 0", "--num-frames: num_frames must be"),
    ("status {}/b", "CORPUS: {}/b is a file where a folder is due"),
    ("verify {}/b", "CORPUS: {}/b is a file where a folder is due"),
    ("encode {}/nowhere --companions {}", "CORPUS, --selection: {}/nowhere holds no finished"),
    ("weights fetch", "name what to fetch; groups: "),
    ("weights path nonsense", "no model file or group is called 'nonsense'"),
    ("weights path stable-diffusion-1.4", "is a group of "),
    ("weights convert base --checkpoint {}/b --out {}", "--out: {} is there already"),
    ("weights convert base --checkpoint {}/b --out /proc/x/y", "--out: /proc/x cannot be written"),
    (
        "weights convert base --checkpoint {}/b --out {}/m",
        "/b is not a checkpoint of plain tensors",
    ),
    ("encode {} --companions {} --selection ../evil", "--selection: "),
    ("encode {} --companions {} --gpus -1", "--gpus: it must be at least 0"),
    ("encode {} --companions {} --fps nan", "--fps: a finite number is due"),
    ("encode ftp://x/y --companions {}", "CORPUS: it lies in a folder"),
    ("export ftp://x/y", "CORPUS: it lies in a folder"),
]


@pytest.mark.parametrize(("typed", "says"), WRONG_ANYWHERE, ids=[m[0] for m in WRONG_ANYWHERE])
def test_a_mistake_in_any_command_is_said_with_exit_code_2_before_any_work(
    typed: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "t").write_text("a cat")
    (tmp_path / "empty").write_text("")
    (tmp_path / "b").write_bytes(bytes(range(256)))
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "a.mp4").write_bytes(b"never read")
    held = sorted(tmp_path.iterdir())
    code = run(*typed.replace("{}", str(tmp_path)).split())
    told = " ".join(capsys.readouterr().err.split())
    assert code == 2, told
    assert says.replace("{}", str(tmp_path)) in told
    assert sorted(tmp_path.iterdir()) == held


def test_encoding_a_mistyped_corpus_makes_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("encode", str(tmp_path / "typo"), "--companions", str(tmp_path)) == 2
    assert "holds no finished shards" in capsys.readouterr().err
    assert not (tmp_path / "typo").exists()


def test_a_command_in_brief_has_the_first_sentence_of_the_whole_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        cli.parse(["--help"])
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for command, (file, name) in cli.COMMANDS.items():
        kind = getattr(importlib.import_module(f"pipelines.commands.{file}"), name)
        assert f"• {command} {kind.__doc__.splitlines()[0]}" in text


def test_the_help_of_all_commands_imports_none_of_them() -> None:
    """Nor does that of `train`."""
    heavy = "sorted({'ray', 'torch', 'diffusers', 'duckdb'} & set(sys.modules))"
    for asked in ("", "train"):
        program = (
            "import sys; from pipelines import cli\n"
            f"try: cli.main([*'{asked}'.split(), '--help'])\n"
            f"except SystemExit: print({heavy})"
        )
        told = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parents[2],
        )
        assert told.stdout.splitlines()[-1] == "[]"


def test_outputs_that_cannot_be_are_refused(
    films: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The footage's own folder, a file, an empty name, another store, a folder of the kernel's."""

    def said(out: str, code: int) -> str:
        assert run("curate", str(films), "--out", out, "--preset", "tiny") == code
        return capsys.readouterr().err

    assert "one of the source folders" in said(str(films), 2)
    assert "is a file where a folder is due" in said(str(films / "film.mp4"), 2)
    assert "empty name" in said("", 2)
    assert "got 'hf://a/b'" in said("hf://a/b", 2)
    for root in ("/sys", "/proc"):
        said_of = said(f"{root}/lavie-corpus/c", 2)
        assert said_of.startswith(f"error: --out: {root}/lavie-corpus/c cannot be written")


def test_commands_on_what_is_no_corpus_say_so_and_make_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("select", "export", "report", "status", "verify", "remove"):
        assert run(command, str(tmp_path / "typo")) == 2
        assert "holds no" in capsys.readouterr().err
    assert not (tmp_path / "typo").exists()


def test_a_later_command_takes_the_preset_that_the_corpus_was_curated_with(
    small_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (
        ["select", str(small_corpus)],
        ["export", "--selection", "x", str(small_corpus)],
    ):
        assert cli.parse(arguments).preset == "tiny"
    assert cli.parse(["select", str(small_corpus), "--preset", "vimeo25m"]).preset == "vimeo25m"
    shutil.copytree(small_corpus, tmp_path / "unnamed")
    store = Store(str(tmp_path / "unnamed"))
    replace(read_corpus(store), preset="").write(store)  # as versions before wrote it
    assert run("select", store.root, "--name", "mine") == 2
    said = capsys.readouterr().err
    assert "the rules are those of the preset embedded" in said
    assert "--preset" in said


def test_no_arguments_at_all_are_answered_with_the_commands(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main([]) == 2
    assert "lavie: one of curate, select, " in capsys.readouterr().err


def test_a_selection_that_is_not_there_is_named(
    small_corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("export", "report", "verify"):
        assert run(command, str(small_corpus), "--selection", "nope") == 2
        assert "'nope'" in capsys.readouterr().err


def test_a_folder_with_other_files_is_no_place_for_a_corpus(
    films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "holiday"
    out.mkdir()
    for name in ("a.mp4", "b.mp4", "c.txt", "notes"):
        (out / name).write_bytes(b"mine")
    assert run("curate", str(films), "--out", str(out), "--preset", "tiny") == 2
    assert "holds other things (a.mp4, b.mp4, c.txt, ...)" in capsys.readouterr().err
    assert sorted(path.name for path in out.iterdir()) == ["a.mp4", "b.mp4", "c.txt", "notes"]


def test_a_corpus_of_a_newer_schema_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    CorpusInfo(num_parts=0, layers={}, schema_version=999).write(Store(str(tmp_path)))
    assert run("select", str(tmp_path)) == 1
    assert "schema version 999" in capsys.readouterr().err


@pytest.mark.parametrize("recipe", [name for name in RECIPES if name != "everything"])
def test_every_recipe_is_found_under_either_spelling_with_its_own_settings(recipe: str) -> None:
    for spelled in (recipe, recipe.replace("-", "_")):
        command = cli.parse(cli.spelled(["select", "c", "--like", spelled]))
        assert command.config == RECIPES[recipe]()


def test_a_cluster_that_does_not_answer_is_said_within_seconds(
    films: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:  # bound and not listening: nobody can answer there
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        arguments = ("curate", str(films), "--out", str(films / "c"), "--preset", "tiny")
        assert run(*arguments, "--ray-address", address) == 1
    assert f"--ray-address: Ray is not at '{address}'" in capsys.readouterr().err
    assert not (films / "c").exists()


def test_stores_that_do_not_answer_well_are_one_sentence(
    films: Path, s3_bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = f"{s3_bucket}-missing"
    assert run("curate", f"{missing}/raw", "--out", str(films / "c"), "--preset", "tiny") == 1
    assert capsys.readouterr().err.startswith("error: ")
    assert run("curate", str(films), "--out", f"{missing}/c", "--preset", "tiny") == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_a_disk_that_takes_no_more_is_one_sentence(tmp_path: Path) -> None:
    """By a limit on the size of files, which fails writes as a full disk does."""
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (8, 8));"
        "from pipelines.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    done = subprocess.run(
        [sys.executable, "-c", code, "curate", "a.png", "--out", "c", "--preset", "tiny"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert "File too large" in done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"error: {tmp_path}/c/")
    assert "Traceback" not in done.stderr


def test_a_bug_stays_a_traceback(monkeypatch: pytest.MonkeyPatch, films: Path) -> None:
    """Only what was typed becomes a sentence: a ValueError from within is for the developers."""

    def broken(*_: object, **__: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr("pipelines.curate.measure", broken)
    with pytest.raises(ValueError, match="a bug"):
        run("curate", str(films), "--out", str(films / "c"), "--preset", "tiny")


def test_a_bug_of_sampling_or_measuring_is_not_taken_for_a_mistake_of_the_users(
    monkeypatch: pytest.MonkeyPatch, films: Path
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr("inference.cascade.sample_to_file", broken)
    with pytest.raises(ValueError, match="a bug"):
        run("sample", "cat", "--weights", "tiny", "--out", str(films / "o.mp4"))
    monkeypatch.setattr("pipelines.commands.evaluation.load_clip", broken)
    (films / "film.mp4.json").write_text(json.dumps({"prompt": "red", "seed": 0}))
    monkeypatch.setattr("pipelines.commands.evaluation.find", lambda weight: None)
    with pytest.raises(ValueError, match="a bug"):
        run("evaluate", "--protocol", "msrvtt", "--videos", str(films), "--out", str(films / "r"))


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(
    films: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(films.rglob("*"))
    arguments = ["curate", str(films), "--out", str(films / "c"), "--preset", "tiny", "--dry-run"]
    assert run(*arguments, "--rule", "fps>=5", "--limit", "1") == 0
    said = capsys.readouterr().out
    assert sorted(films.rglob("*")) == before
    for words in (
        "1 text: ",
        "--limit: the first 1 of 2 sources",
        "1 new, 0 known",
        "parts: 0 there, 1 to add",
        "caption_text",
        "fps>=5: 5 <= fps (videos)",
        "export: shards/default, to be made",
    ):
        assert words in said


def test_curate_help_begins_with_three_examples_and_fits_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        cli.parse(["curate", "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    examples = [line for line in lines if line.startswith("$ lavie curate ")]
    assert len(examples) == 3
    assert lines.index(examples[2]) < 8
    for line in examples:  # and they parse
        cli.parse(shlex.split(line)[2:])


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
    assert run(*arguments, "--rule", "aesthetic_score>=4.5") == 2
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
    assert run("status", str(tmp_path)) == 2
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
    assert run("weights", "check", "nothing") == 2
    assert "embedded" in capsys.readouterr().err


def test_settings_can_be_written_down(tmp_path: Path) -> None:
    from dataclasses import asdict

    for preset in PRESETS.values():
        assert json.loads(json.dumps(asdict(preset().river)))["stations"]


def told_to_end(*, taken: bool) -> None:
    with cli._terminable(), _sigterm_kept():
        if taken:
            signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt:
            raise KeyboardInterrupt from None


def test_a_sigterm_that_ray_takes_or_turns_into_an_interrupt_is_one_all_the_same() -> None:
    for taken in (False, True):
        with pytest.raises(cli.Terminated):
            told_to_end(taken=taken)


def test_a_refusal_names_the_preset_that_the_corpus_was_made_with(
    small_corpus: Path, films: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("curate", "film.mp4", "--out", str(small_corpus)) in (1, 2)
    assert "give --preset tiny, if nothing else is meant" in capsys.readouterr().err
