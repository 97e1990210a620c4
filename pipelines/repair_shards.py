"""Cut damaged or missing shards again, and put them back if they are what they were."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import TypeAdapter
from rich.console import Console

from curation.corpus import layout
from curation.corpus.gap import Gap
from curation.corpus.generations import read_plans
from curation.corpus.manifest import CorpusInfo, canonical_json, sealed
from curation.corpus.parts import read_table
from curation.corpus.scratch import scratch_folder
from curation.corpus.selection import read_rules, read_verdicts
from curation.corpus.shards import file_fault, read_index, read_manifest, with_later_columns
from curation.corpus.store import Store
from curation.errors import CorpusError, TornPart
from curation.export import ExportConfig, ShardWriter, finish_shards, plan_of
from curation.export.shard_plan import ShardPlan
from curation.stations.station import Resources
from pipelines import advice
from pipelines.progress import ProgressBars
from pipelines.ray_cluster import start_ray
from pipelines.run import Stage, UnitResult, run_stages

_OF_ITS_TIME = ["clip_id", "tier", "sampling_weight", "split", "facts_generation", "tried_before"]
"""Columns of shards that later selections and generations do not change."""
_PLACE = ["shard", "json_offset", "json_size"]


@dataclass(slots=True)
class RecutJob:
    """Shard N of a list of damaged ones -> the same shard, if it can be cut again to the same bytes."""

    writer: ShardWriter
    files: Mapping[str, Mapping[str, Any]]
    """Of the manifest."""

    def setup(self) -> None:
        """Find the encoder."""
        self.writer.setup()

    def run(self, unit: int, plan: ShardPlan) -> UnitResult:
        """Cut one shard aside, and put its damaged files back that came out as the manifest says."""
        store, folder = self.writer.store, layout.shards(self.writer.selection)
        with scratch_folder("lavie-recut-") as scratch:
            self.writer.out = Store(str(scratch))
            self.writer(plan)
            names = [
                name for name in (f"{plan.name}.tar", f"{plan.name}.parquet") if name in self.files
            ]
            damaged = [n for n in names if file_fault(store, f"{folder}/{n}", self.files[n])]
            same = [
                name
                for name in damaged
                if file_fault(self.writer.out, f"{folder}/{name}", self.files[name]) is None
            ]
            for name in same:
                store.put_file(f"{folder}/{name}", scratch / folder / name)
        return UnitResult(counts={"same" if same == damaged else "other": 1})

    def close(self) -> None:
        """End the child process that reads the sources."""
        self.writer.close()


def repair_shards(
    store: Store,
    info: CorpusInfo,
    selection: str,
    moved: Mapping[str, str],
    *,
    console: Console,
    ray_address: str,
) -> list[str]:
    """Repair the shards of one selection.

    Args:
        store: the corpus.
        info: its contents.
        selection: whose shards.
        moved: address of a source that is not there any more -> where the same bytes lie.
        console: for progress.
        ray_address: see `curate.HowToRun`.

    Returns:
        What could not be repaired and why, a sentence each.
    """
    try:
        manifest = _whole_manifest(store, selection)
    except (CorpusError, KeyError, FileNotFoundError) as error:
        line = f"{layout.shards(selection)}: index and manifest cannot be made anew ({error})"
        return [line]
    return _Shards(store, info, selection, manifest, moved).repair(console, ray_address)


def _whole_manifest(store: Store, selection: str) -> dict[str, Any]:
    """The manifest, made anew from the shards' own rows where it is damaged or gone."""
    name = layout.shard_manifest(selection)
    if store.exists(name):
        try:
            return read_manifest(store, selection)
        except TornPart:
            store.delete(name)
    return finish_shards(store, selection, all_exported=None)


def restore_plans(store: Store, selection: str) -> list[str]:
    """Write damaged plans again from the manifest, where that is whole; nothing else is read.

    Returns:
        Names of the plans that stay damaged.
    """
    try:
        manifest = read_manifest(store, selection)
    except CorpusError:
        return []
    folder = layout.shards(selection)
    plans = [name for name in manifest["files"] if name.endswith(".json")]
    return [
        name
        for name in plans
        if file_fault(store, f"{folder}/{name}", manifest["files"][name])
        and not _rewrite_plan(store, manifest, name)
    ]


def lost_plans(store: Store, selection: str) -> list[str]:
    """What is to be done about damaged plans where no manifest says what they were; empty elsewhere."""
    folder = layout.shards(selection)
    with suppress(CorpusError):
        read_manifest(store, selection)
        return []
    try:
        read_plans(store, selection)
    except TornPart as error:
        line = (
            f"{error}, and no manifest says what it was: put one of the two back from a copy, or delete "
            f"{folder} and cut all anew with {advice.export_again(store, selection)}"
        )
        return [line]
    return []


