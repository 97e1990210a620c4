"""How a selection's shards grow: each export adds a generation, one manifest names them all.

A generation is what one plan says: the clips that the selection kept and no shard held yet. Its tars
get the next numbers of their buckets, and finished ones are never written again. A plan that was not
finished before the selection changed is closed: what it has made stays, the rest is planned anew.

Growing keeps rules, settings and layers. Others would mix clips that were chosen or cut differently,
so they are refused, before anything is touched.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.corpus import layout
from curation.corpus.manifest import sealed, unsealed
from curation.corpus.parts import LAYER_METADATA
from curation.corpus.selection import read_rules, verdicts_digest
from curation.corpus.settings import settings_from
from curation.corpus.shards import read_index, read_manifest, with_later_columns
from curation.corpus.store import Store
from curation.errors import PASSING, CorpusError, TornPart

_PLAN = re.compile(r"plan(?:-(\d{5}))?\.json\Z")
_SHARD = re.compile(r"(?P<bucket>[^/]+)/(?P<number>\d{6,})\.(?P<kind>tar|parquet)\Z")

_ENTRIES = {
    *(
        "format_version",
        "generation",
        "export",
        "made_by",
        "selection",
        "selection_sha256",
        "rules",
    ),
    *("layers", "num_selected", "buckets", "retries", "replaces", "rewritten_for", "closed_early"),
}
Plan = dict[str, Any]
"""Contents of one plan.json."""


def read_plans(store: Store, selection: str) -> list[Plan]:
    """The plans of all generations, the first one first; empty where no export was begun.

    Raises:
        TornPart: if one is damaged.
    """
    plans = []
    for path in store.files(layout.shards(selection)):
        if match := _PLAN.match(path.rpartition("/")[2]):
            plan = read_plan(store, path)
            plans.append({"generation": int(match[1] or 1)} | plan)
    return sorted(plans, key=lambda plan: int(plan["generation"]))


def read_plan(store: Store, path: str) -> Plan:
    """One plan.

    Raises:
        TornPart: if its bytes are not those that were written.
    """
    plan = unsealed(store.read(path), f"{store.root}/{path}")
    if unknown := set(plan) - _ENTRIES:  # such as "digest" with a changed letter
        raise TornPart(f"{store.root}/{path}: unknown entries {', '.join(sorted(unknown))}")
    return plan


def write_plan(store: Store, plan: Plan) -> None:
    """Put one plan in its place."""
    store.write(layout.shard_plan(plan["selection"], plan["generation"]), sealed(plan))


def replaced_names(plans: list[Plan]) -> set[tuple[str, int]]:
    """Bucket and number of the shards that were written anew under another number, and deleted."""
    found = (_SHARD.match(f"{old}.tar") for plan in plans for old in plan.get("replaces", {}))
    return {(match["bucket"], int(match["number"])) for match in found if match}


def finished_generations(store: Store, selection: str) -> frozenset[int]:
    """Numbers of the generations that the manifest names."""
    if not store.exists(layout.shard_manifest(selection)):
        return frozenset()
    manifest = read_manifest(store, selection)
    return frozenset(entry["generation"] for entry in manifest["generations"])


def begun_generations(store: Store, selection: str) -> list[int]:
    """Numbers of the generations that were planned and that no manifest names yet."""
    finished = finished_generations(store, selection)
    numbers = (plan["generation"] for plan in read_plans(store, selection))
    return [number for number in numbers if number not in finished]


def check_finished(store: Store, selection: str) -> None:
    """Raise if a shard that the manifest names is gone: its number would be given away again.

    Raises:
        TornPart: names the first.
    """
    if not store.exists(layout.shard_manifest(selection)):
        return
    replaced = replaced_names(read_plans(store, selection))
    done = {layout.shard(*named) for named in (*committed_names(store, selection), *replaced)}
    of_shards = (name for name in read_manifest(store, selection)["files"] if "/" in name)
    lost = sorted({name.rpartition(".")[0] for name in of_shards} - done)
    if lost:
        raise TornPart(
            f"{len(lost)} finished shards under {store.root}/{layout.shards(selection)} are missing, "
            f"the first is {lost[0]}; `lavie verify` names all that is wrong. Shards do not grow "
            f"until they are back"
        )


@dataclass(frozen=True, slots=True)
class CommittedShard:
    """One shard that is done."""

    bucket: str
    number: int
    generation: int
    made: dict[str, Any]
    """What its Parquet file says of the export, the encoder and the tar."""
    entry: dict[str, Any]
    """sha256 and length of that file."""
    rows: pa.Table

    @property
    def name(self) -> str:
        """Path under the selection's shards, without extension."""
        return layout.shard(self.bucket, self.number)


