"""The sources of a run: opened, counted, and refused with a reason where they cannot feed it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curation.corpus import layout
from curation.corpus.shards import STOPGAP_ENGINE, UNKNOWN_ENGINE, read_manifest
from curation.corpus.store import Store
from curation.errors import TrainingDataError
from training.data.catalog import Catalog, Pool, PoolCounts, open_catalog, pool_key
from training.data.curriculum import PhasePlan, is_encoded
from training.data.filtering import (
    NO_CAPTION,
    OTHER_RATE,
    ClipRequirements,
    IndexReader,
    Kind,
)
from training.data.latents import EncodedLayer, EncodedReader, open_layer
from training.data.pace import LEAST_SHARE, Pace
from training.data.samples import Reader, ShardReader
from training.run_config import Phase, SampleConfig, Source, TrainConfig

NO_FULL_BATCH = "no full batch of their size"

Sizes = tuple[tuple[int, int], ...]
Catalogs = dict[Sizes, list[Catalog]]
"""Sizes of a phase -> a catalog for each source."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSummary:
    """What one phase draws from one pool."""

    phase: str
    """Name of the phase."""
    pool: str
    """Source, kind and size."""
    kind: Kind
    """Clips, or images that stand for clips."""
    size_px: tuple[int, int]
    """H and W."""
    clips: int
    """That are trained on."""
    hours: float
    """Length of them; 0 for images."""
    batches: int
    """Full batches in an epoch; 0 means that the pool is not used."""
    held_out: int
    """Clips that are never trained on."""
    dropped: dict[str, int]
    """Clips that cannot be used, by reason."""
    rates: dict[str, float]
    """Frames that a sample takes of a second of film -> share of the clips that are trained on."""


@dataclass(frozen=True, slots=True)
class OpenSource:
    """One source, its shards finished."""

    source: Source
    store: Store
    digests: dict[str, str]
    """Digests of what it consists of, by name."""
    layer: EncodedLayer | None = None
    """Where it was encoded before: its latents and text states."""

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.store.root}, selection {self.source.selection!r}"


def check_reading(config: TrainConfig) -> None:
    """Raise for settings that no data could satisfy."""
    if not config.data.sources:
        raise TrainingDataError("the run has no data: give a corpus (--corpus) or data.sources")
    if is_encoded(config) and not all(source.encoded for source in config.data.sources):
        raise TrainingDataError(
            "either all sources are read encoded or none: a batch cannot hold both pixels and latents"
        )


def open_sources(config: TrainConfig) -> list[OpenSource]:
    """All sources, with their digests.

    Raises:
        CorpusError: if one has no finished shards.
        TrainingDataError: if one holds stop-gap captions and the run does not allow them.
    """
    opened = []
    for number, source in enumerate(config.data.sources):
        store = Store(source.corpus)
        manifest = read_manifest(store, source.selection)
        if not config.data.allow_stopgap_captions:
            check_captions(manifest, store.root)
        digests = {f"corpus/{number}/manifest": str(manifest["contents"])}
        layer = None
        if source.encoded is not None:
            layer = open_layer(store, source.selection, source.encoded)
            layer.check(config, shards=manifest)
            digests[f"corpus/{number}/encoded"] = layer.manifest_digest
        opened.append(OpenSource(source, store, digests, layer))
    return opened


def check_captions(manifest: Mapping[str, Any], corpus: str) -> None:
    """Raise for shards with captions that nobody wrote: a network would learn to answer to lists of nouns.

    Args:
        manifest: of a selection's shards.
        corpus: its place, for the message.

    Raises:
        TrainingDataError: says how many clips they are, of which selection, and the ways out.
    """
    name = f"{corpus}, selection {manifest['selection']!r}"
    engines = manifest.get("caption_engines", {UNKNOWN_ENGINE: manifest["num_clips"]})
    stopgap, unknown = engines.get(STOPGAP_ENGINE, 0), engines.get(UNKNOWN_ENGINE, 0)
    out = (
        f"caption them (docs/captions.md), or leave them out (`lavie select --rule "
        f"'caption_engine!={STOPGAP_ENGINE}'`) and export, or use them all the same with "
        f"--allow-stopgap-captions"
    )
    if stopgap:
        raise TrainingDataError(
            f"{stopgap:,} of the {sum(engines.values()):,} captioned clips of {name} have a stop-gap "
            f"caption made of tags (caption_engine {STOPGAP_ENGINE!r}): {out}"
        )
    if unknown:
        raise TrainingDataError(
            f"the shards of {name} were cut by an earlier program and do not say who wrote the captions "
            f"of {unknown:,} clips, so stop-gap ones of tags may be among them: select under another "
            f"name and export anew, or use them all the same with --allow-stopgap-captions"
        )


def clip_kinds(config: TrainConfig) -> tuple[Kind, ...]:
    """Kinds of media that stand for clips."""
    return ("video", "image") if config.sample.image_clips else ("video",)


