"""submit: a command as a job of a cluster."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated

from rich.console import Console
from tyro.conf import FlagCreatePairsOff, Positional, arg

from pipelines.submit import check_words, client_of, entrypoint, follow, runtime_env


@dataclass(frozen=True, slots=True, kw_only=True)
class Submit:
    """Run another command on a Ray cluster, as a job with the code of this machine.

    $ lavie submit --follow -- curate s3://raw/films --out s3://lavie/corpus --preset vimeo25m

    Secrets and model files are not sent: the nodes have them (docs/cluster.md). The command goes on when
    this machine is switched off; submitted again after an end of whatever kind, it goes on where it was.
    """

    command: Annotated[Positional[tuple[str, ...]], arg(metavar="-- COMMAND ...")]
    """The command with its flags, after '--': curate, export or encode."""
    address: str = "http://127.0.0.1:8265"
    """Ray's dashboard, where its job server listens: http://HOST:PORT, behind a tunnel or an ingress."""
    follow: Annotated[bool, FlagCreatePairsOff] = False
    """Show what the job writes until it has ended, and end with its exit code."""

    def run(self) -> int:
        """Send the job; 0, or with --follow what the job ended with."""
        from pipelines.cli import parse

        check_words(self.command)
        parse(self.command)  # a mistyped flag is told here, and at once
        client = client_of(self.address)
        job = client.submit_job(entrypoint=entrypoint(self.command), runtime_env=runtime_env())
        Console().print(f"job {job} runs at {self.address}", highlight=False)
        return follow(client, job, sys.stdout.write) if self.follow else 0
