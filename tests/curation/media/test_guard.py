"""The guard against functions that crash, hang, eat memory, lie, or try to reach out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow as pa
import pytest

from curation.errors import BadSource
from curation.media.guard import ChildError, Guard, isolated_command, isolation
from curation.media.isolation import STEPS
from curation.media.probe import Limits

FUNCTIONS = """
import ctypes, os, socket, threading, time
import pyarrow as pa
from curation.errors import BadSource

def one(value): return {"found": pa.table({"value": [value]})}
def pid(): return one(os.getpid())
def size(file): return one(len(file.read()))
def environment(): return one(repr(dict(os.environ)))
def segfault(): ctypes.string_at(0)
def leave(): os._exit(7)
def sleep(): time.sleep(60)
def sleep_in_c(): ctypes.CDLL(None).sleep(60)
def eat(): return one(len(bytearray(8 * 1024**3)))
def eat_slowly():
    held = []
    while True: held.append(bytearray(16 * 1024**2))
def bug(): return one(1 + "1")
def bad(): raise BadSource("undecodable", "seen with my own eyes")
def bad_word(): raise BadSource("no such word", "x")
def read(path): return one(open(path).read())
def write(path): open(path, "w").write("x")
def connect(port): socket.create_connection(("127.0.0.1", port), timeout=2)
def run(): os.execv("/bin/true", ["true"])
def kill(pid): os.kill(pid, 0)
def forge(data):
    for name in os.listdir("/proc/self/fd"):
        try: socket.socket(fileno=os.dup(int(name))).sendall(data)
        except OSError: pass
    time.sleep(60)
"""


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """A module of functions that misbehave, importable here and in the child."""
    folder = tmp_path / "functions"
    folder.mkdir()
    (folder / "hostile_functions.py").write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(str(folder))
    import hostile_functions

    yield hostile_functions
    del sys.modules["hostile_functions"]


@pytest.fixture
def guard(hostile: object, tmp_path: Path) -> Iterator[Guard]:
    with Guard(Limits(memory_bytes=1024**3), readable=[tmp_path / "functions"]) as guard:
        yield guard


def value(tables: dict[str, pa.Table]) -> object:
    return tables["found"]["value"][0].as_py()


def test_one_child_serves_many_calls(guard, hostile):
    assert value(guard.call(hostile.pid)) == value(guard.call(hostile.pid)) != os.getpid()


def test_the_child_reads_the_file_that_it_is_handed_and_only_that(guard, hostile, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("canary")
    with secret.open("rb") as file:
        file.read()
        assert value(guard.call(hostile.size, file=file)) == 6
    if "read_only_files" not in guard.isolation:
        pytest.skip("this kernel has no Landlock")
    with pytest.raises(ChildError, match="PermissionError"):
        guard.call(hostile.read, str(secret))
    with pytest.raises(ChildError, match="PermissionError"):
        guard.call(hostile.write, str(tmp_path / "written"))
    with pytest.raises(ChildError, match="PermissionError"):
        guard.call(hostile.run)
    with pytest.raises(ChildError, match="PermissionError"):
        guard.call(hostile.read, f"/proc/{os.getpid()}/environ")


def test_the_child_reaches_no_server_on_this_machine(guard, hostile, s3_endpoint):
    if "no_network" not in guard.isolation:
        pytest.skip("this kernel gives no network namespace to this user")
    with pytest.raises(ChildError, match=r"OSError|PermissionError"):
        guard.call(hostile.connect, int(s3_endpoint.rsplit(":", 1)[1]))


def test_the_child_sees_no_secret_of_the_environment(guard, hostile, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    assert "canary" not in str(value(guard.call(hostile.environment)))


@pytest.mark.parametrize(("function", "detail"), [("segfault", "SIGSEGV"), ("leave", "status 7")])
def test_a_child_that_dies_costs_one_source(guard, hostile, function, detail):
    with pytest.raises(BadSource, match=detail) as caught:
        guard.call(getattr(hostile, function))
    assert caught.value.reason == "decoder_died"
    assert value(guard.call(hostile.pid))


@pytest.mark.parametrize("function", ["eat", "eat_slowly"])
def test_a_child_that_eats_memory_is_stopped_at_its_limit(guard, hostile, function):
    before = psutil.virtual_memory().available
    with pytest.raises(BadSource, match="memory") as caught:
        guard.call(getattr(hostile, function))
    assert caught.value.reason == "decoder_died"
    assert psutil.virtual_memory().available > before - 2 * 1024**3
    assert value(guard.call(hostile.pid))


@pytest.mark.parametrize("function", ["sleep", "sleep_in_c"])
def test_a_child_that_hangs_is_ended_at_the_deadline(guard, hostile, function):
    first = value(guard.call(hostile.pid))
    start_s = time.monotonic()
    with pytest.raises(BadSource) as caught:
        guard.call(getattr(hostile, function), timeout_s=0.5)
    assert caught.value.reason == "too_slow"
    assert time.monotonic() - start_s < 5.5
    assert not psutil.pid_exists(first)
    assert value(guard.call(hostile.pid)) != first


def test_a_bug_is_raised_with_its_traceback_and_is_no_bad_source(guard, hostile):
    with pytest.raises(ChildError, match=r"(?s)in bug.*TypeError"):
        guard.call(hostile.bug)


def test_a_bad_source_keeps_its_reason_and_detail(guard, hostile):
    with pytest.raises(BadSource, match="my own eyes") as caught:
        guard.call(hostile.bad)
    assert caught.value.reason == "undecodable"


def test_a_reason_that_nobody_knows_is_not_believed(guard, hostile):
    with pytest.raises(BadSource, match="makes no sense"):
        guard.call(hostile.bad_word)


@pytest.mark.parametrize(
    "data",
    [
        b"\xff" * 8,
        (3).to_bytes(8, "big") + b"{}}",
        (2).to_bytes(8, "big") + b"[]",
        (46).to_bytes(8, "big") + b'{"kind": "result", "tables": [["x", 99999999]]}'[:46],
        (42).to_bytes(8, "big") + b'{"kind": "result", "tables": [["x", -1 ]]}',
        (42).to_bytes(8, "big") + b'{"kind": "result", "tables": [["x", 16]]}\n' + b"\x80" * 16,
    ],
)
def test_a_forged_answer_is_refused(guard, hostile, data):
    with pytest.raises(BadSource) as caught:
        guard.call(hostile.forge, data, timeout_s=20)
    assert caught.value.reason == "decoder_died"


def test_a_function_that_cannot_be_imported_is_a_wrong_argument(guard):
    with pytest.raises(ValueError, match="importable"):
        guard.call(lambda: None)


def test_kill_9_of_the_parent_leaves_no_child(hostile, tmp_path):
    program = textwrap.dedent(
        f"""
        import sys
        sys.path[:0] = [{str(tmp_path / "functions")!r}, {str(Path.cwd())!r}]
        from pathlib import Path
        import hostile_functions as hostile
        from curation.media.guard import Guard
        from curation.media.probe import Limits
        guard = Guard(Limits(), readable=[Path({str(tmp_path / "functions")!r})])
        print(guard.call(hostile.pid)["found"]["value"][0].as_py(), flush=True)
        guard.call(hostile.sleep_in_c)
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        time.sleep(0.3)
        assert child.is_running()
        parent.send_signal(signal.SIGKILL)
    deadline_s = time.monotonic() + 5
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline_s, "the child outlived its parent"
        time.sleep(0.02)


