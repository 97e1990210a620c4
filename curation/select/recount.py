"""Clips leave the verdicts of a selection, and its funnel is counted again."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from curation.corpus import layout
from curation.corpus.gap import Gap
from curation.corpus.ledger import Commit, commit_part
from curation.corpus.parts import read_clips, read_sources, read_table
from curation.corpus.removal import Change, changed_file
from curation.corpus.schema import LAYER_OF
from curation.corpus.selection import (
    FUNNEL,
    RULES,
    read_funnel,
    read_rules,
    read_verdicts,
    verdict_parts,
)
from curation.corpus.store import Store
from curation.errors import TornPart
from curation.select.funnel import Amount, Funnel, StepName, check_accounts, make_steps
from curation.select.splits import SPLITS
from curation.select.write import publish


def drop_clips(store: Store, name: str, ids: pa.Array) -> Iterator[tuple[Commit | None, Change]]:
    """Take clips out of a finished selection, and nothing else.

    Look-alikes of a clip that goes stay rejected until the next `lavie select`: what shows the same
    should not come in its place unasked.

    Args:
        store: the corpus, its layers free of the clips already.
        name: of the selection.
        ids: clip ids that go.
    """
    rules = read_rules(store, name)
    for path in verdict_parts(store, name):
        part = layout.part_number(path)
        assert part is not None, path
        verdicts = read_verdicts(store, name, part)
        kept = verdicts.filter(pc.invert(pc.is_in(verdicts["clip_id"], value_set=ids)))
        for column in ("duplicate_group", "semantic_duplicate_of"):
            place = kept.schema.get_field_index(column)
            named = kept[column]
            known = pc.if_else(pc.is_in(named, value_set=ids), pa.scalar(None, pa.string()), named)
            kept = kept.set_column(place, kept.schema.field(place), known)
        if kept.equals(verdicts):
            continue
        num_removed = verdicts.num_rows - kept.num_rows
        with changed_file(store, path, num_removed) as change:
            commit = commit_part(store, layout.selection(name), part, kept)
        yield commit, change.made()
    funnel = _recounted(store, name)  # also where a killed run had changed the last part
    folder = layout.selection(name)
    digest = hashlib.sha256()
    for path in verdict_parts(store, name):
        digest.update(store.read(path))
    now = rules | {"verdicts_sha256": digest.hexdigest()}
    if funnel.to_json() == store.read(f"{folder}/{FUNNEL}") and now == rules:
        return
    with (
        changed_file(store, f"{folder}/{FUNNEL}", 0) as of_funnel,
        changed_file(store, f"{folder}/{RULES}", 0) as of_rules,
    ):
        publish(store, name, rules=now, funnel=funnel)
    yield None, of_funnel.made()
    yield None, of_rules.made()


def _recounted(store: Store, name: str) -> Funnel:
    """The funnel by the verdicts that are there, over the layers that they were made from."""
    before = read_funnel(store, name)
    names = [
        StepName(**{key: step[key] for key in ("rule", "allows", "source")})
        for step in before["steps"]
    ]
    bits = {step.rule: 1 << bit for bit, step in enumerate(names)}
    by_failed: dict[int, Amount] = {}
    tiers: dict[str, Amount] = {}
    buckets: dict[str, Amount] = {}
    splits: dict[str, Amount] = {}
    groups: set[str] = set()
    num_sources, rejected, uncategorised = 0, Counter[str](), 0
    is_balanced = before.get("uncategorised") is not None
    rules = read_rules(store, name)
    balance = rules["config"]["balance"]
    by = [balance["category_column"]] if is_balanced else []
    for part in Gap.of_selection(rules).complete:
        sources = read_sources(store, rules["layers"], part, ["source_reject"])["source_reject"]
        num_sources += len(sources)
        rejected.update(word for word in sources.to_pylist() if word is not None)
        verdicts = read_verdicts(store, name, part)
        clips = pa.table(
            {
                column: _of_clips(store, rules["layers"], part, column, verdicts["clip_id"])
                for column in ("duration_s", *by)
            }
        )
        for clip, row in zip(clips.to_pylist(), verdicts.to_pylist(), strict=True):
            duration_s = clip["duration_s"]
            uncategorised += row["keep"] and any(clip[column] is None for column in by)
            amount = Amount(
                clips=1, images=int(duration_s == 0), duration_ms=round(duration_s * 1000)
            )
            failed = sum(bits[rule] for rule in row["failed_rules"])
            by_failed[failed] = by_failed.get(failed, Amount()) + amount
            groups |= {row["duplicate_group"]} - {None}
            if row["keep"]:
                tiers[row["tier"] or ""] = tiers.get(row["tier"] or "", Amount()) + amount
                buckets[row["bucket"]] = buckets.get(row["bucket"], Amount()) + amount
                split = row.get("split") or ""
                splits[split] = splits.get(split, Amount()) + amount
    kept = by_failed.get(0, Amount())
    gone = sum((amount for failed, amount in by_failed.items() if failed), Amount())
    funnel = Funnel(
        sources=num_sources,
        sources_rejected=dict(sorted(rejected.items())),
        clips=kept + gone,
        kept=kept,
        rejected=gone,
        steps=make_steps(names, by_failed),
        duplicate_groups=len(groups),
        tiers=tiers if before["tiers"] else {},
        buckets=dict(sorted(buckets.items())),
        splits={name: splits[name] for name in (*SPLITS, "") if name in splits}
        if "splits" in before
        else {},
        uncategorised=uncategorised if is_balanced else None,
        skipped=tuple(before.get("skipped", ())),
    )
    check_accounts(funnel)
    return funnel


def _of_clips(
    store: Store, layers: Mapping[str, str], part: int, column: str, clip_ids: pa.ChunkedArray
) -> pa.ChunkedArray:
    """A column of the clips that a part's verdicts are on, in their order.

    The part may have other clips besides, of sources that were read at a later try, and some of its layers
    may not have followed yet; so it goes by the ids, layer by layer.

    Raises:
        TornPart: if the layer lacks one of them.
    """
    layer = LAYER_OF[column]
    if layer in ("sources", "probe"):
        path, table = layout.sources(part), read_clips(store, layers, part, [column])
    else:
        path = layout.layer(layers[layer], part)
        table = read_table(store, path, ["clip_id", column])
    places = pc.index_in(clip_ids, value_set=table["clip_id"].combine_chunks())
    if places.null_count:
        raise TornPart(
            f"{store.root}/{path}: lacks clips that a selection has verdicts on; `lavie verify` says what is "
            "wrong"
        )
    return table[column].take(places)
