"""`lavie encode` as a user meets it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from curation.corpus.manifest import canonical_json
from curation.corpus.shards import manifest_digest, read_manifest
from curation.corpus.store import Store
from pipelines.cli import main


@pytest.fixture(scope="module")
def companions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from training.models.tiny import tiny_autoencoder, tiny_text_encoder

    folder = tmp_path_factory.mktemp("companions")
    tiny_autoencoder("base").save(folder / "vae")
    tiny_text_encoder().save(folder)
    return folder


def arguments(corpus: Path, companions: Path) -> list[str]:
    settings = ["--sizes-px", "32", "48", "--num-frames", "8"]
    return ["encode", str(corpus), "--companions", str(companions), *settings]


def run(corpus: Path, companions: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipelines", *arguments(corpus, companions)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=240,
    )


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.slow
def test_a_corpus_is_encoded_once_and_goes_on_after_a_loss(
    small_corpus: Path, companions: Path, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus"
    shutil.copytree(small_corpus, corpus)
    done = run(corpus, companions)
    assert done.returncode == 0, done.stdout + done.stderr
    (digest,) = re.findall(r"digest: ([0-9a-f]{12})", done.stdout)
    (folder,) = (corpus / "encoded/default").iterdir()
    assert folder.name == f"latents@1-{digest}"
    before = contents(folder)

    shard = sorted(folder.glob("*/*.index.parquet"))[1]
    for path in (shard, folder / "manifest.json", folder / "index.parquet"):
        path.unlink()
    again = run(corpus, companions)
    assert again.returncode == 0, again.stdout + again.stderr
    after = contents(folder)
    assert {name: data for name, (data, _) in after.items()} == {
        name: data for name, (data, _) in before.items()
    }
    redone = {name for name in after if after[name][1] != before[name][1]}
    stem = str(shard.relative_to(folder)).removesuffix(".index.parquet")
    assert redone == {
        f"{stem}.parquet",
        f"{stem}.index.parquet",
        "index.parquet",
        "manifest.json",
    }


def test_missing_companions_are_named_with_what_gets_them(
    small_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(small_corpus, tmp_path)) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: --companions: ")
    assert "lavie weights fetch" in told


def test_stopgap_captions_are_encoded_only_when_asked_for(
    small_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = tmp_path / "corpus"
    shutil.copytree(small_corpus, corpus)
    store = Store(str(corpus))
    manifest = read_manifest(store, "default") | {"caption_engines": {"given": 16, "tags": 30}}
    manifest["digest"] = manifest_digest(manifest)
    store.write("shards/default/manifest.json", canonical_json(manifest))
    assert main(arguments(corpus, tmp_path)) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "30 of the 46 captioned clips" in told
    assert "--allow-stopgap-captions" in told
    # With the flag it gets to the next thing that is amiss: there are no companions.
    assert main([*arguments(corpus, tmp_path), "--allow-stopgap-captions"]) == 2
    assert "lavie weights fetch" in capsys.readouterr().err


def test_a_corpus_without_shards_is_refused(
    companions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(tmp_path / "nothing", companions)) == 2
    assert "lavie export" in capsys.readouterr().err
