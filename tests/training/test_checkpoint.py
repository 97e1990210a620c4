"""Checkpoints: whole or not at all, kept by number and score, local and in an object store."""

from pathlib import Path

import pytest
import torch

from curation.corpus.store import Store
from training.checkpoint import ChangedRun, CheckpointError, Checkpoints, Marker, check_unchanged
from training.distributed import Ranks
from training.run_config import SaveConfig

ALONE = Ranks(0, 1, torch.device("cpu"))


def tensors(value: float) -> dict[str, object]:
    return {
        "model": {"layer.weight": torch.full((3, 2), value)},
        "progress": {"count": torch.tensor(int(value))},
    }


@pytest.fixture(params=["local", "s3"])
def run(request, tmp_path) -> Store:
    """Folder of a run, local or in a real object store."""
    if request.param == "local":
        return Store(str(tmp_path / "run"))
    return Store(f"{request.getfixturevalue('s3_bucket')}/run")


def test_what_was_saved_comes_back(run):
    checkpoints = Checkpoints(run, SaveConfig(), ALONE)
    state = tensors(7.0)
    checkpoints.save(state, step=5, made_of={"seed": "0"}, score=0.5)
    state["model"]["layer.weight"].fill_(-1)  # training goes on while the copy is written
    checkpoints.wait()
    marker = checkpoints.latest()
    assert (marker.step, marker.score, dict(marker.made_of)) == (5, 0.5, {"seed": "0"})
    back = tensors(0.0)
    checkpoints.load(5, back)
    assert torch.equal(back["model"]["layer.weight"], torch.full((3, 2), 7.0))
    assert int(back["progress"]["count"]) == 7
    checkpoints.close()


def test_the_newest_and_the_best_are_kept(run):
    checkpoints = Checkpoints(run, SaveConfig(keep=2, asynchronous=False), ALONE)
    for step, score in enumerate([0.9, 0.3, 0.6, None, 0.5], start=1):
        checkpoints.save(tensors(step), step=step, made_of={}, score=score)
    assert checkpoints.steps() == [2, 4, 5]
    checkpoints.close()


def test_a_folder_without_marker_does_not_exist(run):
    checkpoints = Checkpoints(run, SaveConfig(asynchronous=False), ALONE)
    checkpoints.save(tensors(1.0), step=1, made_of={}, score=None)
    checkpoints.save(tensors(2.0), step=2, made_of={}, score=None)
    run.delete("checkpoints/step-00000002/complete.json")
    assert checkpoints.steps() == [1]
    assert checkpoints.latest().step == 1
    checkpoints.close()


@pytest.mark.parametrize("at", [0.0, 0.3, 0.6, 0.95])
def test_one_flipped_bit_anywhere_in_the_tensors_is_found(at, tmp_path):
    run = Store(str(tmp_path))
    checkpoints = Checkpoints(run, SaveConfig(asynchronous=False), ALONE)
    checkpoints.save(tensors(1.0), step=1, made_of={}, score=None)
    victim = next((tmp_path / "checkpoints" / "step-00000001").glob("*.safetensors"))
    data = bytearray(victim.read_bytes())
    data[int(at * len(data))] ^= 0x10
    victim.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"all 1 checkpoints of .* are damaged"):
        checkpoints.latest()
    checkpoints.close()


def test_a_state_of_another_shape_is_refused(tmp_path):
    checkpoints = Checkpoints(Store(str(tmp_path)), SaveConfig(asynchronous=False), ALONE)
    checkpoints.save(tensors(1.0), step=1, made_of={}, score=None)
    wrong = tensors(0.0) | {"model": {"layer.weight": torch.zeros(5, 2)}}
    with pytest.raises(CheckpointError, match="does not hold the state of this run"):
        checkpoints.load(1, wrong)
    more = tensors(0.0) | {"average": {"layer.weight": torch.zeros(3, 2)}}
    with pytest.raises(CheckpointError, match="does not hold the state of this run"):
        checkpoints.load(1, more)
    checkpoints.close()


def test_a_marker_that_is_none_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"here is not a checkpoint's marker"):
        Marker.from_json(b'{"format_version": 1}', "here")
    with pytest.raises(CheckpointError, match="here has format version 9"):
        Marker.from_json(b'{"format_version": 9}', "here")


def test_what_changed_is_named_with_both_values():
    marker = Marker(step=3, files={}, made_of={"a": "1", "b": "2"}, score=None)
    check_unchanged(marker, {"a": "1", "b": "2"})
    with pytest.raises(ChangedRun, match=r"(?s)b: was 2, is 3.*c: was absent, is 4"):
        check_unchanged(marker, {"a": "1", "b": "3", "c": "4"})


def test_shards_that_have_grown_since_the_checkpoint_are_said_to_have():
    marker = Marker(step=3, files={}, made_of={"corpus/0/manifest": "1", "seed": "2"}, score=None)
    with pytest.raises(ChangedRun, match=r"corpus/0/manifest: was 1, is 2 \(the shards have grown"):
        check_unchanged(marker, {"corpus/0/manifest": "2", "seed": "2"})
    with pytest.raises(ChangedRun) as other:
        check_unchanged(marker, {"corpus/0/manifest": "1", "seed": "3"})
    assert "grown" not in str(other.value)


def test_what_a_killed_writer_left_is_swept(tmp_path):
    left = tmp_path / "checkpoints" / ".writing-step-00000009"
    left.mkdir(parents=True)
    (left / "shard").write_bytes(b"torn")
    Checkpoints(Store(str(tmp_path)), SaveConfig(), ALONE).close()
    assert not left.exists()


def test_a_disk_that_fails_is_reported_not_forgotten(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").write_text("a file where a folder should be")
    checkpoints = Checkpoints(Store(str(tmp_path / "run")), SaveConfig(), ALONE)
    checkpoints.save(tensors(1.0), step=1, made_of={}, score=None)
    with pytest.raises((FileExistsError, NotADirectoryError)):
        checkpoints.wait()


def test_nothing_in_a_checkpoint_is_a_pickle(tmp_path):
    """A pickle begins with its protocol, \\x80 and a small number; a zip of them with PK."""
    checkpoints = Checkpoints(Store(str(tmp_path)), SaveConfig(asynchronous=False), ALONE)
    checkpoints.save(tensors(1.0), step=1, made_of={}, score=None)
    files = [path for path in Path(tmp_path).rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".safetensors", ".json"}
    assert not any(path.read_bytes()[:2] in (b"PK", b"\x80\x02", b"\x80\x04") for path in files)
    checkpoints.close()
