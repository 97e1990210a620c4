"""sample: videos from prompts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.console import Console
from tyro.conf import Positional, UseAppendAction, arg
from tyro.constructors import PrimitiveConstructorSpec

from curation.errors import LavieError, MissingWeights, UsageError, typed
from curation.stations.station import Resources
from curation.weights.catalog import find
from curation.weights.catalog import missing as missing_of
from inference.settings import MAX_SEEDS, ORDER, CascadeConfig, MachineConfig
from inference.video_file import Encoding, UnreadableVideo, Video, check_suffix, read_video
from pipelines.commands.weights import known_files, known_groups
from pipelines.places import check_out_files, check_out_folder, named_file, store_at
from pipelines.progress import ProgressBars
from training.models.released import CHECKPOINT_OF, COMPANIONS_OF, LAVIE
from training.models.schedule import Stage

if TYPE_CHECKING:
    from inference.weights import Weights
    from pipelines.sample import Personalisation
    from training.models.exported import SampleShape

UNTRAINED = "tiny untrained networks: the video is coloured noise, for trying the machinery"


def stage_names(names: str) -> tuple[Stage, ...]:
    """``base,super-resolution`` as stages.

    Raises:
        ValueError: There is no stage of a name.
    """
    known = {stage.replace("_", "-"): stage for stage in ORDER}
    words = [word.strip().replace("_", "-") for word in names.split(",")]
    wrong = [word for word in words if word not in known]
    if wrong:
        raise ValueError(f"stages must be of {', '.join(known)}, got {', '.join(wrong)}")
    return tuple(known[word] for word in words)


_STAGES = PrimitiveConstructorSpec(
    nargs=1,
    metavar="base,interpolation,super-resolution",
    instance_from_str=lambda words: stage_names(words[0]),
    is_instance=lambda value: isinstance(value, tuple),
    str_from_instance=lambda stages: [",".join(s.replace("_", "-") for s in stages)],
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cascade(CascadeConfig):
    """Which stages run, on what sizes."""

    stages: Annotated[tuple[Stage, ...], _STAGES] = ("base",)
    """Stages with commas, in this order; without base, --video is what they start from."""

    def at(self, samples: SampleShape | None) -> Cascade:
        """The same for a base network that was trained on these videos; None leaves all as it is."""
        if samples is None:
            return self
        return replace(
            self,
            height=samples.height,
            width=samples.width,
            num_frames=samples.num_frames,
            base=replace(self.base, fps=samples.fps),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Sample a video from a prompt, or many from a file of prompts."""

    prompt: Positional[str] = ""
    """What the video shows; leave it out with --prompts."""
    out: str
    """New .mp4 or .gif file, or without suffix a folder of PNG frames; with --prompts a folder or prefix."""
    overwrite: bool = False
    """Replace the files of --out, or with --prompts write into a folder that holds other files."""
    weights: str = "released"
    """"released" (see `lavie weights`), folder of exported models, or "tiny": untrained, coloured noise."""
    seed: int = 0
    """Seed of all noise; with prompt and settings it decides the video."""
    video: Path | None = None
    """Video to interpolate or enlarge, where --stages leaves out base."""
    prompts: Path | None = None
    """File of prompts, one a line, instead of one prompt; finished videos are not made again."""
    seeds: tuple[int, ...] = ()
    """Seeds of the videos of each prompt, with --prompts; empty: --seed alone."""
    ray: bool = False
    """Sample on all processors and GPUs of Ray, with --prompts."""
    ray_address: str = "local"
    """'local' starts a private Ray on this machine; 'auto' or an address joins a cluster."""
    resources: Resources = field(default_factory=lambda: Resources(cpus=1, gpus=1))
    """What one worker takes, with --ray."""
    lora: UseAppendAction[tuple[str, ...]] = ()
    """LoRA file for the base network, with its weight if not 1: panda.safetensors=0.8."""
    word: UseAppendAction[tuple[str, ...]] = ()
    """Textual Inversion file whose word prompts may use."""
    image_weights: str | None = None
    """UNet of an image model (DreamBooth, fine-tuned SD 1) for the base network's image layers."""
    machine: Annotated[MachineConfig, arg(name="")] = field(default_factory=MachineConfig)
    """Device, precision and memory of the networks."""
    encoding: Encoding = field(default_factory=Encoding)
    """How .mp4 files are written."""
    config: Annotated[Cascade, arg(name="")] = field(default_factory=Cascade)
    """Settings of the cascade."""

    def run(self) -> int:
        """Check everything, then sample; 0 if all videos are there."""
        import torch  # networks and pipelines are imported to run, not to show flags

        try:
            return self._run()
        except torch.OutOfMemoryError as error:
            raise LavieError(
                f"the GPU's memory is too small: try --low-memory, and for super-resolution "
                f"--tiling.height 160 --tiling.width 256. {error}"
            ) from error

    def _run(self) -> int:
        from inference.cascade import check_noise

        if bool(self.prompt) == (self.prompts is not None):
            raise UsageError("give one prompt, or --prompts with a file of them")
        for flag, given in (("--ray", self.ray), ("--seeds", self.seeds)):
            if given and self.prompts is None:
                raise UsageError(
                    f"{flag} is for many videos: give --prompts with a file of prompts"
                )
        for flag, seeds in (("--seed", (self.seed,)), ("--seeds", self.seeds)):
            if wrong := [seed for seed in seeds if not 0 <= seed < MAX_SEEDS]:
                raise UsageError(f"{flag}: a seed is 0 to {MAX_SEEDS - 1}, got {wrong[0]}")
        console = Console(stderr=True)
        with named_file("--weights"):
            weights = stage_weights(self.weights, self.config.stages)
            _check_text_alone(weights)
        with typed("--device, --dtype"):
            machine = self.machine.resolved()
        with typed("--noise-from"):
            check_noise(self.config, machine)
        if self.weights == "tiny":
            console.print(f"[yellow]{UNTRAINED}[/yellow]", highlight=False)
        if self.prompts is not None:
            return self._batch(self.prompts, weights, console)
        return self._one(weights, console)

    def _one(self, weights: dict[Stage, Weights], console: Console) -> int:
        from inference.cascade import (
            Request,
            check_request,
            check_reuse,
            sample_to_file,
            stage_files,
        )
        from inference.memory import Models

        out = Path(self.out)
        with typed("--out"):
            check_suffix(out)
        if not self.out.strip():
            raise UsageError("--out: an empty name is no place")
        given = None if self.video is None else _video(self.video)
        request = Request(prompt=self.prompt, seed=self.seed, given=given)
        with typed("--video"):
            check_request(request, self.config)
        with typed("--reuse-features"):
            check_reuse(request, self.config, self.machine.resolved())
        personalisation = self._personalisation()
        models = Models(
            weights,
            self.machine.resolved(),
            adjust=personalisation,
            adjustment=personalisation.described(),
        )
        places = list(stage_files(out, self.config.stages).values())
        check_out_files(places, "--out", overwrite=self.overwrite)
        with ProgressBars(console, unit="steps") as bars:

            def show(stage: Stage, done: int, total: int) -> None:
                name = stage.replace("_", "-")
                if done == 0:
                    bars.start(name, total=total, done=0)
                else:
                    bars.advance(name, {})

            files = sample_to_file(
                request, self.config, models, out, encoding=self.encoding, on_step=show
            )
        for file in files:
            Console().print(str(file), soft_wrap=True, highlight=False, markup=False)
        return 0

    def _batch(self, prompts: Path, weights: dict[Stage, Weights], console: Console) -> int:
        from inference.cascade import Request, check_reuse
        from pipelines.sample import SETTINGS, SampleJob, read_prompts, sample_batch

        if "base" not in self.config.stages or self.video is not None:
            raise UsageError("--prompts needs the base stage, and no --video")
        asked, out = read_prompts(prompts), store_at(self.out, "--out")
        with typed("--reuse-features"):
            check_reuse(Request(prompt=asked[0]), self.config, self.machine.resolved())
        personalisation = self._personalisation()
        check_out_folder(out, "--out", ours=(SETTINGS,), overwrite=self.overwrite)
        job = SampleJob(
            out=out,
            config=self.config,
            weights=weights,
            machine=self.machine,
            personalisation=personalisation,
            encoding=self.encoding,
        )
        made = sample_batch(
            job,
            asked,
            self.seeds or (self.seed,),
            console=console,
            ray_address=self.ray_address if self.ray else None,
            resources=self.resources,
        )
        console.print(f"{made} videos made now, all in {self.out}", highlight=False)
        return 0

    def _personalisation(self) -> Personalisation:
        from pipelines.sample import Personalisation

        loras: list[tuple[str, float]] = []
        for given in self.lora:
            path, _, weight = given.rpartition("=") if "=" in given else (given, "", "1")
            try:
                loras.append((path, float(weight)))
            except ValueError as error:
                raise UsageError(f"--lora: a file or file=weight is due, got {given!r}") from error
            if not math.isfinite(loras[-1][1]):
                raise UsageError(f"--lora: a weight is a finite number, got {given!r}")
        for flag, paths in (
            ("--lora", [path for path, _ in loras]),
            ("--word", self.word),
            ("--image-weights", filter(None, [self.image_weights])),
        ):
            for path in paths:
                if "base" not in self.config.stages:
                    raise UsageError(f"{flag}: it is for the base stage, which --stages leaves out")
                if not path or not Path(path).exists():
                    raise UsageError(f"{flag}: there is no file {path!r}")
        found = Personalisation(
            loras=tuple(loras), words=self.word, image_weights=self.image_weights
        )
        found.check()
        return found


