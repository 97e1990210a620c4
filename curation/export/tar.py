"""A tar whose bytes depend on nothing but its members, and that says where each one's bytes lie."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from types import TracebackType


class ShardTar:
    """A plain USTAR archive of regular files without owner, clock or links.

    Args:
        path: local file to write.
    """

    def __init__(self, path: Path) -> None:
        self._tar = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115

    def __enter__(self) -> ShardTar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._tar.close()

    def add(self, name: str, data: bytes) -> int:
        """Append one member; returns the offset of its first byte in the archive."""
        member = tarfile.TarInfo(name)
        member.size = len(data)
        member.mode = 0o644
        offset = self._tar.offset + tarfile.BLOCKSIZE  # USTAR puts one block before the data
        self._tar.addfile(member, io.BytesIO(data))
        return offset
