"""The state of a run on disk: whole or not at all, checked by digest, loadable on any number of ranks.

::

    checkpoints/step-00001000/
        shard-*.safetensors    tensors of model, optimizer, average and counters, each rank its own
        complete.json          step, sha256 of each file, what the run was made of; written last

torch.distributed.checkpoint writes and reshards; its safetensors form is used, since its own keeps
metadata as a pickle. A folder without complete.json does not exist for a reader.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from curation.corpus.store import Store
from curation.errors import LavieError
from training.distributed import Ranks
from training.run_config import SaveConfig

logger = logging.getLogger(__name__)

FOLDER = "checkpoints"
MARKER = "complete.json"
WRITING = ".writing-"
FORMAT_VERSION = 1


class CheckpointError(LavieError):
    """A checkpoint cannot be used; the message says which and why."""


class ChangedRun(CheckpointError):
    """A run is resumed with other data or settings than it began with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """What complete.json says."""

    step: int
    """Optimizer steps taken."""
    files: Mapping[str, tuple[int, str]]
    """Name -> length in bytes and sha256."""
    made_of: Mapping[str, str]
    """What a resume must find unchanged: name of a setting or input -> its value or digest."""
    score: float | None
    """Held-out loss of the averaged weights at this step, where it was measured; lower is better."""

    def to_json(self) -> bytes:
        """Canonical bytes."""
        content = {
            "format_version": FORMAT_VERSION,
            "step": self.step,
            "files": {name: list(fact) for name, fact in self.files.items()},
            "made_of": dict(self.made_of),
            "score": self.score,
        }
        return (json.dumps(content, sort_keys=True, indent=1) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes, name: str) -> Marker:
        """Read what `to_json` wrote.

        Raises:
            CheckpointError: It is something else, or of a later format.
        """
        try:
            content = json.loads(data)
            if content["format_version"] != FORMAT_VERSION:
                raise CheckpointError(
                    f"{name} has format version {content['format_version']}, "
                    f"this program reads {FORMAT_VERSION}"
                )
            files = {key: (int(size), str(sha)) for key, (size, sha) in content["files"].items()}
            return cls(
                step=int(content["step"]),
                files=files,
                made_of=content["made_of"],
                score=content["score"],
            )
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{name} is not a checkpoint's marker: {error!r}") from error


def folder_of(step: int) -> str:
    """Where the checkpoint after so many steps lies, relative to the run."""
    return f"{FOLDER}/step-{step:08d}"