def drop_begun(store: Store, selection: str, damaged: Iterable[str]) -> list[str]:
    """Take damaged shards of an export that was cut off away: no manifest names them, and it makes them anew.

    Args:
        store: the corpus.
        selection: whose shards.
        damaged: paths of files of the corpus.

    Returns:
        What is left to do, a sentence each.
    """
    try:
        known = read_manifest(store, selection)["files"]
    except CorpusError:  # whether they were finished cannot be told
        return []
    folder = layout.shards(selection)
    names = (name.removeprefix(f"{folder}/") for name in damaged if name.startswith(f"{folder}/"))
    shards = {name.rpartition(".")[0] for name in names if "/" in name and name not in known}
    for shard in sorted(shards):
        for kind in ("parquet", "tar"):  # the rows, which say that the tar is there, go first
            store.delete(f"{folder}/{shard}.{kind}")
    return [
        f"{folder}/{shard}: taken away, as the export that it is of had not ended; "
        f"{advice.export_again(store, selection)} makes it anew"
        for shard in sorted(shards)
    ]


def _rewrite_plan(store: Store, manifest: Mapping[str, Any], name: str) -> bool:
    """Write a generation's plan from what the manifest says of it; False if it is another."""
    entry = next((g for g in manifest["generations"] if g.get("plan", "plan.json") == name), None)
    if entry is None:
        return False
    plan = plan_of(manifest, entry)
    for data in (sealed(plan), canonical_json(plan)):  # an earlier program sealed no plan
        if hashlib.sha256(data).hexdigest() == manifest["files"][name]["sha256"]:
            store.write(f"{layout.shards(plan['selection'])}/{name}", data)
            return True
    return False


