"""What Ray Data does where a run must go on: a row that kills its worker, more stages than cores.

    python benchmarks/ray_data.py [--seconds 60]

Two pipelines of actor pools on a private Ray with two cores, each given --seconds. `pipelines.run` ends
both: the first names its unit after three tries, the second runs (`benchmarks/scheduling.py --real`).
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Batch = Mapping[str, Any]


class KilledBy:
    """Row 1 kills its worker; each try of a row is noted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, batch: Batch) -> Batch:
        """One row."""
        (row,) = batch["id"]
        with (self.folder / f"tries of row {row}").open("a") as file:
            file.write("x")
        if row == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return batch


class Nothing:
    """An empty stage that notes its starts and its rows."""

    def __init__(self, folder: Path, number: int) -> None:
        self.folder, self.number = folder, number
        with (folder / f"starts of stage {number}").open("a") as file:
            file.write("x")

    def __call__(self, batch: Batch) -> Batch:
        """One row."""
        with (self.folder / f"rows of stage {self.number}").open("a") as file:
            file.write("x")
        return batch


def run(what: str, folder: Path) -> None:
    """Run one pipeline to its end, if it has one."""
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    data = ray.data.range(4 if what == "kill" else 160, override_num_blocks=4)
    pool = ray.data.ActorPoolStrategy(min_size=1, max_size=2)
    how: dict[str, Any] = {"batch_size": 1, "num_cpus": 1, "compute": pool}
    if what == "kill":
        data = data.map_batches(KilledBy, fn_constructor_args=(folder,), **how)
    else:
        for number in range(8):
            data = data.map_batches(Nothing, fn_constructor_args=(folder, number), **how)
    print(f"{data.count()} rows")


def main() -> None:
    """Run both, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--run", nargs=2, metavar=("WHAT", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        run(arguments.run[0], Path(arguments.run[1]))
        return
    for what, title in (("kill", "a row that kills its worker"), ("many", "eight stages")):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, "--run", what, folder]
            process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
            try:
                process.wait(arguments.seconds)
                ended = "ended"
            except subprocess.TimeoutExpired:
                ended = f"had not ended after {arguments.seconds:g} s"
                os.killpg(process.pid, signal.SIGTERM)
                process.wait()
            notes = {path.name: path.stat().st_size for path in sorted(Path(folder).iterdir())}
            print(f"{title}: {ended}; {notes}")


if __name__ == "__main__":
    main()
