"""train: a stage of the cascade from curated shards."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional, UseAppendAction, arg

from curation.corpus import layout
from curation.errors import CorpusError, LavieError, TornPart, UsageError, typed
from curation.weights.catalog import cache_dir
from pipelines.locking import command_line
from pipelines.places import check_out_folder, store_at
from pipelines.ray_config import RayConfig
from training.models.released import CHECKPOINT_OF, COMPANIONS_OF
from training.presets import PresetName
from training.run_config import ModelConfig, Source, TrainConfig

if TYPE_CHECKING:
    from training.data.sources import PoolSummary
    from training.trainer import Trainer

StageName = Literal["base", "interpolation", "super-resolution"]
EXIT_STOPPED = 75  # EX_TEMPFAIL: the same command goes on


@dataclass(frozen=True, slots=True, kw_only=True)
class Train:
    """Train a stage of the cascade on exported shards.

    Run the same command again after an interruption: it goes on from the newest checkpoint, with
    the same bits as if it had not stopped. Under torchrun:
    ``torchrun --nproc-per-node 8 -m pipelines train base ...``.
    """

    network: Positional[StageName]
    """Network of the cascade to train."""
    corpus: UseAppendAction[tuple[str, ...]] = ()
    """Folder or prefix of a corpus that `lavie export` has packed."""
    selection: UseAppendAction[tuple[str, ...]] = ()
    """Name of the selection, one for each --corpus; "default" where left out."""
    encoded: UseAppendAction[tuple[str, ...]] = ()
    """Digest that `lavie encode` printed, one for each --corpus; pixels are read where left out."""
    out: str
    """Folder or object-store prefix of the run: checkpoints, curves, trained weights."""
    preset: PresetName = "paper"
    """Where the defaults of all other flags come from; "tiny" trains on two processor cores."""
    steps: int | None = None
    """Optimizer steps of the last phase, at least 1; None leaves them to preset or file."""
    config_file: Path | None = None
    """config.json of an earlier run, or one like it: stands for all flags below but --steps."""
    replay: int | None = None
    """Do not train: run the batch of this step alone, with the newest weights before it, and show it."""
    overwrite: bool = False
    """Train into --out although it holds files that are not of a run; a run there is gone on with."""
    ray: bool = False
    """Train in workers of Ray Train, laid out by --cluster."""
    cluster: RayConfig = field(default_factory=RayConfig)
    """How the workers of --ray are laid on a cluster."""
    config: Annotated[TrainConfig, arg(name="")]
    """Settings of the run."""

    def run(self) -> int:
        """Train; 75 where the run was asked to leave before its end."""
        console = Console()
        config = self.effective()
        self._check_places(config)
        if self.replay is not None:
            from pipelines.replay import replay

            replay(config, self.out, self.replay, console)
            return 0
        from pipelines.train import train_here, train_on_ray

        progress = Progress(console, config.num_steps)
        if self.ray:
            outcome = train_on_ray(config, self.out, self.cluster)
        else:
            outcome = train_here(config, self.out, on_log=progress, on_begin=progress.begin)
        if outcome.stopped:
            if _is_first():
                console.print(
                    f"saved and stopped after step {outcome.step}; go on with: {command_line()}",
                    highlight=False,
                    soft_wrap=True,
                )
            return EXIT_STOPPED
        if _is_first():
            console.print(f"{outcome.step} steps; the trained model: {self.out}", highlight=False)
            if outcome.held_out:
                console.print(held_out_table(outcome.held_out))
        return 0

    def effective(self) -> TrainConfig:
        """The run's configuration, with what stands outside of it on the command line.

        Raises:
            UsageError: for arguments that do not fit together.
        """
        from training.stages import check_stage

        config = self.config if self.config_file is None else read_config(self.config_file)
        if config.stage != self.network.replace("-", "_"):
            raise UsageError(
                f"--config-file {self.config_file} is of stage {config.stage}, got {self.network}"
            )
        if self.corpus:
            with typed("--corpus"):
                config = replace(config, data=replace(config.data, sources=self._sources()))
        if not config.data.sources:
            raise UsageError("no corpus to train on; name one with --corpus")
        if self.steps is not None:
            with typed("--steps"):
                last = replace(config.phases[-1], steps=self.steps)
            config = replace(config, phases=(*config.phases[:-1], last))
        with typed(f"train {self.network}"):
            check_stage(config)  # refuses settings that do not fit the stage
        if not config.model.initial_weights:
            config = replace(config, model=released_initial_weights(config))
        return config

    def _check_places(self, config: TrainConfig) -> None:
        """Refuse corpora without shards and a folder that is not a run's, before torch does any work."""
        from training.checkpoint import FOLDER as CHECKPOINTS
        from training.data.sources import open_sources

        for source in config.data.sources:
            store_at(source.corpus, "--corpus")
            with typed("--selection"):
                layout.check_selection_name(source.selection)
        try:
            open_sources(config)
        except TornPart:
            raise
        except CorpusError as error:
            raise UsageError(f"--corpus: {error}") from error
        ranks, data = self.cluster.num_workers if self.ray else 1, config.data
        if data.batch_size % (ranks * data.micro_batch_size):
            raise UsageError(
                f"--cluster.num-workers: --data.batch-size must be a multiple of ranks times "
                f"--data.micro-batch-size, got {data.batch_size} for {ranks} ranks of "
                f"{data.micro_batch_size}"
            )
        run = store_at(self.out, "--out")
        if self.replay is None:
            ours = ("config.json", CHECKPOINTS, "catalog", "log.jsonl")
            check_out_folder(run, "--out", ours=ours, overwrite=self.overwrite)
            return
        if not run.exists("config.json"):
            raise UsageError(f"--replay: {run.root} holds no run to replay a step of; train first")

    def _sources(self) -> tuple[Source, ...]:
        for name in ("selection", "encoded"):
            given = getattr(self, name)
            if len(given) > len(self.corpus):
                raise UsageError(
                    f"--{name} is given {len(given)} times for {len(self.corpus)} --corpus"
                )
        selections = (*self.selection, *["default"] * len(self.corpus))
        encoded = (*self.encoded, *[None] * len(self.corpus))
        return tuple(
            Source(corpus=corpus, selection=selections[at], encoded=encoded[at])
            for at, corpus in enumerate(self.corpus)
        )


