"""What a process can give up before it touches untrusted bytes. Standard library only.

Each step is taken where the kernel has it and named in the result of `isolate`, so that a user can
be told; none is an error where it is missing. All of them hold for good and for all children. Must
run while the process has one thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import struct
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
CLONE_NEWUSER, CLONE_NEWNET, CLONE_NEWIPC = 0x10000000, 0x40000000, 0x08000000

LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446
"""System calls, the same numbers on every architecture since Linux 5.13."""
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REMOVE_FILE, MAKE_REG, TRUNCATE = 1 << 5, 1 << 8, 1 << 14
FOLDER_RIGHTS = READ_DIR | REMOVE_FILE | MAKE_REG
FS_RIGHTS_BITS = {1: 13, 2: 14, 3: 15, 4: 15}
"""Version of Landlock -> how many kinds of access to files it can forbid; 16 from version 5."""
TCP_BIND_AND_CONNECT = 0b11
SCOPE_ABSTRACT_SOCKETS_AND_SIGNALS = 0b11

MAX_WRITTEN_BYTES = 1024**2
MAX_OPEN_FILES = 256
SHARED_BYTES = 16 * 1024**3
"""Address space allowed over the private memory: libraries and reserved, never touched arenas."""

STEPS = (
    "memory",
    "no_network",
    "no_capabilities",
    "no_new_privileges",
    "read_only_files",
    "ends_with_parent",
)
"""What `isolate` can do, in its order."""

SYSTEM_PATHS = (
    *("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/dev/null", "/dev/urandom"),
    *("/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system/cpu"),
)
"""What Python and the libraries of media read of the system."""


def isolate(
    *,
    memory_bytes: int,
    readable: Iterable[str],
    parent: int,
    writable: Iterable[str] = (),
    runnable: Iterable[str] = (),
    written_bytes: int = MAX_WRITTEN_BYTES,
) -> list[str]:
    """Give up what decoding does not need.

    Args:
        memory_bytes: private memory allowed from now on.
        readable: folders and files that may still be opened, beside the system's.
        parent: process with which this one shall end.
        writable: folders in which files may be made.
        runnable: programs that may be started, their dynamic loader included.
        written_bytes: length of the largest file that may be written.

    Returns:
        Those of `STEPS` that were taken.
    """
    steps = {"memory": _limit(memory_bytes, written_bytes)}
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        with contextlib.suppress(OSError):  # the kernel shall end this one first, not the parent
            Path("/proc/self/oom_score_adj").write_text("800")
        steps["no_network"] = _leave_networks(libc)
        steps["no_capabilities"] = _drop_capabilities(libc)
        steps["no_new_privileges"] = libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
        rights = {
            READ_FILE | READ_DIR: (*SYSTEM_PATHS, *readable),
            READ_FILE | READ_DIR | WRITE_FILE | REMOVE_FILE | MAKE_REG | TRUNCATE: writable,
            READ_FILE | EXECUTE: runnable,
        }
        steps["read_only_files"] = _landlock(libc, rights)
        # Last, for a change of credentials undoes it. A parent that has gone already is noticed.
        steps["ends_with_parent"] = libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0
        if os.getppid() != parent:
            os._exit(1)
    return [name for name, taken in steps.items() if taken]


def become(command: list[str], settings: dict[str, Any]) -> NoReturn:
    """Give up rights and go on as another program; `curation.media.guard.isolated_command` calls it."""
    isolate(**settings)
    os.execv(command[0], command)  # noqa: S606 - an argument list of our own making


def _limit(memory_bytes: int, written_bytes: int) -> bool:
    """Limits on private memory, address space, written files, open files; no core file."""
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: written_bytes,
        resource.RLIMIT_NOFILE: MAX_OPEN_FILES,
        # The data limit counts what is written to; the address space of threads that reserve
        # arenas of 64 MB each, of which they use one, says little.
        resource.RLIMIT_DATA: memory_bytes,
        resource.RLIMIT_AS: memory_bytes + SHARED_BYTES,
    }
    for kind, value in limits.items():
        _, hard = resource.getrlimit(kind)
        allowed = value if hard == resource.RLIM_INFINITY else min(value, hard)
        try:
            resource.setrlimit(kind, (allowed, allowed))
        except (OSError, ValueError):
            return False
    return True


def _leave_networks(libc: ctypes.CDLL) -> bool:
    """Move into namespaces with no network but an unconfigured loopback."""
    own = CLONE_NEWNET | CLONE_NEWIPC
    return libc.unshare(CLONE_NEWUSER | own) == 0 or libc.unshare(own) == 0


def _drop_capabilities(libc: ctypes.CDLL) -> bool:
    """Give up all capabilities, those over a new user namespace included (capset, version 3)."""
    header = struct.pack("<Ii", 0x20080522, 0)
    return bool(libc.capset(header, bytes(24)) == 0)


def _landlock(libc: ctypes.CDLL, granted: Mapping[int, Iterable[str]]) -> bool:
    """Forbid all access to files but what is granted; also TCP, and signals, where known.

    Descriptors that are open, or are handed over later, keep working.
    """
    abi = libc.syscall(LANDLOCK_CREATE_RULESET, None, 0, 1)
    if abi < 1:
        return False
    known = (1 << FS_RIGHTS_BITS.get(abi, 16)) - 1
    handled = struct.pack(
        "=QQQ",
        known,
        TCP_BIND_AND_CONNECT,
        SCOPE_ABSTRACT_SOCKETS_AND_SIGNALS,
    )[: 8 if abi < 4 else 16 if abi < 6 else 24]
    ruleset = libc.syscall(LANDLOCK_CREATE_RULESET, handled, len(handled), 0)
    if ruleset < 0:
        return False
    for rights, paths in granted.items():
        for descriptor, is_folder in _opened(paths):
            allowed = rights & known & (~0 if is_folder else ~FOLDER_RIGHTS)
            rule = struct.pack("=Qi", allowed, descriptor)
            libc.syscall(LANDLOCK_ADD_RULE, ruleset, 1, rule, 0)
    taken = libc.syscall(LANDLOCK_RESTRICT_SELF, ruleset, 0) == 0
    os.close(ruleset)
    return bool(taken)


def _opened(paths: Iterable[str]) -> Iterator[tuple[int, bool]]:
    """Each path that exists as a descriptor, and whether it is a folder."""
    for path in dict.fromkeys(paths):
        try:
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue  # not every system has every one of them
        yield descriptor, os.path.isdir(path)
        os.close(descriptor)
