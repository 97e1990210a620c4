"""A full disk is named, whoever wrote to it."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.corpus.scratch import scratch_folder
from curation.errors import machine_fault
from curation.export.tar import ShardTar


def written_by_python(folder: Path) -> None:
    with (folder / "a").open("wb") as file:
        file.write(bytes(200_000))


def written_as_parquet(folder: Path) -> None:
    noise = pa.table({"a": pa.array(range(100_000))})
    pq.write_table(noise, folder / "a.parquet", compression="none", use_dictionary=False)


def written_as_tar(folder: Path) -> None:
    with ShardTar(folder / "a.tar") as tar:
        tar.add("a.mp4", bytes(200_000))


@pytest.mark.parametrize("write", [written_by_python, written_as_parquet, written_as_tar])
def test_a_full_scratch_disk_is_named_with_what_to_do(
    write, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    with (
        pytest.raises(OSError, match="No space left on device") as caught,
        scratch_folder("lavie-") as folder,
    ):
        write(folder)
    assert caught.value.errno == errno.ENOSPC
    assert str(caught.value.filename).startswith(f"{small_disk}/lavie-")
    fault = str(machine_fault(caught.value))
    assert f"{small_disk}/lavie-" in fault
    assert fault.endswith("; free some space there (scratch lies where TMPDIR says)")
    assert not list(small_disk.iterdir())


def test_other_faults_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(BrokenPipeError) as caught, scratch_folder("lavie-"):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")
    assert caught.value.filename is None