def released_initial_weights(config: TrainConfig) -> ModelConfig:
    """What the paper's preset starts from, in the folder of fetched weights.

    Base grows from Stable Diffusion 1.4, super-resolution from the x4 upscaler, interpolation from
    the released base network (the paper: from the base network).
    """
    companions = COMPANIONS_OF[config.stage]
    start = CHECKPOINT_OF["base"] if config.stage == "interpolation" else companions
    path = cache_dir() / start
    if not path.exists():
        group = "lavie" if config.stage == "interpolation" else companions
        raise LavieError(
            f"{config.stage} starts from {path}, which is not there; `lavie weights fetch {group}` "
            f"brings it, --model.initial-weights names another"
        )
    return replace(
        config.model, initial_weights=str(path), companions=str(cache_dir() / companions)
    )


def read_config(path: Path) -> TrainConfig:
    """A configuration from JSON.

    Raises:
        UsageError: for a file that is none; the message names the fields.
    """
    try:
        text = path.read_bytes()
        config = TypeAdapter(TrainConfig).validate_json(text)
    except FileNotFoundError as error:
        raise UsageError(f"--config-file: no configuration at {path}") from error
    except OSError as error:
        raise UsageError(f"--config-file: {path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()
        )
        raise UsageError(
            f"--config-file: {path} is not a training configuration: {faults}"
        ) from error
    unknown = unknown_settings(json.loads(text), asdict(config))
    if unknown:
        raise UsageError(
            f"--config-file: {path} has settings that this version does not know: "
            f"{', '.join(unknown)}"
        )
    return config


