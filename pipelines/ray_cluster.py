"""A run's Ray: a private one on this machine, or a cluster that is joined."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray.exceptions import RaySystemError

from curation.errors import LavieError, UsageError

OBJECT_STORE_BYTES = 128 * 1024**2
"""Only unit numbers and counters travel; Ray's least is about 75 MB."""
ANSWER_S = 10.0
"""A cluster that lets one wait longer for a connection is not there."""


class RayUnavailable(LavieError):
    """Ray did not start, or the cluster's address does not answer."""


def start_ray(
    address: str = "local", *, num_cpus: int | None = None, outlives_sigterm: bool = False
) -> None:
    """Connect to a cluster, or start a private one on this machine.

    Args:
        address: "local" for a private one; "auto" or an address joins a running cluster.
        num_cpus: processor cores of a private cluster; all by default.
        outlives_sigterm: whether the processes of a private one, workers included, stay through a SIGTERM
            to the whole process group (batch systems, `timeout`), for this process to end the work in
            order. They then end by SIGKILL alone, which takes Ray a few seconds at its own end.

    Raises:
        UsageError: if the address is none.
        RayUnavailable: if Ray did not start, or nobody answers at the address.
    """
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        with _sigterm_kept(), _sigterm_blocked(outlives_sigterm and address == "local"):
            _init(address, num_cpus)
    except (ConnectionError, TimeoutError, RaySystemError) as error:
        asked = (
            "Ray did not start on this machine"
            if address == "local"
            else f"--ray-address: Ray is not at {address!r}"
        )
        raise RayUnavailable(f"{asked}: {str(error).splitlines()[0]}") from error


def _init(address: str, num_cpus: int | None) -> None:
    # With a token, which Ray makes, nobody else gets in: nothing that a user must know of each run.
    tokens = logging.getLogger("ray._private.authentication.authentication_token_setup")
    tokens.addFilter(_is_no_good_news)
    if address == "local":
        ray.init(
            address="local",
            num_cpus=num_cpus,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            logging_level=logging.WARNING,
            log_to_driver=False,
        )
    else:
        _check_answers(address)
        ray.init(address=address, logging_level=logging.WARNING)


def _is_no_good_news(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("Token authentication is enabled for this")


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Ray puts handlers of its own on SIGTERM: one prints a dump of its C++ frames, one exits with 15."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as left:
        if left.code == signal.SIGTERM and callable(before):
            before(signal.SIGTERM, None)
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


@contextmanager
def _sigterm_blocked(wanted: bool) -> Iterator[None]:
    """Block SIGTERM in all processes that are started meanwhile: a mask is handed down through exec."""
    if not wanted:
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def check_address(address: str) -> tuple[str, int] | None:
    """Host and port of a cluster; None for 'local' and 'auto'.

    Raises:
        UsageError: if the address is none.
    """
    if address in ("local", "auto"):
        return None
    match = re.fullmatch(r"(?:ray://)?(\[[^\]]+\]|[^:/\[\]]+):(\d{1,5})", address)
    if match is None or int(match[2]) > 65535:
        raise UsageError(
            "--ray-address: 'local', 'auto', HOST:PORT or ray://HOST:PORT, got " + repr(address)
        )
    return match[1].strip("[]"), int(match[2])


def _check_answers(address: str) -> None:
    """Ask a cluster's address for a connection: Ray itself would go on asking for many minutes.

    Raises:
        UsageError: if the address is none.
        ConnectionError: if nobody answers.
    """
    place = check_address(address)
    if place is None:
        return
    try:
        socket.create_connection(place, ANSWER_S).close()
    except OSError as error:  # refused, unreachable, unknown name, or no answer in time
        raise ConnectionError(str(error)) from error