def committed_names(store: Store, selection: str) -> list[tuple[str, int]]:
    """Bucket and number of every shard that is done, in their order."""
    return sorted(_named(store, selection, "parquet"))


def _named(store: Store, selection: str, kind: str) -> set[tuple[str, int]]:
    folder = layout.shards(selection)
    names = (path[len(folder) + 1 :] for path in store.files(folder, recursive=True))
    found = (match for name in names if (match := _SHARD.match(name)))
    return {(match["bucket"], int(match["number"])) for match in found if match["kind"] == kind}


def read_shard(
    store: Store,
    selection: str,
    named: tuple[str, int],
    generations: Mapping[str, int],
) -> CommittedShard:
    """The rows of one shard that is done.

    Args:
        store: the corpus.
        selection: name of the selection.
        named: bucket and number.
        generations: digest of an export -> number of its generation.

    Raises:
        TornPart: if it is damaged, or not of one of these exports.
    """
    path = f"{layout.shards(selection)}/{layout.shard(*named)}.parquet"
    data = store.read(path)
    try:
        rows = pq.read_table(pa.BufferReader(data), page_checksum_verification=True)
    except (pa.ArrowInvalid, pa.ArrowIOError) as error:
        raise TornPart(f"{store.root}/{path}: damaged ({error})") from error
    made = json.loads((rows.schema.metadata or {}).get(LAYER_METADATA, b"{}"))
    if made.get("export") not in generations:
        raise TornPart(f"{store.root}/{path}: not made from a plan of these shards")
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
    rows = with_later_columns(rows)
    return CommittedShard(*named, generations[made["export"]], made, entry, rows)


def by_export(plans: list[Plan]) -> dict[str, int]:
    """Digest of an export -> number of its generation."""
    return {plan["export"]: plan["generation"] for plan in plans}


def exported_ids(
    store: Store, selection: str, *, before: int | None = None, failed: bool = False
) -> Iterator[pa.ChunkedArray]:
    """Clip ids that the shards of a selection hold, of unfinished generations too.

    Args:
        store: the corpus.
        selection: name of the selection.
        before: only of generations before this one; of all if not given.
        failed: also those of clips that could not be cut.
    """
    for rows in _exported_rows(store, selection, ["clip_id"], before=before, failed=failed):
        yield rows["clip_id"]


def exported_splits(store: Store, selection: str) -> dict[str, str]:
    """sha256 of a source -> the split that its clips were exported with, dropped ones included.

    Where versions of a program should not agree, 'train' is what counts: it has been looked at.
    """
    found: dict[str, str] = {}
    columns = ["source_sha256", "split"]
    for rows in _exported_rows(store, selection, columns, before=None, failed=False):
        pairs = rows.filter(pc.is_valid(rows["split"])).group_by(columns).aggregate([])
        for digest, split in zip(*(pairs[name].to_pylist() for name in columns), strict=True):
            if found.get(digest) != "train":
                found[digest] = split
    return found


def _exported_rows(
    store: Store, selection: str, columns: list[str], *, before: int | None, failed: bool
) -> Iterator[pa.Table]:
    """Rows of the index, then of shards that it does not have yet."""
    plans = read_plans(store, selection)
    listed: set[str] = set()
    if store.exists(layout.shard_manifest(selection)):
        listed = set(read_manifest(store, selection)["files"])
        wanted = [*columns, "generation"]
        index = read_index(store, selection, wanted, failed=failed, dropped=True)
        if before is not None:
            index = index.filter(pc.less(index["generation"], before))
        yield index.select(columns)
    pairs = [pair for plan in plans for pair in plan.get("replaces", {}).items()]
    listed |= {f"{new}.parquet" for old, new in pairs if f"{old}.parquet" in listed}
    listed |= {f"{old}.parquet" for old, _ in pairs}
    for named in committed_names(store, selection):
        if f"{layout.shard(*named)}.parquet" in listed:
            continue
        shard = read_shard(store, selection, named, by_export(plans))
        if before is None or shard.generation < before:
            rows = shard.rows if failed else shard.rows.filter(pc.is_valid(shard.rows["shard"]))
            yield rows.select(columns)


