"""Run a selection: plain rules while the columns stream by, then look-alikes, then limits."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.corpus import layout
from curation.corpus.gap import find_gap
from curation.corpus.generations import check_grows, exported_splits, record_rules
from curation.corpus.ledger import Ledger
from curation.corpus.manifest import CorpusInfo
from curation.corpus.store import Store
from curation.errors import LavieError, MissingPart
from curation.select.cluster_corpus import cluster_corpus
from curation.select.clusters import Clustering
from curation.select.dedup import (
    HASHES_PER_CLIP,
    LookAlikes,
    components,
    find_groups,
    later_copies,
)
from curation.select.exported import exported_positions, ids_of, marked_exported
from curation.select.funnel import Amount, Funnel, check_accounts, count_words, make_steps
from curation.select.query import Plan
from curation.select.rules import (
    CAPTION_CAP_RULE,
    CATEGORY_CAP_RULE,
    DUPLICATE_RULE,
    SEMANTIC_RULE,
    SOURCE_CAP_RULE,
    Rule,
    SelectConfig,
)
from curation.select.scan import Codes, Corpus, Extent, lists_as_rows
from curation.select.second_look import SecondLook
from curation.select.semantic import semantic_duplicates
from curation.select.splits import SPLITS, grouped, source_splits
from curation.select.sql import Bounds
from curation.select.table import ClipTable, SelectResources, open_table
from curation.select.write import Duplicates, Verdicts, abandon, publish

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Called with what is being done, parts done, and parts in all."""


def check_selection(info: CorpusInfo, name: str, config: SelectConfig) -> None:
    """Check all that can be checked before any work.

    Raises:
        MissingColumn: if a rule reads what the corpus does not hold.
        ValueError: if the name cannot be a folder's, or a bound does not fit its column.
    """
    layout.check_selection_name(name)
    Plan(config).check(info)


def select(
    store: Store,
    info: CorpusInfo,
    name: str,
    config: SelectConfig,
    *,
    resources: SelectResources | None = None,
    on_progress: Progress | None = None,
) -> Funnel:
    """Decide which clips of a corpus are kept, and write it down.

    Writes `selections/<name>/`: a part for each complete part of the corpus with the scenes' rows in
    their order, funnel.json, and last rules.json, without which readers take the selection for
    unfinished. Parts that lack a layer are left out, named in rules.json and in the log. The same corpus
    and configuration give the same bytes.

    Args:
        store: the corpus.
        info: its contents; the layers it names are the ones that are read.
        name: of the selection; one of the same name is replaced.
        config: what to keep.
        resources: what may be used.
        on_progress: told after every part.

    Raises:
        MissingColumn: if a rule reads what the corpus does not hold; nothing was touched.
        CorpusError: with nothing touched, if a part is lost or damaged, no part is complete, or the
            selection has shards that cannot be read or were made by other rules or from other layers.
    """
    check_selection(info, name, config)
    resources = resources or SelectResources()
    plan = Plan(config)
    check_grows(store, name, rules=config, layers=info.layers)
    gap = find_gap(Ledger(store), info)
    if not gap.complete:
        raise MissingPart(
            f"{store.root} has no part that all its layers have; run the same `lavie curate` again. Not "
            f"complete are {gap}"
        )
    if gap:
        logger.warning("%s: selection %s leaves out %s", store.root, name, gap)
    record_rules(store, name)
    with open_table(plan, resources) as table:
        run = _Run(
            corpus=Corpus(store, info, gap, threads=resources.threads),
            plan=plan,
            table=table,
            progress=on_progress or (lambda what, done, total: None),
            temp_folder=resources.temp_folder,
        )
        funnel, bounds, verdicts_sha256 = run.decide(name)
    check_accounts(funnel)
    rules = plan.to_json(info, name, bounds) | gap.to_json()
    rules |= {"verdicts_sha256": verdicts_sha256}
    publish(store, name, rules=rules, funnel=funnel)
    logger.info("selection %s keeps %d of %d clips", name, funnel.kept.clips, funnel.clips.clips)
    return funnel