@dataclass(frozen=True, slots=True)
class _Shards:
    """The shards of one selection, and a manifest that is whole."""

    store: Store
    info: CorpusInfo
    selection: str
    manifest: Mapping[str, Any]
    moved: Mapping[str, str]

    @property
    def folder(self) -> str:
        return layout.shards(self.selection)

    @property
    def files(self) -> Mapping[str, Mapping[str, Any]]:
        files: Mapping[str, Mapping[str, Any]] = self.manifest["files"]
        return files

    def is_damaged(self, name: str) -> bool:
        return file_fault(self.store, f"{self.folder}/{name}", self.files[name]) is not None

    def repair(self, console: Console, ray_address: str) -> list[str]:
        """Bring back what is damaged: plans, then shards, then the index."""
        damaged = sorted(filter(self.is_damaged, self.files))
        said = [
            f"{self.folder}/{name}: put it back from a copy; readers can do without it"
            for name in damaged
            if name.endswith(".json") and not _rewrite_plan(self.store, self.manifest, name)
        ]
        shards = sorted({name.rpartition(".")[0] for name in damaged if "/" in name})
        if shards:
            self._recut(shards, console, ray_address)
            said += [
                f"{self.folder}/{shard}: cut again it has other bytes, since a source is gone or has changed "
                "(--moved-to names a place to look for films that were moved), this is another version of "
                "the encoder, the texts or the selection of its time are on record no more, "
                "or index, rows and tar are damaged all three; it stays as it is"
                for shard in shards
                if any(map(self.is_damaged, self._files_of(shard)))
            ]
        if "index.parquet" in damaged and not said:
            said += self._finish()
        return said

    def _files_of(self, shard: str) -> list[str]:
        names = (f"{shard}.tar", f"{shard}.parquet")
        return [name for name in names if name in self.files]

    def _finish(self) -> list[str]:
        """Make the index anew; it is put before the manifest, so the manifest goes first."""
        self.store.delete(layout.shard_manifest(self.selection))
        after = finish_shards(self.store, self.selection, all_exported=None)
        if after["files"] == self.files:
            return []
        line = (
            f"{self.folder}: the index was made anew and says what the selection keeps now, which is not "
            "what it said before"
        )
        return [line]

    def _recut(self, shards: list[str], console: Console, ray_address: str) -> None:
        """Cut shards again, several at a time."""
        settings = self.manifest["made_by"]["settings"]
        config = TypeAdapter(ExportConfig).validate_python(settings)
        plans = list(self._plans(shards))
        writer = ShardWriter(self.store, self.info, self.selection, config)
        writer.moved = self.moved
        stage = Stage(
            name="export",
            job=RecutJob(writer, self.files),
            resources=Resources(cpus=config.threads),
            units=range(len(plans)),
            plans=plans,
        )
        start_ray(ray_address)
        with ProgressBars(console, unit="shards") as bars:
            run_stages([stage], bars)

    def _plans(self, shards: list[str]) -> Iterator[ShardPlan]:
        """Which clips lie in each shard, and what their samples say that is not so any more."""
        exports = {entry["generation"]: entry["export"] for entry in self.manifest["generations"]}
        samples_of = {shard: self._samples(shard) for shard in shards}
        places = self._places({s["clip_id"] for samples in samples_of.values() for s in samples})
        for shard, samples in samples_of.items():
            bucket, number = shard.split("/")
            generation = self.files[f"{shard}.parquet"].get("generation", 1)
            seen: Counter[str] = Counter()
            found = []
            as_cut = []
            for sample in samples:
                # The same bytes under two names give the same ids: the first to the first, and so on.
                clip_id = sample["clip_id"]
                if of_id := places.get(clip_id, []):
                    found.append(of_id[min(seen[clip_id], len(of_id) - 1)])
                    written_for = sample["facts_generation"] or generation
                    own = {"facts_generation": written_for, "export": exports[written_for]}
                    as_cut.append({**sample, **own, "bucket": bucket})
                seen[clip_id] += 1
            columns = {
                name: pa.array([place[axis] for place in found], pa.int32())
                for axis, name in enumerate(("part", "row"))
            }
            yield ShardPlan(
                bucket=bucket,
                number=int(number),
                export=exports[generation],
                generation=generation,
                clips=pa.table(columns),
                as_cut=tuple(as_cut),
            )

    def _samples(self, shard: str) -> list[dict[str, Any]]:
        """Clips of a shard in its order, and what their samples say of export and selection.

        By its own rows, by its tar, or by the index: what is whole. Empty if all are damaged.
        """
        rows, tar, index = f"{shard}.parquet", f"{shard}.tar", "index.parquet"
        if not self.is_damaged(rows):
            table = read_table(self.store, f"{self.folder}/{rows}")
            own = with_later_columns(table).select([*_OF_ITS_TIME, *_PLACE]).to_pylist()
            return [self._with_group(row) for row in own]
        if tar in self.files and not self.is_damaged(tar):
            exports = {g["export"]: g["generation"] for g in self.manifest["generations"]}
            return _samples_of_tar(self.store, f"{self.folder}/{tar}", exports)
        if not self.is_damaged(index):
            columns = [*_OF_ITS_TIME, "shard"]
            table = read_index(self.store, self.selection, columns, dropped=True)
            table = table.filter(pc.equal(table["shard"], tar))
            samples: list[dict[str, Any]] = table.select(_OF_ITS_TIME).to_pylist()
            return samples
        return []

    def _with_group(self, row: dict[str, Any]) -> dict[str, Any]:
        """What the rows do not have of the selection of their time: the tar may still tell it."""
        told = {name: row[name] for name in _OF_ITS_TIME}
        if row["shard"] is None:
            return told
        try:
            data = self.store.read_range(
                f"{self.folder}/{row['shard']}",
                offset=row["json_offset"],
                size_bytes=row["json_size"],
            )
            group = json.loads(data)["duplicate_group"]
        except (OSError, ValueError, KeyError):  # gone, or just there damaged
            return told
        return {**told, "duplicate_group": group or None}

    def _places(self, wanted: set[str]) -> dict[str, list[tuple[int, int]]]:
        """Clip id -> part and row of every clip of this id; of the selected ones if there are any."""
        kept: dict[str, list[tuple[int, int]]] = defaultdict(list)
        others: dict[str, list[tuple[int, int]]] = defaultdict(list)
        ids = pa.array(sorted(wanted), pa.string())
        for part in Gap.of_selection(read_rules(self.store, self.selection)).complete:
            verdicts = read_verdicts(self.store, self.selection, part, columns=["clip_id", "keep"])
            is_wanted = pc.is_in(verdicts["clip_id"], value_set=ids)
            for row in np.flatnonzero(is_wanted.to_numpy()).tolist():
                into = kept if verdicts["keep"][row].as_py() else others
                into[verdicts["clip_id"][row].as_py()].append((part, row))
        return others | kept


def _samples_of_tar(store: Store, name: str, exports: Mapping[str, int]) -> list[dict[str, Any]]:
    """What the samples of a whole tar say, in their order."""
    found = []
    with (
        store.filesystem.open_input_file(store.path(name)) as file,
        tarfile.open(fileobj=file, mode="r:") as tar,
    ):
        for member in tar:
            if member.name.endswith(".json"):
                text = tar.extractfile(member)
                assert text is not None, "a tar of ours holds regular files"
                facts = json.load(text)
                scores = {score["name"]: score["value"] for score in facts["scores"]}
                found.append(
                    {
                        "clip_id": facts["clip_id"],
                        "tier": facts["tier"] or None,
                        "duplicate_group": facts["duplicate_group"] or None,
                        "sampling_weight": scores.get("sampling_weight"),
                        "split": facts.get("split") or None,
                        "facts_generation": exports.get(facts["export"]),
                    }
                )
    return found
