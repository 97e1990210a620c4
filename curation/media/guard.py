"""Untrusted media is decoded in a child process that can reach nothing but that one file.

Decoders are large programs in C that read what strangers wrote. A fault in one must cost a source,
not the worker; an endless loop must end; and a decoder that was taken over must find nothing to
take: no network, no file but the one it was given, no secret in its environment, no way to make the
parent run anything (answers are Arrow data, never pickles). The child lives on from source to
source, since starting Python costs more than decoding a short clip.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import pyarrow as pa

from curation.errors import REJECT_REASONS, BadSource, MachineFault
from curation.media.guard_child import HEADER
from curation.media.probe import Limits

START_TIMEOUT_S = 120.0
"""A loaded machine with a cold disk takes tens of seconds to start Python."""
MAX_HEADER_BYTES = 1024**2
MAX_TABLES = 16

_BOOT = (
    "import json, sys; descriptor, path, settings = json.loads(sys.argv[1]); sys.path[:] = path; "
    "from curation.media.guard_child import main; main(descriptor, settings)"
)
_BOOT_COMMAND = (
    "import json, sys; path, command, settings = json.loads(sys.argv[1]); sys.path.insert(0, path);"
    " from curation.media.isolation import become; become(command, settings)"
)
_KEPT_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TZ")
"""All that the child sees of the environment: no key or token does."""
_THREAD_SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "ARROW_DEFAULT_MEMORY_POOL": "system",  # gives memory back, and reserves none in advance
    "PYTHONDONTWRITEBYTECODE": "1",
}


class ChildError(RuntimeError):
    """The function raised something that is no `BadSource`: a bug of ours, with its traceback."""


class _GarbledError(Exception):
    """The child answered what it should not be able to."""


class Guard:
    """A child process for functions that touch untrusted bytes.

    Belongs to the thread that uses it first: the kernel ends the child together with that thread.

    Args:
        limits: `memory_bytes` bounds the child, `timeout_s` a call.
        readable: files and folders that the function may open beside Python and this package, such
            as model files.
    """

    def __init__(self, limits: Limits, *, readable: Sequence[Path] = ()) -> None:
        self._limits = limits
        self._readable = [os.fspath(path.absolute()) for path in readable]
        self._process: subprocess.Popen[bytes] | None = None
        self._link: socket.socket | None = None
        self._errors: BinaryIO | None = None
        self._finalizer: weakref.finalize[Any, Any] | None = None
        self._steps: tuple[str, ...] = ()

    def __enter__(self) -> Guard:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def isolation(self) -> tuple[str, ...]:
        """What the child has given up, in the words of `curation.media.isolation.isolate`."""
        self._start()
        return self._steps

    def call(
        self,
        function: Callable[..., Mapping[str, pa.Table]],
        *args: Any,
        file: BinaryIO | None = None,
        timeout_s: float | None = None,
    ) -> dict[str, pa.Table]:
        """Run ``function([file,] *args)`` in the child.

        Args:
            function: at the top of an importable module; returns named tables.
            args: what pickles; the child trusts them.
            file: an open regular file. The child gets its own descriptor of it, at the start, as
                the first argument: with it, it needs no right to open anything.
            timeout_s: wall seconds; default `Limits.timeout_s`.

        Raises:
            BadSource: as the function raised it; 'too_slow' past the time limit; 'decoder_died'
                when the child crashed or went over its memory.
            ChildError: the function raised anything else.
            MachineFault: no child can be started on this machine.
        """
        request = pickle.dumps((*_importable(function), args))
        self._start()
        assert self._link is not None, "started"
        allowed_s = self._limits.timeout_s if timeout_s is None else timeout_s
        deadline_s = time.monotonic() + allowed_s
        try:
            self._link.settimeout(allowed_s)
            files = [] if file is None else [file.fileno()]
            socket.send_fds(self._link, [HEADER.pack(len(request))], files)
            self._link.sendall(request)
            return self._result(function, deadline_s)
        except TimeoutError as error:
            self.close()
            raise BadSource("too_slow", f"over {allowed_s:g} s") from error
        except (ConnectionError, EOFError):
            self._explain_death()
        except (
            _GarbledError,
            pa.ArrowException,
            UnicodeDecodeError,
            json.JSONDecodeError,
        ) as error:
            self.close()
            raise BadSource("decoder_died", f"its answer makes no sense: {error}"[:200]) from error

    def close(self) -> None:
        """End the child; the next call starts another."""
        if self._finalizer is not None:
            self._finalizer()
        if self._link is not None:
            self._link.close()
        if self._errors is not None:
            self._errors.close()
        self._process = self._link = self._errors = self._finalizer = None

    def _start(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        self.close()
        ours, theirs = socket.socketpair()
        settings = {
            "memory_bytes": self._limits.memory_bytes,
            "readable": [*_python_folders(), *self._readable],
            "parent": os.getpid(),
        }
        path = [os.path.abspath(entry) for entry in sys.path]
        boot = json.dumps([theirs.fileno(), path, settings])
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the child
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-B", "-c", _BOOT, boot],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            pass_fds=(theirs.fileno(),),
            env=_environment(),
            cwd="/",
            start_new_session=True,  # Ctrl-C goes to the parent, which ends the child
        )
        theirs.close()
        self._link = ours
        self._finalizer = weakref.finalize(self, _end, self._process)
        ours.settimeout(START_TIMEOUT_S)
        try:
            self._steps = tuple(self._header(time.monotonic() + START_TIMEOUT_S)["isolation"])
        except (ConnectionError, EOFError, TimeoutError) as error:
            said = self._last_words(2000)
            self.close()
            raise MachineFault(f"the decoding child did not start: {said}") from error

    def _result(
        self, function: Callable[..., Mapping[str, pa.Table]], deadline_s: float
    ) -> dict[str, pa.Table]:
        answer = self._header(deadline_s)
        kind = answer.get("kind")
        if kind == "result":
            return self._tables(answer, deadline_s)
        if kind == "memory":
            self.close()
            limit = self._limits.memory_bytes
            raise BadSource("decoder_died", f"over its {limit} bytes of memory")
        if kind == "bad_source" and answer.get("reason") in REJECT_REASONS:
            raise BadSource(answer["reason"], str(answer.get("detail", "")))
        if kind == "error":
            name = f"{function.__module__}.{function.__qualname__}"
            raise ChildError(f"{name} failed in the child:\n{answer.get('traceback')}")
        raise _GarbledError(f"kind {kind!r}"[:60])

    def _tables(self, answer: dict[str, Any], deadline_s: float) -> dict[str, pa.Table]:
        names = answer.get("tables")
        if not isinstance(names, list) or len(names) > MAX_TABLES:
            raise _GarbledError("no list of tables")
        left = self._limits.memory_bytes
        tables = {}
        for entry in names:
            if not (isinstance(entry, list) and [type(part) for part in entry] == [str, int]):
                raise _GarbledError("no name and size of a table")
            name, size_bytes = entry
            left -= size_bytes
            if size_bytes < 0 or left < 0:
                raise _GarbledError(f"a table of {size_bytes} bytes")
            tables[name] = _parsed(self._bytes(size_bytes, deadline_s))
        return tables

    def _header(self, deadline_s: float) -> dict[str, Any]:
        (length,) = HEADER.unpack(self._bytes(HEADER.size, deadline_s))
        if length > MAX_HEADER_BYTES:
            raise _GarbledError(f"a header of {length} bytes")
        try:
            answer = json.loads(bytes(self._bytes(length, deadline_s)))
        except ValueError as error:
            raise _GarbledError("a header that is no JSON") from error
        if not isinstance(answer, dict):
            raise _GarbledError("no header")
        return answer

    def _bytes(self, length: int, deadline_s: float) -> bytearray:
        """Exactly ``length`` bytes from the child, before the deadline."""
        assert self._link is not None, "started"
        data = bytearray(length)
        view = memoryview(data)
        while view:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            self._link.settimeout(left_s)
            count = self._link.recv_into(view)
            if count == 0:
                raise EOFError
            view = view[count:]
        return data

    def _explain_death(self) -> NoReturn:
        """Say how the child ended, and make room for another."""
        assert self._process is not None, "started"
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        code = self._process.returncode
        said = self._last_words(200)
        self.close()
        if code is not None and code < 0:
            how = f"ended by {signal.Signals(-code).name}"
        else:
            how = f"ended with status {code}"
        raise BadSource("decoder_died", f"{how}; {said}" if said else how)

    def _last_words(self, length: int) -> str:
        """The end of what the child wrote to its standard error, as ASCII."""
        if self._errors is None:
            return ""
        size_bytes = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size_bytes - length))
        return self._errors.read().decode("ascii", "replace").strip()


def _parsed(stream: bytearray) -> pa.Table:
    """A table from an Arrow stream of the child, every offset and text in it checked."""
    try:
        table = pa.ipc.open_stream(pa.py_buffer(stream)).read_all()
        table.validate(full=True)
    except (pa.ArrowException, OSError) as error:
        raise _GarbledError(str(error)) from error
    return table


def _importable(function: Callable[..., Any]) -> tuple[str, str]:
    module, name = function.__module__, function.__qualname__
    if module == "__main__" or "." in name or "<" in name:
        raise ValueError(
            f"a guarded function must stand at the top of an importable module, got {module}.{name}"
        )
    return module, name


def _python_folders() -> list[str]:
    """Where Python, its packages and this package lie: what the child may read to import."""
    ours = Path(__file__).resolve().parents[1]
    packages = [p for p in sys.path if Path(p).name in ("site-packages", "dist-packages")]
    found = [sys.prefix, sys.base_prefix, sys.exec_prefix, *packages, os.fspath(ours)]
    return [os.path.realpath(folder) for folder in found]


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
    return kept | _THREAD_SETTINGS


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def isolated_command(
    command: Sequence[str],
    *,
    memory_bytes: int,
    written_bytes: int,
    readable: Sequence[Path] = (),
    writable: Sequence[Path] = (),
) -> list[str]:
    """The command line of a process that gives up its rights, then goes on as ``command``.

    For the ffmpeg program, which reads what strangers wrote as well. Costs some 50 ms. The process
    ends with the one that calls this, which must be the one to start it.

    Args:
        command: the path of a program, and its arguments; its libraries are the system's.
        memory_bytes: private memory it may have.
        written_bytes: length of the largest file it may write.
        readable: files and folders it may open. A descriptor that it inherits needs none of it when
            read as ``-fd N -i fd:``, but ``/dev/fd/N`` is opened anew and does.
        writable: folders it may write into.
    """
    settings = {
        "memory_bytes": memory_bytes,
        "written_bytes": written_bytes,
        "readable": [os.fspath(path.absolute()) for path in readable],
        "writable": [os.fspath(path.absolute()) for path in writable],
        "runnable": [command[0], *glob.glob("/lib*/ld-*.so*")],
        "parent": os.getpid(),
    }
    root = os.fspath(Path(__file__).resolve().parents[2])
    boot = json.dumps([root, list(command), settings])
    return [sys.executable, "-I", "-S", "-B", "-c", _BOOT_COMMAND, boot]


def isolation() -> str:
    """One line on what a decoding child can give up on this machine, for `lavie doctor`."""
    from curation.media.isolation import STEPS

    with Guard(Limits()) as guard:
        taken = guard.isolation
    absent = [name for name in STEPS if name not in taken]
    text = "isolated by " + ", ".join(taken)
    return f"{text}; not on this machine: {', '.join(absent)}" if absent else text