class Checkpoints:
    """The checkpoints of one run.

    Args:
        run: Folder or object-store prefix of the run.
        config: How many are kept, and whether writing goes on beside training.
        ranks: The processes; all call the same methods in the same order.
    """

    def __init__(self, run: Store, config: SaveConfig, ranks: Ranks) -> None:
        self._run = run
        self._config = config
        self._ranks = ranks
        # A group of its own: collectives of a save in the background must not meet training's.
        self._group = dist.new_group(backend="gloo") if ranks.world_size > 1 else None
        self._stager = DefaultStager(StagingOptions(False, False, False, False))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        if self._group is None:  # which torch takes for a mistake
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        self._scratch = None if run.is_local else tempfile.TemporaryDirectory(prefix="checkpoint-")
        if run.is_local and ranks.is_first:
            for left in Path(run.path(FOLDER)).glob(f"{WRITING}*"):
                shutil.rmtree(left)  # of a run that was killed while it wrote
        ranks.wait_for_all()

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, rising."""
        names = [name for name in self._run.folders(FOLDER) if name.startswith("step-")]
        whole = [name for name in names if self._run.exists(f"{FOLDER}/{name}/{MARKER}")]
        return sorted(int(name.removeprefix("step-")) for name in whole)

    def marker(self, step: int) -> Marker:
        """What a complete checkpoint says of itself."""
        name = f"{folder_of(step)}/{MARKER}"
        return Marker.from_json(self._run.read(name), f"{self._run.root}/{name}")

    def latest(self, *, at_most: int | None = None) -> Marker | None:
        """The newest checkpoint whose bytes are those that were written.

        A damaged one is named in the log and passed over: the run goes on from the one before.

        Args:
            at_most: Only steps up to this one.

        Raises:
            CheckpointError: There are checkpoints, and all are damaged.
        """
        found = self._latest(at_most) if self._ranks.is_first else None
        answer: Marker | CheckpointError | None = self._ranks.gather(found)[0]
        if isinstance(answer, CheckpointError):
            raise answer
        return answer

    def _latest(self, at_most: int | None) -> Marker | CheckpointError | None:
        steps = [step for step in self.steps() if at_most is None or step <= at_most]
        for step in reversed(steps):
            fault = self._fault(step)
            if fault is None:
                return self.marker(step)
            logger.warning("checkpoint of step %s is passed over: %s", step, fault)
        if steps:
            return CheckpointError(
                f"all {len(steps)} checkpoints of {self._run.root} are damaged; delete "
                f"{FOLDER}/ to begin anew"
            )
        return None

    def _fault(self, step: int) -> str | None:
        try:
            files = self.marker(step).files
        except CheckpointError as error:
            return str(error)
        for name, (size_bytes, sha256) in files.items():
            place = f"{folder_of(step)}/{name}"
            if not self._run.exists(place):
                return f"{name} is missing"
            with self._run.filesystem.open_input_stream(self._run.path(place)) as stream:
                found = _digest(stream)
            if found != (size_bytes, sha256):
                return f"{name} is not the file that was written"
        return None

    def load(self, step: int, state: dict[str, Any]) -> None:
        """Fill the tensors of a state with those of a checkpoint, in place.

        Raises:
            CheckpointError: The checkpoint holds other tensors.
        """
        place = folder_of(step)
        folder = Path(self._run.path(place)) if self._run.is_local else self._fetch(place, step)
        try:
            reader = HuggingFaceStorageReader(str(folder))
            load(state, storage_reader=reader, no_dist=self._group is None)
        except CheckpointException as failed:
            causes = "; ".join(str(cause) for cause, _ in failed.failures.values())
            raise CheckpointError(
                f"{self._run.root}/{place} does not hold the state of this run: {causes}"
            ) from failed

    def _fetch(self, place: str, step: int) -> Path:
        assert self._scratch is not None, "remote runs have a scratch folder"
        folder = Path(self._scratch.name) / f"load-{step}"
        folder.mkdir(exist_ok=True)
        for name in self.marker(step).files:
            (folder / name).write_bytes(self._run.read(f"{place}/{name}"))
        return folder

    def save(
        self, state: dict[str, Any], *, step: int, made_of: Mapping[str, str], score: float | None
    ) -> None:
        """Copy the state, then write it, beside training unless the settings say otherwise.

        Args:
            state: Nested dictionaries of tensors.
            step: Optimizer steps taken.
            made_of: What a resume must find unchanged.
            score: Held-out loss, if it was measured at this step.
        """
        self.wait()
        staged = self._stager.stage(state)
        assert isinstance(staged, dict), "staging is synchronous"
        packed = _packed(staged)
        self._pending = self._thread.submit(self._write, packed, step, dict(made_of), score)
        if not self._config.asynchronous:
            self.wait()

    def wait(self) -> None:
        """Return when the checkpoint being written is complete; raise what went wrong with it."""
        if self._pending is not None:
            self._pending.result()
            self._pending = None

    def close(self) -> None:
        """Finish writing and let go of the thread."""
        self.wait()
        self._thread.shutdown()
        self._stager.close()
        if self._scratch is not None:
            self._scratch.cleanup()

    def _write(
        self, state: dict[str, Any], step: int, made_of: dict[str, str], score: float | None
    ) -> None:
        draft = self._draft(step)
        if self._ranks.is_first or not self._run.is_local:
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
        self._meet()
        writer = HuggingFaceStorageWriter(str(draft), save_distributed=True)
        save(state, storage_writer=writer, process_group=self._group, no_dist=self._group is None)
        own = self._own_files(draft)
        facts = {path.name: _digest_of_file(path) for path in own}
        if not self._run.is_local:
            for path in own:
                self._run.put_file(f"{folder_of(step)}/{path.name}", path)
        files = {name: fact for part in self._gather(facts) for name, fact in part.items()}
        if self._ranks.is_first:
            marker = Marker(step=step, files=files, made_of=made_of, score=score)
            self._commit(draft, step, marker)
            self._prune(step)
        self._meet()

    def _draft(self, step: int) -> Path:
        if self._scratch is not None:
            return Path(self._scratch.name) / f"save-{step}"
        return Path(self._run.path(f"{FOLDER}/{WRITING}step-{step:08d}"))

    def _own_files(self, draft: Path) -> list[Path]:
        """Files that this rank has written: on a shared folder all ranks' lie together."""
        mine = f"shard-{self._ranks.rank + 1:05d}-"
        return sorted(path for path in draft.iterdir() if path.name.startswith(mine))

    def _commit(self, draft: Path, step: int, marker: Marker) -> None:
        if not self._run.is_local:
            self._run.write(f"{folder_of(step)}/{MARKER}", marker.to_json())
            return
        with (draft / MARKER).open("wb") as file:
            file.write(marker.to_json())
            file.flush()
            os.fsync(file.fileno())
        target = Path(self._run.path(folder_of(step)))
        if target.exists():  # damaged, and passed over by the resume that has come here again
            shutil.rmtree(target)
        draft.rename(target)
        _sync_folder(target.parent)

    def _prune(self, newest: int) -> None:
        steps = [step for step in self.steps() if step <= newest]
        scores = {step: self.marker(step).score for step in steps}
        measured = [step for step in steps if scores[step] is not None]
        best = min(measured, key=lambda step: (scores[step], step), default=None)
        for step in steps[: -self._config.keep]:
            if step != best:
                self._delete(step)

    def _delete(self, step: int) -> None:
        place = folder_of(step)
        self._run.delete(f"{place}/{MARKER}")  # first, so that a half-deleted one does not exist
        if self._run.is_local:
            shutil.rmtree(self._run.path(place))
            return
        for name in self._run.files(place):
            self._run.delete(name)

    def _meet(self) -> None:
        if self._group is not None:
            dist.barrier(self._group)

    def _gather(self, value: Any) -> list[Any]:
        if self._group is None:
            return [value]
        values: list[Any] = [None] * self._ranks.world_size
        dist.all_gather_object(values, value, group=self._group)
        return values