def test_an_isolated_ffmpeg_reads_one_file_and_writes_one_folder(make_video, ffmpeg_exe, tmp_path):
    film = make_video(tmp_path / "a.mp4", [("red", 8)])
    other = make_video(tmp_path / "other.mp4", [("red", 8)])
    cuts = tmp_path / "cuts"
    cuts.mkdir()

    def run(source: str, target: Path) -> str:
        command = isolated_command(
            [
                ffmpeg_exe,
                "-nostdin",
                "-v",
                "error",
                "-y",
                *source.split(),
                "-threads",
                "1",
                str(target),
            ],
            memory_bytes=1024**3,
            written_bytes=1024**2,
            readable=[film],
            writable=[cuts],
        )
        done = subprocess.run(
            command, pass_fds=(file.fileno(),), env={}, capture_output=True, text=True, timeout=60
        )
        return "" if done.returncode == 0 else done.stderr

    with other.open("rb") as file:
        assert run(f"-i file:{film}", cuts / "a.mp4") == ""
        assert run(f"-f mov -fd {file.fileno()} -i fd:", cuts / "b.mp4") == ""
        assert (cuts / "a.mp4").stat().st_size > 0
        if "read_only_files" not in isolation().split(";")[0]:
            pytest.skip("this kernel has no Landlock")
        assert "Permission denied" in run(f"-i file:{other}", cuts / "c.mp4")
        assert "Permission denied" in run(f"-i file:{film}", tmp_path / "d.mp4")


def test_closing_ends_the_child(guard, hostile):
    child = value(guard.call(hostile.pid))
    guard.close()
    assert not psutil.pid_exists(child)


def test_doctor_is_told_what_the_child_gives_up():
    text = isolation()
    assert all(step in text for step in STEPS)
    assert "memory" in text.split(";")[0]
