"""A `lavie` command as a job of a Ray cluster: its driver runs there, with this machine's code."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curation.errors import LavieError, UsageError
from curation.sources.uris import WITH_CREDENTIALS

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

COMMANDS = ("curate", "export", "encode")
"""What may be submitted: commands that work on a cluster."""
PACKAGES = ("curation", "inference", "pipelines", "training")
LOOK_S = 2.0


class JobFailed(LavieError):
    """A job ended otherwise than by itself."""


def check_words(words: Sequence[str]) -> None:
    """Refuse what cannot be a job before anything is sent.

    Raises:
        UsageError: another command; a secret, which everyone would see who sees the job.
    """
    if not words or words[0] not in COMMANDS:
        given = repr(words[0]) if words else "nothing"
        raise UsageError(
            f"lavie submit: a command is due after '--', one of {', '.join(COMMANDS)}, got {given}"
        )
    told = (text for word in words for text in (word, word.partition("=")[2]))
    if any(re.match(WITH_CREDENTIALS, text) for text in told):
        raise UsageError(
            "lavie submit: an address carries a user name, a password or a key, and the command of a job is "
            "shown to all who may look at the cluster; set them in the environment of its nodes"
        )


def entrypoint(words: Sequence[str]) -> str:
    """The command as a node runs it; on the cluster that it is on, unless it says another."""
    given = any(word.split("=")[0].endswith("ray-address") for word in words)
    address = [] if given or words[0] == "encode" else ["--ray-address", "auto"]
    return shlex.join(["python", "-m", "pipelines", *words, *address])


def runtime_env() -> dict[str, Any]:
    """The code of this machine, for the driver and its workers; no variable of its environment."""
    root = Path(__file__).parents[1]
    return {
        "py_modules": [str(root / name) for name in PACKAGES],
        "excludes": ["__pycache__"],
        "env_vars": {"RAY_USAGE_STATS_ENABLED": "0"},
    }


def client_of(address: str) -> JobSubmissionClient:
    """A connection to a cluster's job server.

    Raises:
        LavieError: if the packages of the job API are not installed here.
        RayUnavailable: if nobody answers there.
    """
    from ray.job_submission import JobSubmissionClient

    from pipelines.ray_cluster import RayUnavailable

    try:
        return JobSubmissionClient(address)
    except (ConnectionError, RuntimeError) as error:
        if "ray[default]" in str(error):
            raise LavieError(
                "Ray's job API is not installed here: pip install 'lavie[cluster]'"
            ) from error
        said = str(error).splitlines()[0]
        raise RayUnavailable(f"no job server of Ray answers at {address!r}: {said}") from error


def follow(client: JobSubmissionClient, job: str, say: Callable[[str], object]) -> int:
    """Say what a job writes until it has ended; returns its exit code.

    Raises:
        JobFailed: if it was stopped, or its process could not be started.
    """
    said = 0
    while True:
        info = client.get_job_info(job)
        logs = client.get_job_logs(job)
        if len(logs) > said:
            say(logs[said:])
            said = len(logs)
        if info.status.is_terminal():
            break
        time.sleep(LOOK_S)
    if info.driver_exit_code is None:
        raise JobFailed(f"job {job} is {info.status}: {info.message}")
    return int(info.driver_exit_code)
