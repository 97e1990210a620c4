"""The process that decodes: waits for a function and a file, answers with tables.

Started by `curation.media.guard`; see there. Only the standard library is imported before the process has
given up its rights.
"""

from __future__ import annotations

import importlib
import json
import os
import pickle
import socket
import struct
import traceback
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from curation.errors import BadSource
from curation.media.isolation import isolate

if TYPE_CHECKING:
    import pyarrow as pa

HEADER = struct.Struct("!Q")
"""Before every message: its length in bytes."""
MAX_TEXT = 20_000


def main(descriptor: int, settings: Mapping[str, Any]) -> NoReturn:
    """Isolate this process, say so, and answer one request after another until the parent goes.

    Args:
        descriptor: of the socket to the parent.
        settings: arguments of `curation.media.isolation.isolate`.
    """
    link = socket.socket(fileno=descriptor)
    steps = isolate(**settings)
    _send(link, {"kind": "ready", "isolation": steps})
    while True:
        request, files = _receive(link)
        answer, tables = _answer(request, files)
        _send(link, answer, tables)
        if answer["kind"] == "memory":
            os._exit(0)  # libraries that ran out of memory half-way are not to be trusted again


def _receive(link: socket.socket) -> tuple[bytes, list[int]]:
    """One request with the descriptor that came along, if any; ends the process with the parent."""
    data, files, _, _ = socket.recv_fds(link, HEADER.size, 1)
    if len(data) < HEADER.size:
        os._exit(0)
    (length,) = HEADER.unpack(data)
    request = bytearray()
    while len(request) < length:
        block = link.recv(length - len(request))
        if not block:
            os._exit(0)
        request += block
    return bytes(request), files


def _answer(request: bytes, files: list[int]) -> tuple[dict[str, Any], list[Any]]:
    """Run the function asked for; header and Arrow streams of the answer."""
    try:
        # From our own parent, which trusts us less than we trust it; nothing goes back this way.
        module, name, args = pickle.loads(request)  # noqa: S301
        function: Callable[..., Mapping[str, pa.Table]] = getattr(
            importlib.import_module(module), name
        )
        if files:
            with os.fdopen(files[0], "rb") as file:
                file.seek(0)
                tables = function(file, *args)
        else:
            tables = function(*args)
        streams = [_stream(table) for table in tables.values()]
    except BadSource as bad:
        return {"kind": "bad_source", "reason": bad.reason, "detail": bad.detail[:MAX_TEXT]}, []
    except MemoryError:
        return {"kind": "memory"}, []
    except Exception as error:  # noqa: BLE001 - carried to the parent, which raises it again
        if _is_out_of_memory(error):
            return {"kind": "memory"}, []
        return {"kind": "error", "traceback": traceback.format_exc()[-MAX_TEXT:]}, []
    names = [[name, stream.size] for name, stream in zip(tables, streams, strict=True)]
    return {"kind": "result", "tables": names}, streams


def _is_out_of_memory(error: Exception) -> bool:
    """OpenCV says so in an error of its own (code -4), C++ libraries with std::bad_alloc."""
    return getattr(error, "code", None) == -4 or "bad_alloc" in str(error)


def _stream(table: pa.Table) -> pa.Buffer:
    """A table as an Arrow stream."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _send(link: socket.socket, answer: dict[str, Any], streams: list[Any] | None = None) -> None:
    header = json.dumps(answer).encode()
    try:
        link.sendall(HEADER.pack(len(header)) + header)
        for stream in streams or []:
            link.sendall(memoryview(stream))
    except (BrokenPipeError, ConnectionResetError):
        os._exit(0)