def image_kind(config: TrainConfig) -> Kind:
    """Kind of media that images come from."""
    return "image" if config.sample.images_from == "shards" else "video"


def read_kinds(config: TrainConfig) -> tuple[Kind, ...]:
    """Kinds of media that the run reads."""
    images = (image_kind(config),) if config.sample.images_per_video else ()
    return tuple(dict.fromkeys((*clip_kinds(config), *images)))


def open_catalogs(config: TrainConfig, sources: Sequence[OpenSource], cache: Path) -> Catalogs:
    """A catalog for each source and set of sizes, made where it is not in the cache."""
    found: Catalogs = {}
    for sizes in dict.fromkeys(phase.sizes_px for phase in config.phases):
        requirements = ClipRequirements(
            sizes_px=sizes,
            pace=Pace.of(config.sample),
            fit=config.sample.fit,
            kinds=read_kinds(config),
            holdout_share=config.data.holdout_share,
            holdout_by=config.data.holdout_by,
            seed=config.seed,
        )
        found[sizes] = [
            open_catalog(_index(source, number, requirements), source=number, cache=cache)
            for number, source in enumerate(sources)
        ]
    return found


def _index(source: OpenSource, number: int, requirements: ClipRequirements) -> IndexReader:
    if source.layer is not None:
        return source.layer.index(requirements)
    digest = source.digests[f"corpus/{number}/manifest"]
    name = layout.shard_index(source.source.selection)
    return IndexReader(source.store, name, digest, requirements)


def open_readers(config: TrainConfig, sources: Sequence[OpenSource]) -> list[Reader]:
    """A reader for each source."""
    return [
        ShardReader(source.store, source.source.selection, config.sample)
        if source.layer is None
        else EncodedReader(source.layer, config.sample)
        for source in sources
    ]


def check_catalogs(config: TrainConfig, catalogs: Catalogs) -> None:
    """Raise where a source cannot feed the run, or too much of it would be left out.

    Raises:
        TrainingDataError: names what is wrong, how much of it there is, and what to change.
    """
    for phase in config.phases:
        for number, (source, catalog) in enumerate(
            zip(config.data.sources, catalogs[phase.sizes_px], strict=True)
        ):
            if phase.source_weights and not phase.source_weights[number]:
                continue
            name = f"{source.corpus}, selection {source.selection!r}"
            _check_kinds(config, catalog, name)
            _check_dropped(config, phase, catalog, name)


def _check_kinds(config: TrainConfig, catalog: Catalog, name: str) -> None:
    counts = catalog.counts
    total = sum(own.total for own in counts.values())
    if not total:
        raise TrainingDataError(
            f"{name} holds no {' or '.join(read_kinds(config))}: select other clips "
            "(`lavie select`, `lavie export`)"
        )
    dropped = sum((own.dropped for own in counts.values()), Counter[str]())
    if dropped[NO_CAPTION] == total:
        raise TrainingDataError(
            f"none of the {total:,} clips of {name} has a caption: run `lavie curate` with "
            "captions (docs/captions.md), then select and export again"
        )
    clips = [own for (kind, _), own in counts.items() if kind in clip_kinds(config)]
    if not any(own.clips["train"] for own in clips) and any(own.clips["held_out"] for own in clips):
        raise TrainingDataError(
            f"all {sum(own.clips['held_out'] for own in clips):,} usable clips of {name} come from "
            "films that are held out, so none is left to train on: hold out single clips "
            "(holdout_by 'clip'), or none (holdout_share 0)"
        )
    is_wanted = config.data.holdout_by == "split" and config.data.holdout_share > 0
    if is_wanted and not any(own.clips["held_out"] for own in clips):
        raise TrainingDataError(
            f"no usable clip of {name} is in the split 'val', so there would be no held-out loss: select "
            "with a larger --splits.val-share under another name and export, hold out by another rule "
            "(holdout_by 'source' or 'clip'), or do without (holdout_share 0)"
        )


def _check_dropped(config: TrainConfig, phase: Phase, catalog: Catalog, name: str) -> None:
    total = sum(own.total for own in catalog.counts.values())
    reasons = sum((_dropped(config, *each) for each in catalog.counts.items()), Counter[str]())
    allowed = config.data.max_dropped_share
    if reasons.total() > allowed * total:
        listed = ", ".join(f"{reason} {number:,}" for reason, number in reasons.most_common())
        raise TrainingDataError(
            f"phase {phase.name!r} cannot use {reasons.total():,} of the {total:,} clips of {name}: "
            f"{listed}. Allowed is a share of {allowed:g} (max_dropped_share). "
            f"{_advice(config, reasons)}"
        )


