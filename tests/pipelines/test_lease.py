"""One writer of a corpus: the lock of a local one, the lease on an object store."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from curation.corpus import layout
from curation.corpus.store import TEMPORARY_PREFIX, Store
from curation.errors import CorpusBusy, StoreUnavailable
from pipelines.cli import main
from pipelines.lease import Lease
from pipelines.locking import locked

HOLDER = """
import sys, time
from curation.corpus.store import Store
from pipelines.locking import locked
with locked(Store(sys.argv[1]), duration_s=float(sys.argv[2])) as store:
    print("held", flush=True)
    try:
        time.sleep(60)
    finally:
        store.write("late", b"written by one that lost its lease")
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "corpus"))


def start(root: str, duration_s: float = 120.0) -> subprocess.Popen[str]:
    """A process that holds a corpus for a minute; returns once it does."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, root, str(duration_s)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def kill(holder: subprocess.Popen[str]) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.communicate()


def until(happens: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not happens():
        assert time.monotonic() < end, "it did not happen within a minute"
        time.sleep(0.1)


def can_be_taken(store: Store) -> bool:
    try:
        with locked(store):
            return True
    except CorpusBusy:
        return False


def test_a_second_run_is_refused_by_name_until_the_first_is_gone_even_by_kill(store: Store) -> None:
    store.write("x", b"")
    holder = start(store.root)
    with (
        pytest.raises(CorpusBusy, match=f"{store.root} is being written by .*{holder.pid}"),
        locked(store),
    ):
        pass
    kill(holder)
    left = Path(store.path(f"{TEMPORARY_PREFIX}1234"))
    left.write_bytes(b"half")
    with locked(store):
        assert not left.exists()


def test_on_an_object_store_too_the_second_run_is_refused_by_name(s3_bucket: str) -> None:
    store = Store(f"{s3_bucket}/corpus")
    holder = start(store.root)
    try:
        refused = rf"{store.root} is being written by lavie .*process {holder.pid} on .*runs out in"
        for _ in range(2):
            with pytest.raises(CorpusBusy, match=refused), locked(store):
                pass
    finally:
        kill(holder)


def test_a_second_curate_with_another_list_loses_nothing_of_the_first(
    s3_bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(f"{s3_bucket}/corpus")
    (tmp_path / "two.mp4").write_bytes(b"a film")
    holder = start(store.root)
    try:
        before = store.files(recursive=True)
        code = main(["curate", str(tmp_path), "--out", store.root, "--preset", "tiny"])
        assert code == 1
        assert f"(process {holder.pid} on " in "".join(capsys.readouterr().err.split("\n"))
        assert store.files(recursive=True) == before
    finally:
        kill(holder)


def test_of_many_that_try_at_once_one_gets_the_lease(s3_bucket: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    leases = [Lease(Store(f"{s3_bucket}/corpus")) for _ in range(8)]

    def take(lease: Lease) -> bool:
        try:
            lease.take()
        except CorpusBusy:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(take, leases)) == 1
    for lease in leases:
        lease.release()


def test_a_lease_that_was_given_back_is_taken_at_once(s3_bucket: str) -> None:
    store = Store(f"{s3_bucket}/corpus")
    for number in range(3):
        with locked(store) as held:
            held.write("x", b"%d" % number)
    assert store.read("x") == b"2"


def test_the_lease_of_a_killed_run_runs_out(s3_bucket: str) -> None:
    store = Store(f"{s3_bucket}/corpus")
    kill(start(store.root, duration_s=2.0))
    assert not can_be_taken(store)
    until(lambda: can_be_taken(store))


def test_a_lease_that_is_renewed_does_not_run_out(s3_bucket: str) -> None:
    store = Store(f"{s3_bucket}/corpus")
    before = store.read(layout.LEASE) if store.exists(layout.LEASE) else b""
    with locked(store, duration_s=2.0):
        seen = {before}

        def renewed_six_times() -> bool:
            seen.add(store.read(layout.LEASE))
            assert not can_be_taken(store)
            return len(seen) > 6

        until(renewed_six_times)


def test_a_run_that_slept_through_its_lease_stops_before_it_writes_more(s3_bucket: str) -> None:
    store = Store(f"{s3_bucket}/corpus")
    sleeper = start(store.root, duration_s=2.0)
    sleeper.send_signal(signal.SIGSTOP)
    try:
        until(lambda: can_be_taken(store))
        with locked(store) as held:
            sleeper.send_signal(signal.SIGCONT)
            # Stopped in the middle of a request, it waits for that one's time to be over first.
            _, said = sleeper.communicate(timeout=150)
            assert sleeper.returncode != 0
            assert "this run stops" in said
            assert not store.exists("late")
            held.write("mine", b"")
    finally:
        kill(sleeper)
    assert store.exists("mine")


def test_the_endpoint_and_the_keys_of_the_uri_are_those_of_the_lease(
    s3_bucket: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    host = s3_endpoint.removeprefix("http://")
    place = f"{s3_bucket}/corpus".replace("s3://", "s3://key:s%2Fecret@")
    store = Store(f"{place}?scheme=http&endpoint_override={host}&region=us-east-1")
    with locked(store) as held:
        held.write("x", b"1")
        assert store.exists(layout.LEASE)
        assert not can_be_taken(store)


def test_a_store_that_does_not_answer_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    store = Store("s3://bucket/corpus?scheme=http&endpoint_override=127.0.0.1:9&region=us-east-1")
    with pytest.raises(StoreUnavailable, match="no lease could be taken"), locked(store):
        pass