def latest_tries(shards: Iterable[pa.Table]) -> dict[str, int]:
    """`clip_id` -> the highest `tried_before` of clips that were cut a second time."""
    latest: dict[str, int] = {}
    for rows in shards:
        again = rows.filter(pc.is_valid(rows["tried_before"]))
        pairs = zip(again["clip_id"].to_pylist(), again["tried_before"].to_pylist(), strict=True)
        for clip_id, number in pairs:
            latest[clip_id] = max(number, latest.get(clip_id, 0))
    return latest


def not_superseded(rows: pa.Table, latest: Mapping[str, int]) -> pa.Table:
    """Rows without failed ones whose clip was tried again after them.

    Args:
        rows: of shards.
        latest: from `latest_tries`, of all shards.
    """
    if not latest:
        return rows
    columns = (rows[name].to_pylist() for name in ("clip_id", "shard", "tried_before"))
    stays = [
        shard is not None or (number or 0) >= latest.get(clip_id, 0)
        for clip_id, shard, number in zip(*columns, strict=True)
    ]
    return rows.filter(pa.array(stays, pa.bool_()))


def failed_in_passing(store: Store, selection: str, *, before: int) -> dict[str, list[int]]:
    """Clips that could not be cut for reasons that may pass, and were not tried again since.

    Returns:
        `clip_id` -> for each clip of this id (the same bytes under two names are two) how many exports
        have tried it.
    """
    columns = ["clip_id", "shard", "export_reject", "tried_before"]
    tables = list(_exported_rows(store, selection, columns, before=before, failed=True))
    latest, found = latest_tries(tables), dict[str, list[int]]()
    for rows in tables:
        failed = rows.filter(pc.is_in(rows["export_reject"], value_set=pa.array(list(PASSING))))
        for row in not_superseded(failed, latest).to_pylist():
            found.setdefault(row["clip_id"], []).append(1 + (row["tried_before"] or 0))
    return found


def close_plan(store: Store, plan: Plan) -> None:
    """End a generation that was not finished, because its selection has changed since.

    Shards that are done stay. Tars without rows, which a killed run left, go. Of shards that were to be
    written anew, each is the old one or the new one then.
    """
    selection = plan["selection"]
    done = set(committed_names(store, selection))
    for named in _named(store, selection, "tar") - done:
        store.delete(f"{layout.shards(selection)}/{layout.shard(*named)}.tar")
    if "replaces" in plan:
        plan = _settled(plan, {layout.shard(*named) for named in done})
    generations = by_export(read_plans(store, selection))
    listed: set[str] = set()
    if store.exists(layout.shard_manifest(selection)):
        listed = set(read_manifest(store, selection)["files"])
    new = [named for named in done if f"{layout.shard(*named)}.parquet" not in listed]
    if any(
        read_shard(store, selection, named, generations).generation == plan["generation"]
        for named in new
    ):
        write_plan(store, plan | {"closed_early": True})
    else:
        store.delete(layout.shard_plan(selection, plan["generation"]))


def _settled(plan: Plan, done: set[str]) -> Plan:
    """A plan that replaces just what it has replaced."""
    return plan | {"replaces": {old: new for old, new in plan["replaces"].items() if new in done}}


def delete_replaced(store: Store, selection: str) -> None:
    """Delete shards that others have taken the place of, but for those of a generation under way.

    Readers that know the manifest before last may be at them until there is the new one.
    """
    finished = finished_generations(store, selection)
    plans = [
        plan
        for plan in read_plans(store, selection)
        if plan["generation"] in finished or "closed_early" in plan
    ]
    old = replaced_names(plans)
    for kind in ("tar", "parquet"):  # the rows, which say that the tar is there, go last
        for named in sorted(old & _named(store, selection, kind)) if old else ():
            store.delete(f"{layout.shards(selection)}/{layout.shard(*named)}.{kind}")


def rules_of(rules: Mapping[str, Any]) -> dict[str, Any]:
    """What of a selection's rules.json must stay the same for its shards to grow."""
    return {name: rules.get(name) for name in ("version", "config")}


