"""Which clip goes into which shard."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curation.corpus import layout
from curation.corpus.clip_ids import ClipIds, id_keys
from curation.corpus.generations import (
    Plan,
    check_finished,
    check_grows,
    close_plan,
    committed_names,
    exported_ids,
    failed_in_passing,
    finished_generations,
    read_plans,
    replaced_names,
    rules_of,
    write_plan,
)
from curation.corpus.manifest import CorpusInfo
from curation.corpus.parts import read_columns
from curation.corpus.selection import read_rules, read_verdicts, selected_parts
from curation.corpus.settings import settings_from
from curation.corpus.shards import FORMAT_VERSION
from curation.corpus.store import Store
from curation.errors import CorpusError
from curation.export.clips import ExportConfig
from curation.select import Buckets, SelectConfig
from curation.stations.station import settings_digest

VERSION = 1
"""Raised by one whenever the same settings would give other shards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardPlan:
    """The clips of one shard."""

    bucket: str
    """Folder under the selection's shards."""
    number: int
    """Position in the bucket, from 0."""
    export: str
    """Digest of all that the shard's generation is made from."""
    generation: int
    """Number of it."""
    clips: pa.Table
    """`part` and `row` (of the part's scenes layer), int32, both rising."""
    as_cut: tuple[Mapping[str, Any], ...] = ()
    """Of each clip that was cut or tried before, columns of its row whose values are of that time; empty
    where all clips are new."""

    @property
    def name(self) -> str:
        """Path of the shard under the selection's shards, without extension."""
        return layout.shard(self.bucket, self.number)


@dataclass(frozen=True, slots=True)
class _Kept:
    """Kept clips of all parts as columns, in the order of part and row."""

    part: NDArray[np.int32]
    row: NDArray[np.int32]
    bucket: NDArray[np.int32]
    length_us: NDArray[np.int64]
    buckets: list[str]
    keys: NDArray[np.uint64]
    digest: str


def plan_shards(
    store: Store,
    info: CorpusInfo,
    selection: str,
    config: ExportConfig,
    *,
    retry_failed: bool = False,
) -> Iterator[ShardPlan]:
    """Deal the kept clips that no shard holds yet into shards: the next generation.

    Bucket by bucket, each in the order of part and row: that order keeps the clips of one source
    together, so that it is fetched once a shard. What the shards are made from is written to the
    generation's plan before the first is yielded. A generation that was begun and not finished is
    yielded again, shards that are done included, as long as the verdicts are the same.

    Args:
        store: the corpus.
        info: contents of corpus.json.
        selection: name of a finished selection.
        config: how to cut and how much goes into a shard.
        retry_failed: deal also clips that earlier generations could not cut for reasons that may pass;
            a generation that was begun is gone on with as it was.

    Raises:
        CorpusError: if there is no such selection, or there are shards of this name that were made
            with other settings, rules or layers.
    """
    rules = rules_of(read_rules(store, selection))
    made = {"name": "shards", "version": VERSION, "settings": asdict(config)}
    grown = settings_from(SelectConfig, rules["config"])
    kept = _read_kept(store, info, selection, grown.buckets if config.crop_borders else None)
    plans = read_plans(store, selection)
    begun = _begun(store, selection, plans, kept.digest)
    check_grows(
        store,
        selection,
        rules=None if begun else grown,
        layers=info.layers,
        export=config,
    )
    generation = begun["generation"] if begun else _next_generation(store, selection, plans)
    new = _new(store, selection, kept, generation)
    retry_failed = "retries" in begun if begun else retry_failed
    tried = _tried(store, selection, kept, generation) if retry_failed else {}
    new = np.union1d(new, np.fromiter(tried, np.int64))
    first = _first_numbers(store, selection, begun)
    deal = list(_deal(kept, new, config, first))
    if not deal:
        return
    plan: Plan = {
        "format_version": FORMAT_VERSION,
        "generation": generation,
        "export": settings_digest(made, [*info.layers.values(), kept.digest, *_after(generation)]),
        "made_by": made,
        "selection": selection,
        "selection_sha256": kept.digest,
        "rules": rules,
        "layers": dict(info.layers),
        "num_selected": len(new),
        "buckets": _counts(deal),
        **({"retries": True} if tried else {}),
    }
    _record(store, plan, begun)
    for bucket, number, members in deal:
        yield ShardPlan(
            bucket=bucket,
            number=number,
            export=plan["export"],
            generation=generation,
            clips=pa.table({"part": kept.part[members], "row": kept.row[members]}),
            as_cut=tuple({"tried_before": tried.get(place)} for place in members.tolist())
            if tried
            else (),
        )