def unknown_settings(given: Any, known: Any, name: str = "") -> list[str]:
    """Names in a configuration file that are of no setting.

    >>> unknown_settings({"model": {"start": "tiny"}}, {"model": {"initial_weights": ""}})
    ['model.start']
    """
    if isinstance(given, dict) and isinstance(known, dict):
        wrong = [f"{name}{key}" for key in given if key not in known]
        both = [key for key in given if key in known]
        return wrong + [
            line
            for key in both
            for line in unknown_settings(given[key], known[key], f"{name}{key}.")
        ]
    if isinstance(given, list) and isinstance(known, list | tuple):
        return [
            line
            for number, (one, other) in enumerate(zip(given, known, strict=False))
            for line in unknown_settings(one, other, f"{name}{number}.")
        ]
    return []


def held_out_table(losses: Mapping[str, float]) -> Table:
    """Last held-out losses, raw and averaged weights beside the best guess without a network."""
    table = Table(title="held-out loss")
    for header in ("of", "raw weights", "averaged", "no network"):
        table.add_column(header, justify="left" if header == "of" else "right")
    names = sorted({name.split("/", 2)[2] for name in losses})
    for name in names:
        kinds = ("raw", "average", "uninformed")
        cells = [losses[f"held_out/{kind}/{name}"] for kind in kinds]
        table.add_row(name, *(f"{cell:.5f}" for cell in cells))
    return table


def pools_table(pools: Sequence[PoolSummary]) -> Table:
    """What each phase draws from: clips, hours, batches an epoch, held out, left out by reason."""
    table = Table(title="clips to train on")
    for header in ("phase", "pool", "clips", "hours", "batches", "held out", "left out"):
        table.add_column(header, justify="left" if header in ("phase", "pool") else "right")
    for pool in pools:
        left_out = ", ".join(f"{count} {reason}" for reason, count in pool.dropped.items())
        counts = (f"{pool.clips:,}", f"{pool.hours:.2f}", f"{pool.batches:,}", f"{pool.held_out:,}")
        table.add_row(pool.phase, pool.pool, *counts, left_out)
    return table


def rate_lines(pools: Sequence[PoolSummary]) -> list[str]:
    """How fast the samples of each pool of clips run, a line a pool."""
    return [
        f"{name}: {', '.join(f'{share:.0%} at {rate}' for rate, share in rates.items())} frames a second"
        for name, rates in {pool.pool: pool.rates for pool in pools}.items()
        if rates
    ]


class Progress:
    """A line for every log interval: step, losses, speed, time left.

    Args:
        console: where to write.
        num_steps: of the run.
    """

    def __init__(self, console: Console, num_steps: int) -> None:
        self._console = console
        self._num_steps = num_steps
        self._last: tuple[int, float] | None = None

    def begin(self, trainer: Trainer) -> None:
        """Say what the run is fed with, and what it leaves out and why."""
        pools = trainer.data.summary()
        self._console.print(pools_table(pools))
        for line in rate_lines(pools):
            self._console.print(line, highlight=False, soft_wrap=True)
        if trainer.step:
            self._console.print(f"going on after step {trainer.step}", highlight=False)

    def __call__(self, step: int, values: Mapping[str, float]) -> None:
        """Some curves have a new point."""
        import time

        if "held_out/average/video" in values:
            kinds = ("raw", "average", "uninformed")
            raw, averaged, guess = (values[f"held_out/{kind}/video"] for kind in kinds)
            self._print(
                step,
                f"held-out loss {raw:.5f}, of averaged weights {averaged:.5f}, without a network {guess:.5f}",
            )
        if "loss" not in values:
            return
        now = time.monotonic()
        left = ""
        if self._last is not None and step > self._last[0]:
            per_step_s = (now - self._last[1]) / (step - self._last[0])
            left = f", {_duration(per_step_s * (self._num_steps - step))} left"
        self._last = (step, now)
        self._print(
            step,
            f"loss {values['loss']:.5f}, gradient {values['gradient_norm']:.3f}, "
            f"{values['speed/samples_per_s']:.2f} samples/s, "
            f"waiting for data {values['speed/data_wait_share']:.0%}{left}",
        )

    def _print(self, step: int, text: str) -> None:
        width = len(str(self._num_steps))
        self._console.print(
            f"step {step:>{width}} of {self._num_steps}: {text}", highlight=False, soft_wrap=True
        )


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"


def _is_first() -> bool:
    return os.environ.get("RANK", "0") == "0"
