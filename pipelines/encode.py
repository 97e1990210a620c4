"""Latents and text states of exported shards, a shard a unit.

On the scheduler of `pipelines.run` and not on Ray Data, as in curation (ARCHITECTURE.md): units are
files, so nothing travels through the object store, and the tries of a shard are counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from curation.corpus.store import Store
from curation.errors import LavieError, TrainingDataError, UsageError
from curation.stations.station import Resources
from pipelines.costs import costs_table
from pipelines.progress import ProgressBars
from pipelines.ray_cluster import start_ray
from pipelines.run import Stage, UnitResult, run_stages
from training.data.encode_config import EncodeConfig
from training.data.encoding import ShardEncoder, begin_layer, finish_layer


@dataclass(slots=True)
class EncodeJob:
    """Shard N of an export -> its latents and text states."""

    encoder: ShardEncoder

    def setup(self) -> None:
        """Load the autoencoder and the text encoder.

        On one thread: how many there are would show in the last bits of what is written. A machine
        with more cores runs more workers.
        """
        import torch

        torch.set_num_threads(1)
        self.encoder.setup()

    def run(self, unit: int, plan: str) -> UnitResult:
        """Commit one shard."""
        return UnitResult(counts=self.encoder(plan))

    def close(self) -> None:
        """Nothing to let go of: the process ends with its models."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HowToEncode:
    """What encoding is besides its settings."""

    companions: Path
    """Folder with vae/, text_encoder/ and tokenizer/, on every machine."""
    resources: Resources
    """What one worker takes."""
    allow_stopgap_captions: bool = False
    """Whether captions made of tags are encoded too."""
    ray_address: str = "local"
    """'local' for a private Ray, 'auto' or an address for a cluster."""


def encode(
    store: Store, selection: str, config: EncodeConfig, how: HowToEncode, *, console: Console
) -> tuple[str, dict[str, Any]]:
    """Encode what is not encoded yet; returns the layer's digest and manifest.

    Args:
        store: the corpus.
        selection: whose shards are encoded.
        config: what of each clip.
        how: with which models, on what.
        console: for progress.

    Raises:
        UsageError: if a companion is not there, or the shards hold stop-gap captions and those are
            not allowed.
        LavieError: if the shards are not finished, or a size does not suit the autoencoder.
    """
    try:
        digest, shards = begin_layer(
            store,
            selection,
            config,
            how.companions,
            allow_stopgap_captions=how.allow_stopgap_captions,
        )
    except FileNotFoundError as error:
        raise UsageError(
            f"--companions: {error}; it wants a folder with vae/, text_encoder/ and tokenizer/ "
            "(`lavie weights fetch stable-diffusion-1.4`, or x4-upscaler for super-resolution)"
        ) from error
    except TrainingDataError as error:
        raise UsageError(f"--selection: {error}") from error
    except ValueError as error:
        raise LavieError(str(error)) from error
    encoder = ShardEncoder(store, selection, config, digest, how.companions)
    there = set(store.files(encoder.folder, recursive=True))
    stage = Stage(
        name="encode",
        job=EncodeJob(encoder),
        resources=how.resources,
        units=range(len(shards)),
        done=frozenset(
            unit
            for unit, shard in enumerate(shards)
            if f"{encoder.folder}/{shard}.index.parquet" in there
        ),
        plans=shards,
    )
    if len(stage.done) < len(shards):
        start_ray(how.ray_address)
        with ProgressBars(console, unit="shards") as bars:
            costs = run_stages([stage], bars)
        console.print(costs_table(costs))
    return digest, finish_layer(store, selection, digest, shards)