def _video(path: Path) -> Video:
    try:
        return read_video(path)
    except UnreadableVideo as error:
        raise UsageError(f"--video: {error}") from error


def _check_text_alone(weights: Mapping[Stage, Weights]) -> None:
    """Raise ValueError for a base network that wants its first frame given."""
    from inference.weights import ExportedWeights

    base = weights.get("base")
    if isinstance(base, ExportedWeights) and base.conditioned():
        raise ValueError(
            f"the base network in {base.folder} was trained with its first frame given, and text alone is "
            "given here; inference.long_video.ContinuationPipeline samples from it"
        )


def stage_weights(where: str, stages: Sequence[Stage]) -> dict[Stage, Weights]:
    """Weights of the stages, checked.

    Args:
        where: "released", "tiny" or a folder; see `inference.weights.exported_weights`.
        stages: Those that will run.

    Raises:
        MissingWeights: Released files are not here; the message has the command that fetches them.
        FileNotFoundError: The folder lacks a model.
        ValueError: A model is of another stage.
    """
    from inference.weights import TinyWeights, exported_weights

    if where == "tiny":
        return {stage: TinyWeights(stage=stage) for stage in stages}
    if where == "released":
        return _released(stages)
    return exported_weights(Path(where), stages)


def _released(stages: Sequence[Stage]) -> dict[Stage, Weights]:
    from inference.weights import ReleasedWeights

    files, groups = known_files(), known_groups()
    companions = {stage: COMPANIONS_OF[stage] for stage in stages}
    needed = [files[CHECKPOINT_OF[stage]] for stage in stages]
    needed += [
        weight
        for group in dict.fromkeys(companions.values())
        for weight in groups[group]
        if not weight.name.startswith(f"{group}/unet/")  # LaVie's checkpoints stand for it
    ]
    absent = missing_of(needed)
    if absent:
        names = ", ".join(weight.name for weight in absent)
        wanted = " ".join([LAVIE, *dict.fromkeys(companions.values())])
        raise MissingWeights(
            f"released weights are not here: {names}. Get them with `lavie weights fetch {wanted}`, "
            f"or put them into a folder that LAVIE_WEIGHTS names; --weights tiny tries the machinery "
            f"without any"
        )
    weights: dict[Stage, Weights] = {}
    for stage in stages:
        checkpoint = files[CHECKPOINT_OF[stage]]
        group = companions[stage]
        weights[stage] = ReleasedWeights(
            stage=stage,
            checkpoint=find(checkpoint),
            companions=find(files[f"{group}/vae/config.json"]).parents[1],
            sha256=checkpoint.sha256,
        )
        weights[stage].check()
    return weights