def _after(generation: int) -> list[str]:
    """What the digest of a later generation is of besides: two may come from the same verdicts."""
    return [] if generation == 1 else [f"generation {generation}"]


def _begun(store: Store, selection: str, plans: list[Plan], verdicts: str) -> Plan | None:
    """The plan of the generation that these verdicts began and that was not finished.

    One of which nothing was made is no beginning: it is planned anew, maybe under other settings.
    """
    if (
        not committed_names(store, selection)
        or not plans
        or plans[-1]["generation"] in finished_generations(store, selection)
    ):
        return None
    is_over = "closed_early" in plans[-1] or "replaces" in plans[-1]
    is_same = plans[-1]["selection_sha256"] == verdicts and not is_over
    return plans[-1] if is_same else None


def _next_generation(store: Store, selection: str, plans: list[Plan]) -> int:
    """The number of a new generation; one that was not finished is closed first."""
    check_finished(store, selection)
    finished = finished_generations(store, selection)
    for plan in plans[-1:]:
        if plan["generation"] not in finished and "closed_early" not in plan:
            close_plan(store, plan)
    return max((plan["generation"] for plan in read_plans(store, selection)), default=0) + 1


def _new(store: Store, selection: str, kept: _Kept, generation: int) -> NDArray[np.int64]:
    """Places of the kept clips that no earlier generation exported, or failed to."""
    if generation == 1:
        return np.arange(len(kept.part))
    held = exported_ids(store, selection, before=generation, failed=True)
    exported = ClipIds(np.concatenate([np.empty(0, np.uint64), *map(id_keys, held)]))
    return np.flatnonzero(exported.take(kept.keys) < 0)


def _tried(store: Store, selection: str, kept: _Kept, generation: int) -> dict[int, int]:
    """Places of the kept clips that failed for reasons that may pass -> how often they were tried."""
    failed = failed_in_passing(store, selection, before=generation)
    pairs = [(clip_id, number) for clip_id, numbers in failed.items() for number in numbers]
    at = ClipIds(id_keys(pa.array([clip_id for clip_id, _ in pairs], pa.string()))).take(kept.keys)
    return {int(place): pairs[at[place]][1] for place in np.flatnonzero(at >= 0)}


def _first_numbers(store: Store, selection: str, begun: Plan | None) -> dict[str, int]:
    """Bucket -> the number of its first new shard; 0 where the bucket is not named."""
    if begun is not None:
        return {name: counts.get("first_shard", 0) for name, counts in begun["buckets"].items()}
    taken = {*committed_names(store, selection), *replaced_names(read_plans(store, selection))}
    return {bucket: number + 1 for bucket, number in sorted(taken)}


def _deal(
    kept: _Kept, new: NDArray[np.int64], config: ExportConfig, first: Mapping[str, int]
) -> Iterator[tuple[str, int, NDArray[np.int64]]]:
    """Bucket, number and clips (places among the kept ones) of each shard."""
    order = new[np.argsort(kept.bucket[new], kind="stable")]
    bounds = np.searchsorted(kept.bucket[order], np.arange(len(kept.buckets) + 1))
    for code, bucket in enumerate(kept.buckets):
        members = order[bounds[code] : bounds[code + 1]]
        for number, (begin, end) in enumerate(pieces(kept.length_us[members], config)):
            yield bucket, first.get(bucket, 0) + number, members[begin:end]


def _counts(deal: list[tuple[str, int, NDArray[np.int64]]]) -> dict[str, dict[str, int]]:
    """Bucket -> its first shard of this generation, and how many shards and clips it gets."""
    counts: dict[str, dict[str, int]] = {}
    for bucket, number, members in deal:
        own = counts.setdefault(bucket, {"first_shard": number, "num_shards": 0, "num_clips": 0})
        own["num_shards"] += 1
        own["num_clips"] += len(members)
    return counts