GROWN = (
    " (the shards have grown or were made anew; what is new is for a run of its own, which can start "
    "from this one's weights)"
)


def check_unchanged(marker: Marker, made_of: Mapping[str, str]) -> None:
    """Refuse to go on from a checkpoint that was made of something else.

    Raises:
        ChangedRun: Names every field that differs, with both values.
    """
    names = sorted(marker.made_of.keys() | made_of.keys())
    lines = [
        f"  {name}: was {marker.made_of.get(name, 'absent')}, is {made_of.get(name, 'absent')}"
        + (GROWN if re.fullmatch(r"corpus/\d+/manifest", name) else "")
        for name in names
        if marker.made_of.get(name) != made_of.get(name)
    ]
    if lines:
        raise ChangedRun(
            f"the run began with other data or settings (checkpoint of step {marker.step}):\n"
            + "\n".join(lines)
            + "\nresume with those it began with, or train into a new folder"
        )


def state_of(
    net: torch.nn.Module, optimizer: torch.optim.Optimizer, average: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything that a step changes, as nested dictionaries of the very tensors.

    The moments of AdamW are made where the first step has not made them yet.
    """
    names = {parameter: name for name, parameter in net.named_parameters()}
    moments: dict[str, dict[str, Tensor]] = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            held = optimizer.state[parameter]
            if not held:
                held["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
                held["exp_avg"] = torch.zeros_like(parameter)
                held["exp_avg_sq"] = torch.zeros_like(parameter)
            moments[names[parameter]] = dict(held)
    return {"model": net.state_dict(), "optimizer": moments, "average": dict(average)}


def _packed(state: dict[str, Any]) -> dict[str, Any]:
    """The same state with every tensor contiguous, as files need it; channels-last ones are not."""
    return {
        key: _packed(value) if isinstance(value, dict) else value.contiguous()
        for key, value in state.items()
    }


def _digest(stream: Any) -> tuple[int, str]:
    digest, size_bytes = hashlib.sha256(), 0
    while piece := stream.read(16 * 1024**2):
        digest.update(piece)
        size_bytes += len(piece)
    return size_bytes, digest.hexdigest()


def _digest_of_file(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return _digest(file)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
