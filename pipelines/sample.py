"""Many videos: one atomic file for each prompt and seed, here or on the workers of a Ray cluster.

A unit is one prompt with one seed, and its files say whether it is done; see `pipelines.run` for how
workers get units and what happens when one dies.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from curation.corpus.store import Store
from curation.errors import LavieError, UsageError
from curation.stations.station import Resources
from curation.weights.catalog import file_sha256
from inference.cascade import Request, cascade
from inference.lora_file import read_lora
from inference.memory import Models
from inference.personalised import read_textual_inversion
from inference.pipeline import VideoPipeline
from inference.settings import CascadeConfig, MachineConfig
from inference.video_file import Encoding, write_video
from inference.weights import Weights
from pipelines.places import named_file
from pipelines.progress import ProgressBars
from pipelines.ray_cluster import start_ray
from pipelines.run import Stage as WorkStage
from pipelines.run import UnitResult, run_stages
from training.models.schedule import Stage

SETTINGS = "sampling.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Personalisation:
    """What the base network is personalised with."""

    loras: tuple[tuple[str, float], ...] = ()
    """LoRA files with their weights."""
    words: tuple[str, ...] = ()
    """Textual Inversion files."""
    image_weights: str | None = None
    """UNet of an image model whose layers replace the base network's image layers."""

    def check(self) -> None:
        """Read the small files before any network is loaded.

        Raises:
            UsageError: one is not what its flag takes.
        """
        for path, _ in self.loras:
            with named_file("--lora"):
                read_lora(Path(path))
        for path in self.words:
            with named_file("--word"):
                read_textual_inversion(Path(path))

    def described(self) -> dict[str, Any]:
        """Every file with its digest, in plain values; empty where there is none."""
        said: dict[str, Any] = {}
        if self.loras:
            said["loras"] = [
                _file(path, "--lora") | {"weight": weight} for path, weight in self.loras
            ]
        if self.words:
            said["words"] = [_file(path, "--word") for path in self.words]
        if self.image_weights is not None:
            said["image_weights"] = _file(self.image_weights, "--image-weights")
        return said

    def __call__(self, pipeline: VideoPipeline) -> None:
        """Load everything into a base pipeline; other stages stay as they are."""
        if pipeline.stage != "base":
            return
        held: Any = pipeline
        if self.image_weights is not None:
            with named_file("--image-weights"):
                held.load_spatial_weights(self.image_weights)
        for path, weight in self.loras:
            with named_file("--lora"):
                held.load_lora_weights(path, weight=weight)
        for path in self.words:
            with named_file("--word"):
                held.load_textual_inversion(path)


def _file(path: str, flag: str) -> dict[str, Any]:
    """Name of a file, or of a folder, and the digest of each of its safetensors files."""
    found = Path(path)
    with named_file(flag):
        files = sorted(found.rglob("*.safetensors")) if found.is_dir() else [found]
        return {"name": found.name, "sha256": {file.name: file_sha256(file) for file in files}}


@dataclass(slots=True, kw_only=True)
class SampleJob:
    """One prompt and seed -> its video and the JSON beside it."""

    out: Store
    config: CascadeConfig
    weights: Mapping[Stage, Weights]
    machine: MachineConfig
    personalisation: Personalisation
    encoding: Encoding
    suffix: str = ".mp4"
    _models: Models | None = field(default=None, init=False)

    def setup(self) -> None:
        """Check the weights on this machine; they are loaded when their stage comes."""
        for weights in self.weights.values():
            weights.check()
        self._models = Models(
            self.weights,
            self.machine.resolved(),
            keep=True,
            adjust=self.personalisation,
            adjustment=self.personalisation.described(),
        )

    def run(self, unit: int, plan: tuple[str, int]) -> UnitResult:
        """Commit one video; its JSON last, since it is the file that says the video is done."""
        assert self._models is not None  # set up first
        prompt, seed = plan
        video = cascade(Request(prompt=prompt, seed=seed), self.config, self._models)
        name = file_name(prompt, seed, self.suffix)
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder) / name
            write_video(
                local,
                video.frames_THWC,
                fps=video.fps,
                encoding=self.encoding,
                description=video.description,
            )
            self.out.put_file(name, local)
            self.out.put_file(f"{name}.json", local.with_name(f"{name}.json"))
        return UnitResult(counts={"frames": len(video.frames_THWC)})

    def close(self) -> None:
        """Forget the models."""
        self._models = None