def _record(store: Store, plan: Plan, begun: Plan | None) -> None:
    """Write the plan; check before that the one that was begun deals the same clips."""
    if begun is not None:
        known = {name: counts["num_clips"] for name, counts in begun["buckets"].items()}
        now = {name: counts["num_clips"] for name, counts in plan["buckets"].items()}
        if (begun["export"], known) != (plan["export"], now):
            raise CorpusError(
                f"{store.root}/{layout.shard_plan(plan['selection'], plan['generation'])} was made "
                f"from other settings, layers or verdicts: delete "
                f"{layout.shards(plan['selection'])}, or select under another name"
            )
    if begun != plan:
        write_plan(store, plan)


def _read_kept(store: Store, info: CorpusInfo, selection: str, cropped: Buckets | None) -> _Kept:
    """Kept clips; 28 bytes each, so that 25 million fit on a laptop.

    Args:
        store: the corpus.
        info: its contents.
        selection: name of it.
        cropped: into which clips go by what lies inside their bars; None for the verdicts' own buckets.
    """
    columns: dict[str, list[NDArray[Any]]] = {"part": [], "row": [], "bucket": [], "length_us": []}
    codes: dict[str, int] = {}
    keys = [np.empty(0, np.uint64)]
    digest = hashlib.sha256()
    for part in selected_parts(store, info, selection):
        clips = read_columns(store, info.layers, part, ["clip_id", "duration_s"])
        ids = clips["clip_id"]
        verdicts = read_verdicts(store, selection, part, ["keep", "bucket"], clip_ids=ids)
        digest.update(store.read(f"{layout.selection(selection)}/{layout.part_file(part)}"))
        row = np.flatnonzero(verdicts["keep"].to_numpy(zero_copy_only=False)).astype(np.int32)
        of_clip = pc.take(verdicts["bucket"], pa.array(row))
        if cropped is not None:
            of_clip = _cropped_buckets(store, info, part, row, cropped)
        names = pc.dictionary_encode(of_clip).combine_chunks()
        own = [codes.setdefault(name, len(codes)) for name in names.dictionary.to_pylist()]
        columns["part"].append(np.full(len(row), part, np.int32))
        columns["row"].append(row)
        keys.append(id_keys(ids.take(pa.array(row))))
        columns["bucket"].append(np.array(own, np.int32)[names.indices.to_numpy()])
        seconds = clips["duration_s"].to_numpy()[row].astype(np.float64)
        columns["length_us"].append(np.rint(seconds * 1e6).astype(np.int64))
    joined = {
        name: np.concatenate(parts or [np.empty(0, np.int32)]) for name, parts in columns.items()
    }
    buckets = sorted(codes)
    in_order = np.array([buckets.index(name) for name in codes], np.int32)
    return _Kept(
        part=joined["part"],
        row=joined["row"],
        bucket=in_order[joined["bucket"]] if buckets else np.empty(0, np.int32),
        length_us=joined["length_us"],
        buckets=buckets,
        keys=np.concatenate(keys),
        digest=digest.hexdigest(),
    )


def _cropped_buckets(
    store: Store, info: CorpusInfo, part: int, rows: NDArray[np.int32], buckets: Buckets
) -> pa.ChunkedArray:
    """Names of the buckets of some clips of a part by their pictures inside black bars."""
    columns = ["picture_area", "width", "height", "duration_s"]
    clips = read_columns(store, info.layers, part, columns).take(pa.array(rows))
    areas = clips["picture_area"]
    width, height = (
        pc.coalesce(pc.list_element(areas, place), clips[side]).to_numpy()
        for place, side in ((2, "width"), (3, "height"))
    )
    numbers = buckets.numbers(width, height, clips["duration_s"].to_numpy())
    return pa.chunked_array([pa.array(buckets.names(), pa.string()).take(pa.array(numbers))])


def pieces(length_us: NDArray[np.int64], config: ExportConfig) -> Iterator[tuple[int, int]]:
    """Bounds of the shards of one bucket: as many clips as both limits allow, at least one."""
    ends_us = np.cumsum(length_us)
    limit_us = round(config.max_seconds_per_shard * 1e6)
    begin = 0
    while begin < len(length_us):
        before_us = int(ends_us[begin - 1]) if begin else 0
        by_time = int(np.searchsorted(ends_us, before_us + limit_us, side="right"))
        end = max(begin + 1, min(begin + config.max_clips_per_shard, by_time))
        yield begin, min(end, len(length_us))
        begin = end
