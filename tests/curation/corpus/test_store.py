"""Atomic puts and reads, locally and on a real S3 server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from curation.corpus.store import TEMPORARY_PREFIX, Store


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "s3":
        return Store(request.getfixturevalue("s3_bucket") + "/corpus")
    return Store(str(tmp_path / "corpus"))


def test_what_is_written_is_read_back_and_replaced_by_a_second_write(store: Store) -> None:
    store.write("a/b.bin", b"first")
    store.write("a/b.bin", b"second")
    assert store.read("a/b.bin") == b"second"
    assert store.read_range("a/b.bin", offset=2, size_bytes=3) == b"con"


def test_a_local_file_is_put_whole_and_stays(store: Store, tmp_path: Path) -> None:
    local = tmp_path / "big"
    local.write_bytes(os.urandom(3_000_000))
    store.put_file("shards/0.tar", local)
    assert store.read("shards/0.tar") == local.read_bytes()


def test_listing_names_files_relative_to_the_root_in_order(store: Store) -> None:
    for name in ("x/2", "x/1", "x/y/3", "z"):
        store.write(name, b"")
    assert store.files("x") == ["x/1", "x/2"]
    assert store.files("x", recursive=True) == ["x/1", "x/2", "x/y/3"]
    assert store.folders() == ["x"]
    assert store.files("nowhere") == []


def test_exists_and_delete(store: Store) -> None:
    store.write("a", b"1")
    assert store.exists("a")
    assert not store.exists("b")
    store.delete("a")
    store.delete("a")
    assert not store.exists("a")


def test_a_missing_file_is_not_found_at_once(store: Store) -> None:
    begin = time.monotonic()
    with pytest.raises(FileNotFoundError):
        store.read("nothing")
    assert time.monotonic() - begin < 1.5  # no retries for an answer that will not change


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x"])
def test_a_name_cannot_leave_the_root(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"relative and without"):
        Store(str(tmp_path)).write(name, b"")


WRITER = """
import sys
from curation.corpus.store import Store
store = Store(sys.argv[1])
print("go", flush=True)
while True:
    for letter in (b"a", b"b"):
        store.write("value", letter * 2_000_000)
"""


def test_a_writer_killed_at_any_time_leaves_a_whole_file(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.write("value", b"a" * 2_000_000)
    for delay_s in (0.0, 0.005, 0.011, 0.023, 0.05):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE
        )
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(delay_s)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        content = store.read("value")
        assert len(content) == 2_000_000
        assert len(set(content)) == 1
        assert store.files() == ["value"]
    store.sweep()
    assert not list(tmp_path.glob(f"{TEMPORARY_PREFIX}*"))
