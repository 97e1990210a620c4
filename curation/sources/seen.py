"""Folders of local sources that the listing machine sees: a worker that lacks one is no judge.

A source that is not there may be gone, or the machine that looks for it may lack the mount. The two
look the same in the error of the operating system; they differ in whether the folder around the
source is there. An unmounted mount point is an empty folder, so that counts as absent too.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from curation.corpus.store import is_remote
from curation.errors import MachineFault
from curation.sources.uris import local_path

MAX_FOLDERS = 10_000
"""More are told by the folders above them: the list travels to every worker."""


@dataclass(frozen=True, slots=True)
class SeenFolders:
    """Folders that were there, with something in them, where the sources were listed.

    Args:
        folders: absolute paths.
    """

    folders: frozenset[Path] = frozenset()

    @classmethod
    def of(cls, uris: Iterable[str]) -> SeenFolders:
        """Those of the folders around local sources that this machine sees."""
        # Names go before paths are made of them: there are millions of sources in few folders.
        parents = {uri.rpartition("/")[0] or "/" for uri in uris if not is_remote(uri)}
        folders = {local_path(parent) for parent in parents if parent != "file:/"}
        while len(folders) > MAX_FOLDERS:
            folders = {folder.parent for folder in folders}
        return cls(frozenset(folder for folder in folders if holds_something(folder)))

    def check(self, uri: str) -> None:
        """Tell a source that is gone from a folder that this machine does not see.

        Raises:
            MachineFault: the source is not there, and neither is the folder that it was seen in.
        """
        if is_remote(uri) or os.path.lexists(path := local_path(uri)):
            return
        folder = next((parent for parent in path.parents if parent in self.folders), None)
        if folder is not None and not holds_something(folder):
            raise MachineFault(
                f"{folder} is not there or empty on {socket.gethostname()}, yet the machine that "
                "listed the sources sees files in it: mount it on every machine of the cluster"
            )


def holds_something(folder: Path) -> bool:
    """Whether a folder is there and not empty, as an unmounted mount point is."""
    with contextlib.suppress(OSError, ValueError), os.scandir(folder) as entries:
        return any(True for _ in entries)
    return False
