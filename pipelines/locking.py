"""One writer of a corpus: a lock on a local file, a lease on an object store."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from curation.corpus import layout
from curation.corpus.store import Store, error_names
from curation.errors import CorpusBusy
from curation.report.text import safe_command

logger = logging.getLogger(__name__)

DURATION_S = 120.0
"""How long a lease holds that nobody renews: a dead writer blocks the corpus no longer."""


def command_line() -> str:
    """The command of this process, as a user would type it."""
    return shlex.join(["lavie", *sys.argv[1:]])


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who holds a corpus."""

    host: str
    """Name of the machine."""
    pid: int
    """Of the process on it."""
    command: str
    """What it runs."""
    since: str
    """When it took the corpus, UTC, ISO 8601."""

    @classmethod
    def me(cls) -> Holder:
        """This process, from now on."""
        return cls(
            host=socket.gethostname(),
            pid=os.getpid(),
            command=safe_command(command_line()),
            since=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def __str__(self) -> str:
        return f"{self.command} (process {self.pid} on {self.host}, since {self.since})"


@contextmanager
def locked(store: Store, *, duration_s: float = DURATION_S) -> Iterator[Store]:
    """Hold a corpus against a second writer; yields the store to write to.

    A local corpus is locked by the kernel, which lets go with the process, however it ends; what a killed
    writer left half written is swept. On S3 a lease is held (`pipelines.lease`). Other object stores
    have neither; a warning says so.

    Args:
        store: the corpus.
        duration_s: how long a lease outlives its last renewal.

    Raises:
        CorpusBusy: if another run holds the corpus; naming it.
    """
    if store.is_local:
        with _flocked(store):
            store.sweep()
            yield store
    elif store.root.startswith("s3://"):
        from pipelines.lease import (
            leased,
        )  # boto3 takes a time that local corpora need not wait

        with leased(store, duration_s=duration_s) as held:
            yield held
    else:
        logger.warning(
            "%s: no lease can be held on this kind of store; see to it that no second run writes there",
            store.root,
        )
        yield store


def writer_of(store: Store) -> str:
    """Who is writing a corpus now; '' for nobody, as far as can be told. Takes nothing."""
    if store.is_local:
        return _local_writer(Path(store.path(layout.LOCK)))
    if store.root.startswith("s3://"):
        from pipelines.lease import holder_of

        holder = holder_of(store)
        return str(holder) if holder is not None else ""
    return ""


def _local_writer(lock: Path) -> str:
    if not lock.exists():
        return ""
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _holder(lock)
    return ""


@contextmanager
def _flocked(store: Store) -> Iterator[None]:
    path = Path(store.path(layout.LOCK))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        for last in (False, False, True):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if last:
                    raise CorpusBusy(f"{store.root} is being written by {_holder(path)}") from error
                time.sleep(0.05)  # `lavie status` asks by holding it for a moment
        with error_names(str(path)):
            path.write_text(json.dumps(asdict(Holder.me())))
        yield


def _holder(lock: Path) -> str:
    """Who holds the lock, as its file says."""
    try:
        return str(Holder(**json.loads(lock.read_text())))
    except (ValueError, TypeError):  # just being written
        return "another run"