def _dropped(
    config: TrainConfig, pool: tuple[Kind, tuple[int, int]], counts: PoolCounts
) -> Counter[str]:
    """What cannot be used of one pool, clips without a full batch included."""
    dropped = Counter(counts.dropped)
    trained = counts.clips["train"]
    if pool[0] in clip_kinds(config) and 0 < trained < config.data.batch_size:
        dropped[NO_FULL_BATCH] = trained
    return dropped


def _advice(config: TrainConfig, reasons: Counter[str]) -> str:
    sample, least_s = config.sample, Pace.of(config.sample).longest_s
    known = {
        NO_CAPTION: "caption the corpus (docs/captions.md) or select with a caption rule",
        "too short": f"select clips of at least {least_s:.2f} s (--rule "
        f"'duration_s>={least_s + 0.25:.2f}'), or take fewer frames or more a second",
        OTHER_RATE: _other_rate(sample),
        "too small": "take smaller sizes_px, or select larger clips",
        NO_FULL_BATCH: f"take fewer sizes_px or a smaller batch_size than {config.data.batch_size}",
    }
    chosen = [known[reason] for reason, _ in reasons.most_common() if reason in known]
    if not chosen:
        return "To go on all the same, take a larger max_dropped_share."
    return f"To mend it: {'; '.join(chosen)}; or allow it with a larger max_dropped_share."


def _other_rate(sample: SampleConfig) -> str:
    if sample.pace == "nearest":
        return f"select clips of at least {LEAST_SHARE * sample.fps:g} frames a second"
    return (
        f"select clips whose rate is a multiple of {sample.fps:g}, nearly, or take a larger "
        "sample.rate_tolerance, or sample.pace 'nearest', whose steps differ by a frame"
    )


def phase_plans(config: TrainConfig, catalogs: Catalogs) -> list[PhasePlan]:
    """The plan of each phase.

    Raises:
        TrainingDataError: if a phase has nothing to draw from.
    """
    plans = []
    for number, phase in enumerate(config.phases):
        chosen = [
            catalog
            for place, catalog in enumerate(catalogs[phase.sizes_px])
            if not phase.source_weights or phase.source_weights[place] > 0
        ]
        pools = [
            pool
            for catalog in chosen
            for kind in clip_kinds(config)
            for pool in catalog.pools("train", kind)
            if pool.num_rows >= config.data.batch_size
        ]
        _check_pools(config, phase, chosen, pools)
        images = _image_pools(config, phase, chosen, pools)
        plans.append(PhasePlan(number, phase, pools, images, config))
    return plans


def _image_pools(
    config: TrainConfig, phase: Phase, chosen: Sequence[Catalog], pools: Sequence[Pool]
) -> list[Pool]:
    """Where a phase takes images from; empty where it takes none."""
    if not config.sample.images_per_video:
        return []
    images = [pool for catalog in chosen for pool in catalog.pools("train", image_kind(config))]
    if not images:
        raise TrainingDataError(
            f"phase {phase.name!r} wants images from shards, and its sources have none: list "
            "pictures among the sources of the corpus, or take images_from 'frames'"
        )
    lacking = {pool.size_px for pool in pools} - {pool.size_px for pool in images}
    if is_encoded(config) and lacking:
        sizes = ", ".join(f"{height}x{width}" for height, width in sorted(lacking))
        raise TrainingDataError(
            f"phase {phase.name!r} wants images of {sizes}, and none was encoded at that size: take "
            "images_from 'frames', or train on pixels"
        )
    return images


def _check_pools(
    config: TrainConfig, phase: Phase, chosen: Sequence[Catalog], pools: Sequence[Pool]
) -> None:
    for catalog in chosen:
        if any(pool.source == catalog.source for pool in pools):
            continue
        source = config.data.sources[catalog.source]
        counts = ", ".join(
            f"{pool_key(*pool)} {own.clips['train']:,}" for pool, own in catalog.counts.items()
        )
        raise TrainingDataError(
            f"{source.corpus}, selection {source.selection!r} has no full batch of "
            f"{config.data.batch_size} clips for phase {phase.name!r} (clips to train on: {counts}): "
            "take a smaller batch_size, fewer sizes_px, or select more clips"
        )


def summarise(config: TrainConfig, catalogs: Catalogs) -> list[PoolSummary]:
    """What each phase draws from each pool, and what it leaves out."""
    return [
        PoolSummary(
            phase=phase.name,
            pool=f"{catalog.source}-{pool_key(*pool)}",
            kind=pool[0],
            size_px=pool[1],
            clips=counts.clips["train"],
            hours=counts.seconds["train"] / 3600,
            batches=counts.clips["train"] // config.data.batch_size
            if pool[0] in clip_kinds(config)
            else 0,
            held_out=counts.clips["held_out"],
            dropped=dict(_dropped(config, pool, counts)),
            rates={
                rate: number / counts.rates.total() for rate, number in counts.rates.most_common()
            },
        )
        for phase in config.phases
        for catalog in catalogs[phase.sizes_px]
        for pool, counts in catalog.counts.items()
        if counts.total
    ]
