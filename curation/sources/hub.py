"""The Hugging Face Hub as a store: hf://datasets/ORG/NAME/PATH, a revision behind '@'.

Which hub, and with which token, the environment of the run says (HF_ENDPOINT, HF_TOKEN); an address never
does. Errors come as those of the other stores, so that an outage is none of a file's fate.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

KINDS = ("datasets", "models", "spaces", "buckets")
"""What an address may begin with; without one it is a model."""


def repository(uri: str) -> str:
    """The repository that an hf:// address names, such as 'datasets/org/name'.

    Raises:
        ValueError: it names none.
    """
    parts = uri.removeprefix("hf://").split("/")
    depth = 3 if parts[0] in KINDS else 2
    if len(parts) < depth or not all(parts[:depth]):
        raise ValueError(f"{uri!r} names no repository (hf://datasets/ORG/NAME/PATH does)")
    return "/".join(parts[:depth])


def hub() -> pafs.FileSystem:
    """The hub as a filesystem of pyarrow's, for reading."""
    from huggingface_hub import HfFileSystem

    return pafs.PyFileSystem(_Handler(HfFileSystem()))


@contextlib.contextmanager
def _told_as_stores_do() -> Iterator[None]:
    """Errors of the hub's client as errors of the operating system, without addresses."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code
        kind = {401: PermissionError, 403: PermissionError, 404: FileNotFoundError}.get(status)
        raise (kind or OSError)(f"HTTP status {status}") from error
    except httpx2.HTTPError as error:
        raise OSError(f"NETWORK_CONNECTION: {type(error).__name__}") from error
    except (HFValidationError, NotImplementedError, ValueError) as error:
        raise FileNotFoundError("the address names no file of a repository") from error


class _Handler(pafs.FSSpecHandler):
    """Reads and lists through huggingface-hub's filesystem."""

    def get_file_info(self, paths: Sequence[str]) -> list[pafs.FileInfo]:
        found = []
        for path in paths:
            try:
                with _told_as_stores_do():
                    found += super().get_file_info([path])
            except FileNotFoundError:
                found.append(pafs.FileInfo(path, pafs.FileType.NotFound))
        return found

    def get_file_info_selector(self, selector: pafs.FileSelector) -> list[pafs.FileInfo]:
        with _told_as_stores_do():
            found: list[pafs.FileInfo] = super().get_file_info_selector(selector)
            return found

    def open_input_file(self, path: str) -> pa.NativeFile:
        with _told_as_stores_do():
            if self.fs.info(path)["type"] != "file":
                raise FileNotFoundError(path)
            return pa.PythonFile(_File(self.fs.open(path, mode="rb")), mode="r")

    open_input_stream = open_input_file


class _File(io.RawIOBase):
    """A file of the hub."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        with _told_as_stores_do():
            data: bytes = self._file.read(size)
            return data

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        self._file.close()
        super().close()