def file_name(prompt: str, seed: int, suffix: str = ".mp4") -> str:
    """Name of a video: readable, and different for every prompt and seed.

    >>> file_name("A panda, drinking coffee", 3)
    'a-panda-drinking-coffee-d51a5c4a-3.mp4'
    """
    words = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:60].rstrip("-")
    digest = hashlib.sha256(prompt.encode()).hexdigest()[:8]
    return f"{words}-{digest}-{seed}{suffix}" if words else f"{digest}-{seed}{suffix}"


def read_prompts(path: Path) -> list[str]:
    """The prompts of a text file, one a line; empty lines and those that begin with # do not count.

    Raises:
        UsageError: There is no such file, it is no UTF-8 text, or it has no prompt.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--prompts: no prompts can be read from {path}: {error}") from error
    prompts = [line.strip() for line in lines]
    prompts = list(dict.fromkeys(p for p in prompts if p and not p.startswith("#")))
    if not prompts:
        raise UsageError(f"--prompts: {path} holds no prompt: one a line is expected")
    return prompts


def sample_batch(
    job: SampleJob,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    console: Console,
    ray_address: str | None = None,
    resources: Resources | None = None,
) -> int:
    """Make every video that is not there yet.

    Args:
        job: What a worker does.
        prompts: What to show.
        seeds: Videos of each prompt.
        console: For progress.
        ray_address: "local", "auto" or an address; None works in this process.
        resources: Of one worker on Ray.

    Returns:
        How many videos were made now.

    Raises:
        LavieError: The folder holds videos of other settings or weights, or a worker died three
            times over a video.
    """
    plans = [(prompt, seed) for prompt in prompts for seed in seeds]
    _claim(job)
    there = set(job.out.files())
    done = frozenset(
        unit
        for unit, (prompt, seed) in enumerate(plans)
        if f"{file_name(prompt, seed, job.suffix)}.json" in there
    )
    with ProgressBars(console, unit="videos") as bars:
        if ray_address is None:
            _run_here(job, plans, done, bars)
        else:
            start_ray(ray_address)
            work = WorkStage(
                name="sample",
                job=job,
                resources=resources or Resources(),
                units=range(len(plans)),
                done=done,
                plans=plans,
            )
            run_stages([work], bars)
    return len(plans) - len(done)


def _run_here(
    job: SampleJob, plans: Sequence[tuple[str, int]], done: frozenset[int], bars: ProgressBars
) -> None:
    bars.start("sample", total=len(plans), done=len(done))
    job.setup()
    for unit, plan in enumerate(plans):
        if unit not in done:
            bars.advance("sample", job.run(unit, plan).counts)
    job.close()


def _claim(job: SampleJob) -> None:
    """Write what the videos of this folder are made with, or check that it is the same as before."""
    now = {
        "settings": asdict(job.config),
        "weights_sha256": {stage: weights.digest() for stage, weights in job.weights.items()},
        "machine": asdict(job.machine),
        "personalisation": job.personalisation.described(),
        "encoding": asdict(job.encoding),
    }
    now = json.loads(json.dumps(now))  # as it will be read: tuples are lists
    if not job.out.exists(SETTINGS):
        job.out.write(SETTINGS, (json.dumps(now, indent=2, sort_keys=True) + "\n").encode())
        return
    before = json.loads(job.out.read(SETTINGS))
    wrong = differences(before, now)
    if wrong:
        raise LavieError(
            f"{job.out.root} holds videos of other settings; take another folder. "
            + "; ".join(wrong)
        )


def differences(before: Any, now: Any, name: str = "") -> list[str]:
    """Every entry in which two trees of plain values differ, with its name.

    >>> differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2})
    ['a.b was 1, is 3']
    """
    if isinstance(before, dict) and isinstance(now, dict):
        keys = sorted(before.keys() | now.keys())
        return [
            line
            for key in keys
            for line in differences(
                before.get(key), now.get(key), f"{name}.{key}" if name else str(key)
            )
        ]
    return [] if before == now else [f"{name} was {before}, is {now}"]