def check_grows(
    store: Store,
    selection: str,
    *,
    rules: Any = None,
    layers: Mapping[str, str] | None = None,
    export: Any = None,
) -> None:
    """Raise if shards of this name were made otherwise, so that they could not grow.

    Args:
        store: the corpus.
        selection: name of the selection.
        rules: dataclass of the rules by which clips are selected.
        layers: layer name -> id of all that the clips' facts come from.
        export: dataclass of the settings by which they are cut and packed.

    Raises:
        CorpusError: names what differs and the ways out.
    """
    plans = read_plans(store, selection)
    if not plans or not committed_names(store, selection):
        return  # a plan of which nothing was made binds nobody
    last = plans[-1]
    differences: list[str] = []
    if rules is not None:
        known = last.get("rules") or _rules_on_record(store, last)
        if known is None:
            differences.append("their selection has been replaced by one with other verdicts")
        else:
            differences += _settings_that_differ("rules", known.get("config"), rules)
    if layers is not None:
        differences += _differences("layers", last["layers"], dict(layers))
    if export is not None:
        differences += _settings_that_differ("export", last["made_by"]["settings"], export)
    if differences:
        raise _refusal(store, selection, differences)


def _settings_that_differ(what: str, then: Any, now: Any) -> list[str]:
    """A sentence for each setting that differs; what is new in the program had its default then."""
    try:
        before = asdict(settings_from(type(now), then))
    except (ValueError, TypeError) as error:
        return [f"{what}: of another version of the program ({error})"]
    as_json = [json.loads(json.dumps(each)) for each in (before, asdict(now))]
    return list(_differences(what, *as_json))


def _refusal(store: Store, selection: str, differences: list[str]) -> CorpusError:
    shown = "; ".join(differences[:5]) + ("; ..." if len(differences) > 5 else "")
    return CorpusError(
        f"{store.root}/{layout.shards(selection)} holds shards that were made otherwise ({shown}). "
        f"Shards grow by new sources under the same rules, settings and layers. Give these as they "
        f"were, or take another name for the selection, or delete {layout.shards(selection)} to cut "
        f"all anew; nothing was changed"
    )


def _rules_on_record(store: Store, plan: Plan) -> dict[str, Any] | None:
    """Rules of shards whose plan has none yet (format 1), if the selection is still theirs."""
    selection = plan["selection"]
    if verdicts_digest(store, selection) != plan["selection_sha256"]:
        return None
    return rules_of(read_rules(store, selection))


def record_rules(store: Store, selection: str) -> None:
    """Write the rules into a plan of format 1, before a later selection takes their place."""
    for plan in read_plans(store, selection)[-1:]:
        if "rules" not in plan and (rules := _rules_on_record(store, plan)) is not None:
            write_plan(store, plan | {"rules": rules})


def _differences(what: str, then: Any, now: Any) -> Iterator[str]:
    """A sentence for each value that differs, by its dotted name."""
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for name in sorted({*then, *now}):
            yield from _differences(f"{what}.{name}", then.get(name), now.get(name))
    elif isinstance(then, list) and isinstance(now, list):
        gone, new = ([each for each in a if each not in b] for a, b in ((then, now), (now, then)))
        for text, some in (("no longer", gone), ("new", new)):
            yield from (f"{what}: {text} {_label(each)}" for each in some)
        if then != now and not gone and not new:
            yield f"{what}: in another order"
    elif then != now:
        yield f"{what}: {_short(then)} then, {_short(now)} now"


def _label(value: Any) -> str:
    """A rule by its name; anything else as it is."""
    name = value.get("name") or value.get("column") if isinstance(value, Mapping) else None
    return str(name) if name else _short(value)


def _short(value: Any) -> str:
    text = "none" if value is None else json.dumps(value, sort_keys=True)
    return text if len(text) <= 60 else f"{text[:57]}..."


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardsState:
    """What there is of a selection's shards."""

    num_generations: int
    """Finished ones."""
    num_clips: int
    """In their tars."""
    num_shards: int
    """Tars."""
    is_unfinished: bool
    """Whether an export was begun that has not ended."""
    is_own: bool
    """Whether they were last brought up to the verdicts that the selection has today."""


def shards_state(store: Store, selection: str) -> ShardsState | None:
    """What there is of a selection's shards; None where no export was begun."""
    plans = read_plans(store, selection)
    if not plans:
        return None
    finished = finished_generations(store, selection)
    manifest = read_manifest(store, selection) if finished else {}
    try:
        verdicts = verdicts_digest(store, selection)
    except CorpusError:  # there is no finished selection of this name
        verdicts = ""
    return ShardsState(
        num_generations=len(finished),
        num_clips=manifest.get("num_clips", 0),
        num_shards=manifest.get("num_shards", 0),
        is_unfinished=bool(begun_generations(store, selection)),
        is_own=manifest.get("selection_sha256", plans[-1]["selection_sha256"]) == verdicts,
    )
