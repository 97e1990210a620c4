"""lavie-mini from the first film to a network that samples, on one machine with two cores.

    python examples/mini.py mini        # hours; stop it and run it again whenever you like

What docs/mini.md tells, from top to bottom. Every step finds what an earlier run has finished: the same films
and settings give the same clips, and the same weights but for what another processor rounds differently.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.films import FILMS
from curation.corpus.store import Store
from curation.decode.decoding_pass import DecodeConfig
from curation.decode.scenes import SceneConfig
from curation.export import ExportConfig
from curation.select import Rule, select
from curation.stations.captions import CaptionsConfig
from curation.stations.station import Resources
from curation.weights.catalog import find, missing
from curation.weights.fetch import fetch
from pipelines.commands.autoencoder import TrainAutoencoder
from pipelines.commands.training import Progress
from pipelines.curate import HowToRun, measure
from pipelines.curation_config import CurationConfig
from pipelines.encode import HowToEncode, encode
from pipelines.exporting import export
from pipelines.locking import locked
from pipelines.presets import tiny
from pipelines.train import train_here
from training.autoencoder import AutoencoderConfig
from training.data.encode_config import EncodeConfig
from training.presets import mini
from training.run_config import ModelConfig, Source, TrainConfig

CAPTIONS = Path(__file__).with_name("mini_captions.jsonl")
"""A short and a long sentence for each of 139 stretches of the films, written by looking at them."""
SELECTION = "default"


def curation() -> CurationConfig:
    """Clips from 1.2 s on, where the paper has 2: the network learns from eight frames at eight a second."""
    config = tiny()
    scenes = SceneConfig(min_s=1.2, min_frames=16, max_s=10.0)
    river = replace(
        config.river,
        decode=DecodeConfig(threads=1, scenes=scenes),
        captions=CaptionsConfig(engines=("timed",), timed=str(CAPTIONS)),
    )
    # Titles, credits and shots that come twice have no caption, and so do not come in.
    captioned = Rule(column="caption_words", min=3, source="LaVie, section 4: at least 3 words")
    rules = replace(config.select, rules=(*config.select.rules, captioned))
    # The network sees 64 lines; four times as many are left for super-resolution.
    small = ExportConfig(max_short_side_px=256, crop_borders=True, max_clips_per_shard=32)
    return replace(config, river=river, select=rules, export=small)


def latents(config: TrainConfig) -> EncodeConfig:
    """What a run reads, from four starts of each clip."""
    sample, sizes = config.sample, config.phases[-1].sizes_px
    return EncodeConfig(
        sizes_px=sizes,
        num_frames=sample.num_frames,
        fps=sample.fps,
        pace=sample.pace,
        starts=4,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """All settings of lavie-mini."""

    curation: CurationConfig = field(default_factory=curation)
    """Films to shards."""
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    """Frames to latents and back."""
    base: TrainConfig = field(default_factory=lambda: mini("base"))
    """Sentences to eight frames."""


def fetched_films() -> list[str]:
    """Places of all films, brought from the Python index where they are not here."""
    for film in missing(FILMS.values()):
        fetch(film)
    return [str(find(film)) for film in FILMS.values()]


def main(films: Sequence[str], folder: Path, recipe: Recipe, console: Console) -> Path:
    """Films to a network.

    Args:
        films: files, folders or lists.
        folder: for the corpus, the companions and the runs.
        recipe: settings of every step.
        console: for progress.

    Returns:
        The folder of the runs, which `lavie sample --weights` takes.
    """
    corpus, companions, runs = folder / "corpus", folder / "companions", folder / "runs"

    # Films become clips with sentences: what nobody captioned is measured, but not cut.
    with locked(Store(str(corpus))) as store:
        how = HowToRun(command="examples/mini.py", ray_address="local")
        info, rejects = measure(films, store, recipe.curation.river, console=console, how=how)
        if rejects.failed is not None:
            raise rejects.failed
        select(store, info, SELECTION, recipe.curation.select)
        export(store, info, SELECTION, recipe.curation.export, console=console, how=how)

    # The frozen models: components of patches, a decoder for them, and a sentence encoder for the text.
    if not companions.exists():
        TrainAutoencoder(corpus=str(corpus), out=companions, config=recipe.autoencoder).run()

    # Latents and text states once, so that training decodes no video.
    with locked(store) as store:
        digest, _ = encode(
            store,
            SELECTION,
            latents(recipe.base),
            HowToEncode(companions=companions, resources=Resources()),
            console=console,
        )

    # The network, from noise to the film. A run that is stopped goes on from its newest checkpoint.
    source = Source(corpus=str(corpus), selection=SELECTION, encoded=digest)
    config = replace(
        recipe.base,
        data=replace(recipe.base.data, sources=(source,)),
        model=ModelConfig(
            initial_weights=recipe.base.model.initial_weights, companions=str(companions)
        ),
    )
    progress = Progress(console, config.num_steps)
    train_here(config, str(runs / "base"), on_log=progress, on_begin=progress.begin)
    return runs


if __name__ == "__main__":
    main(fetched_films(), Path(sys.argv[1]).resolve(), Recipe(), Console())