@dataclass(slots=True, kw_only=True)
class _Run:
    """One selection under way."""

    corpus: Corpus
    plan: Plan
    table: ClipTable
    progress: Progress
    temp_folder: Path | None
    """Where a large file may lie meanwhile."""
    fault: Exception | None = None
    """What ended the stream of clips early."""

    def decide(self, name: str) -> tuple[Funnel, dict[Rule, Bounds], str]:
        """Write every part's verdicts; returns what is left to publish, and the verdicts' sha256."""
        extent, sources = self._read_sources()
        is_copy = later_copies(sources) if self.plan.config.dedup.copies else None
        categories = Codes()
        bounds = self.table.load(
            self._stream(extent, is_copy, categories), with_copies=is_copy is not None
        )
        if self.fault is not None:
            raise self.fault
        alike, clusters = self._compare(extent)
        duplicates = self._drop_look_alikes(name, extent, alike)
        semantic = self._drop_semantic(name, extent, clusters)
        self._drop_surplus()
        splits = self._splits(name, sources, [alike.pairs, clusters.pairs])
        verdicts = Verdicts(
            rules=self.plan.names,
            tiers=[tier.name for tier in self.plan.config.tiers],
            buckets=self.plan.config.buckets.names(),
            duplicates=duplicates,
            semantic=semantic,
            weights=self._weights(categories, clusters),
            by_cluster=self.plan.config.balance.weight_by_cluster,
            clusters=clusters,
            splits=splits,
        )
        funnel = self._count(sources, verdicts)
        written = self.table.verdicts()
        # Only now: where something cannot be read, the selection that there is stays.
        abandon(self.corpus.store, name)
        digest = verdicts.write(self.corpus, name, written, extent, self.progress)
        return funnel, bounds, digest

    def _read_sources(self) -> tuple[Extent, pa.Table]:
        """Size of every part, and digest and reject reason of every source."""
        tables: list[pa.Table] = []
        num_sources, num_clips = ([0] * self.corpus.info.num_parts for _ in range(2))

        def read(part: int) -> tuple[pa.Table, int]:
            return self.corpus.read_sources(part), self.corpus.num_clips(part)

        for part, (table, count) in self.corpus.in_order(read):
            tables.append(table)
            num_sources[part], num_clips[part] = table.num_rows, count
            self.progress("sources", part + 1, self.corpus.info.num_parts)
        return Extent(tuple(num_sources), tuple(num_clips)), pa.concat_tables(tables)

    def _stream(
        self, extent: Extent, is_copy: np.ndarray | None, categories: Codes
    ) -> pa.RecordBatchReader:
        """All clips in their order: the plan's columns and what `ClipTable.load` wants besides."""
        first_clip, first_source = extent.first_clip, extent.first_source
        balance = self.plan.config.balance

        def read(part: int) -> pa.RecordBatch:
            table = self.corpus.read_columns(part, self.plan.columns)
            source = table["source_row"].to_numpy() + np.int64(first_source[part])
            added: dict[str, np.ndarray | pa.Array] = {
                "position": np.arange(first_clip[part], first_clip[part + 1])
            }
            added["source"] = source
            if is_copy is not None:
                added["is_copy"] = is_copy[source]
            if balance.uses_category:
                column = table[balance.category_column]
                codes = categories.encode(column)
                added["category_code"] = pa.array(codes, mask=column.is_null().to_numpy())
            columns = [column.combine_chunks() for column in table.columns]
            return pa.record_batch(
                [*columns, *map(_as_array, added.values())], names=[*table.column_names, *added]
            )

        def batches() -> Iterator[pa.RecordBatch]:
            try:
                for part, batch in self.corpus.in_order(read):
                    yield batch
                    self.progress("rules", part + 1, self.corpus.info.num_parts)
            except (LavieError, OSError) as error:
                # Through the query engine it would come out as text, with a traceback in it: the stream
                # ends, and `decide` raises it.
                self.fault = error

        first = self.corpus.gap.complete[0]
        return pa.RecordBatchReader.from_batches(read(first).schema, batches())

    def _compare(self, extent: Extent) -> tuple[LookAlikes, Clustering]:
        """Clips that pass all rules so far: those that look like another, and clusters of all.

        Look-alikes are looked for where they are kept as well: none may be trained on whose like is
        held out.
        """
        config = self.plan.config
        positions = self.table.kept_positions()
        pairs, second_look = np.zeros((0, 2), np.int64), None
        if config.dedup.look_alikes or config.splits.divide:
            hashes, lengths = self._read_hashes(positions, extent)
            groups = find_groups(hashes, lengths, config=config.dedup, threads=self.corpus.threads)
            inside = np.flatnonzero(groups >= 0)
            pairs = positions[np.stack([inside, groups[inside]], axis=1)]
            if config.dedup.second_look:
                sources = self.table.sources_of(positions)
                second_look = SecondLook(hashes, lengths, sources, config.dedup)
            del hashes, lengths
        clusters = Clustering.none()
        if config.clusters.num or second_look is not None:
            self.progress("clusters", 0, 1)
            clusters = cluster_corpus(
                self.corpus,
                extent,
                positions,
                config.clusters,
                temp_folder=self.temp_folder,
                second_look=second_look,
            )
            self.progress("clusters", 1, 1)
        return LookAlikes(*components(np.concatenate([pairs, clusters.copies]))), clusters

    def _drop_look_alikes(self, name: str, extent: Extent, alike: LookAlikes) -> Duplicates:
        """Keep the best of each group of look-alikes.

        One that the selection's shards hold is kept before all others: its tar stays as it is.
        """
        if not self.plan.config.dedup.look_alikes or not len(alike.positions):
            return Duplicates.none()
        members = self._members(alike.positions, alike.first, extent)
        best = self.table.best_of(marked_exported(members, self.corpus.store, name))
        self.table.fail(DUPLICATE_RULE, best.filter(pc.invert(best["is_kept"]))["position"])
        return Duplicates(
            positions=best["position"].to_numpy(),
            kept_ids=best["kept_id"].combine_chunks(),
            num_groups=int(pc.sum(best["is_kept"]).as_py()),
        )

    def _read_hashes(self, positions: np.ndarray, extent: Extent) -> tuple[np.ndarray, np.ndarray]:
        """Perceptual hashes of some clips, ``[N, HASHES_PER_CLIP]``, and how many each has."""
        first, edges = extent.first_clip, np.searchsorted(positions, extent.first_clip)
        hashes = np.zeros((len(positions), HASHES_PER_CLIP), dtype=np.uint64)
        lengths = np.zeros(len(positions), dtype=np.int64)

        def read(part: int) -> None:
            here = slice(edges[part], edges[part + 1])
            lists = self.corpus.read_columns(part, ["perceptual_hashes"])["perceptual_hashes"]
            lists = lists.take(pa.array(positions[here] - first[part]))
            hashes[here], lengths[here] = lists_as_rows(lists, width=HASHES_PER_CLIP)

        wanted = np.flatnonzero(np.diff(edges)).tolist()
        for done, _ in enumerate(self.corpus.in_order(read, wanted), start=1):
            self.progress("look-alikes", done, len(wanted))
        return hashes, lengths

    def _members(self, positions: np.ndarray, groups: np.ndarray, extent: Extent) -> pa.Table:
        """Position, group and id of clips that are in a group."""
        return pa.table(
            {
                "position": pa.array(positions),
                "group_number": pa.array(groups),
                "clip_id": ids_of(self.corpus, positions, extent),
            }
        )

    def _drop_semantic(self, name: str, extent: Extent, clusters: Clustering) -> Duplicates:
        """Of clips of a cluster that show the same keep the best, one that shards hold before all others."""
        max_distance = self.plan.config.clusters.duplicate_distance
        if not max_distance:
            return Duplicates.none()
        exported = exported_positions(self.corpus, name, clusters.positions, extent)
        ranked = self.table.ranked(exported)
        pairs = semantic_duplicates(clusters, ranked, max_distance)
        self.table.fail(SEMANTIC_RULE, pa.chunked_array([pa.array(pairs[:, 0])]))
        kept, which = np.unique(pairs[:, 1], return_inverse=True)
        ids = ids_of(self.corpus, kept, extent).combine_chunks()
        return Duplicates(pairs[:, 0], ids.take(pa.array(which)), len(kept))

    def _drop_surplus(self) -> None:
        """Apply the limits on clips of one source, of one caption and of one category."""
        balance = self.plan.config.balance
        if balance.max_per_source is not None:
            surplus = self.table.surplus("source", balance.max_per_source)
            self.table.fail(SOURCE_CAP_RULE, surplus)
        if balance.max_per_caption is not None:
            surplus = self.table.surplus("caption", balance.max_per_caption)
            self.table.fail(CAPTION_CAP_RULE, surplus)
        if balance.max_per_category is not None:
            surplus = self.table.surplus("category", balance.max_per_category)
            self.table.fail(CATEGORY_CAP_RULE, surplus)

    def _splits(self, name: str, sources: pa.Table, pairs: list[np.ndarray]) -> np.ndarray:
        """The split of each source: copies, and sources of clips that are pairs, stay together."""
        digests = sources["source_sha256"].combine_chunks()
        codes = digests.dictionary_encode().indices.fill_null(-1).to_numpy()
        known = np.flatnonzero(codes >= 0)
        _, first, of_known = np.unique(codes[known], return_index=True, return_inverse=True)
        copies = np.stack([known, known[first[of_known]]], axis=1)
        clips, which = np.unique(np.concatenate(pairs), return_inverse=True)
        of_pairs = self.table.sources_of(clips)[which.reshape(-1, 2)]
        groups = grouped(
            np.concatenate([copies, of_pairs]),
            sources.num_rows,
            self.table.kept_of_source(sources.num_rows),
        )
        then = exported_splits(self.corpus.store, name)
        earlier = {digest: SPLITS.index(split) for digest, split in then.items()}
        return source_splits(groups, digests, earlier, self.plan.config.splits)

    def _weights(self, categories: Codes, clusters: Clustering) -> np.ndarray | None:
        """Sampling weight of each category or cluster; None where all are 1."""
        balance = self.plan.config.balance
        if balance.weight_by_category:
            return _one_over_root(dict(self.table.category_counts()), len(categories))
        if balance.weight_by_cluster:
            kept = clusters.of(self.table.kept_positions())
            counts = np.bincount(kept[kept >= 0])
            pairs = {code: n for code, n in enumerate(counts.tolist()) if n}
            return _one_over_root(pairs, len(counts))
        return None

    def _count(self, sources: pa.Table, verdicts: Verdicts) -> Funnel:
        by_failed = self.table.amounts("failed")
        kept = by_failed.get(0, Amount())
        rejected = sum((a for failed, a in by_failed.items() if failed), Amount())
        tiers = self.table.amounts("tier", "failed = 0") if verdicts.tiers else {}
        buckets = self.table.amounts("bucket", "failed = 0")
        uses_category = self.plan.config.balance.uses_category
        by_split = self.table.split_amounts(verdicts.splits)
        return Funnel(
            sources=sources.num_rows,
            sources_rejected=count_words(sources["source_reject"]),
            clips=kept + rejected,
            kept=kept,
            rejected=rejected,
            steps=make_steps(self.plan.step_names(), by_failed),
            duplicate_groups=verdicts.duplicates.num_groups,
            tiers={["", *verdicts.tiers][number]: amount for number, amount in tiers.items()},
            buckets={verdicts.buckets[number]: amount for number, amount in buckets.items()},
            splits={
                ([*SPLITS, ""])[number]: by_split[number]
                for number in sorted(by_split, key=lambda number: number % 4)
            },
            uncategorised=self.table.num_uncategorised() if uses_category else None,
            skipped=tuple(asdict(one) for one in self.plan.config.skipped),
        )


def _one_over_root(counts: dict[int, int], num_codes: int) -> np.ndarray:
    """1 / sqrt(kept clips) for each code, scaled so that the mean over these clips is 1."""
    # Over clips, 1 / sqrt(n of its category) sums up to the categories' sqrt(n); fsum, because
    # codes are dealt as threads come.
    total, roots = sum(counts.values()), math.fsum(n**0.5 for n in counts.values())
    weights = np.zeros(num_codes + 1, dtype=np.float32)
    weights[-1] = 1.0  # of clips without one, whose code is -1
    for code, n in counts.items():
        weights[code] = total / (roots * n**0.5)
    return weights


def _as_array(values: np.ndarray | pa.Array) -> pa.Array:
    return values if isinstance(values, pa.Array) else pa.array(values)
