"""The query engine's side: one table with a row a clip, and all that is asked of it.

A clip's `failed` has bit i set for the plan's rule i; 0 means kept.
"""
# ruff: noqa: S608  what is spliced in: numbers, our own names, and rules as `sql` quotes them

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from curation.corpus.scratch import scratch_folder
from curation.select.funnel import Amount
from curation.select.query import Plan
from curation.select.rules import COPY_RULE, Rule
from curation.select.sql import (
    IS_IMAGE,
    Bounds,
    applies_sql,
    bucket_sql,
    failed_sql,
    pass_sql,
    tier_sql,
    value_sql,
)

if TYPE_CHECKING:
    import duckdb

BEST_FIRST = "tier DESC, quality DESC NULLS LAST, pixels DESC, position"
"""SQL of the order in which clips are kept, as `Balance` says."""
VERDICT_ROWS = 1 << 17
"""Rows of one piece of the answer: 3 MB of verdicts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectResources:
    """What a selection may use; the result does not depend on it."""

    threads: int = 2
    """Threads that read and write, and threads that the query engine computes with."""
    memory_bytes: int = 3 * 1024**3
    """Memory of the query engine, which goes to disk beyond it.

    Comparing look-alikes takes about 150 bytes a clip that passes all rules on top of it, reading
    and writing some hundred MB.
    """
    temp_folder: Path | None = None
    """Where the query engine may write; a folder of the system's choice if not given."""

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise ValueError(f"threads must be at least 1, got {self.threads}")
        if self.memory_bytes < 128 * 1024**2:
            raise ValueError(f"memory_bytes must be at least 128 MiB, got {self.memory_bytes}")


_FULL = re.compile("No space left on device|Disk quota exceeded")


@contextmanager
def open_table(plan: Plan, resources: SelectResources) -> Iterator[ClipTable]:
    """An empty table, which is gone at the end."""
    import duckdb

    with scratch_folder("lavie-select-", place=resources.temp_folder) as temp:
        settings: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": f"{resources.memory_bytes // 1024**2}MiB",
            "temp_directory": str(temp),
            "threads": resources.threads,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        with duckdb.connect(":memory:", config=settings) as connection:
            # From here on only what is registered can be read; the folder above stays allowed.
            connection.execute("SET enable_external_access = false")
            try:
                yield ClipTable(plan, connection)
            except duckdb.Error as error:  # what it wrote there found no room
                if _FULL.search(str(error)):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(temp)) from error
                raise


class ClipTable:
    """Clips and which rules they fail.

    Args:
        plan: the rules.
        connection: of a fresh engine.
    """

    def __init__(self, plan: Plan, connection: duckdb.DuckDBPyConnection) -> None:
        self.plan, self._connection = plan, connection

    def _do(self, statement: str, **tables: pa.Table | pa.RecordBatchReader) -> None:
        """Run a statement that may name some Arrow tables."""
        for name, table in tables.items():
            self._connection.register(name, table)
        self._connection.execute(statement).fetchall()
        for name in tables:
            self._connection.unregister(name)

    def _rows(self, query: str) -> list[Any]:
        """A short answer."""
        return self._connection.execute(query).fetchall()

    def _arrow(self, query: str) -> pa.Table:
        """A long answer."""
        return self._connection.sql(query).to_arrow_table()

    def load(self, clips: pa.RecordBatchReader, *, with_copies: bool) -> dict[Rule, Bounds]:
        """Evaluate rules, tiers and buckets of all clips; only what comes later stays.

        Rules with plain bounds are evaluated while clips stream by. The values that quantiles are
        taken of, and a number for each caption, stay until all are there, so that the corpus is read
        once.

        Args:
            clips: the plan's columns, `position`, `source`, `category_code` where the plan uses
                categories, and `is_copy` if ``with_copies``.
            with_copies: whether clips of copied sources fail.

        Returns:
            The quantiles' values.
        """
        config = self.plan.config
        passes = {0: "scene_reject IS NULL"}
        passes |= _plain(enumerate(config.rules, start=1))
        passes |= {self.plan.names.index(COPY_RULE): "NOT is_copy"} if with_copies else {}
        quality = value_sql(config.quality_column) if config.quality_column else "0"
        category = "category_code" if config.balance.uses_category else "0"
        caption = _caption_key() if self.plan.counts_captions else "NULL"
        values = [
            f"{value_sql(rule.column)} AS {name}"
            for rule, name in self._late_values().items()
            if name != "caption_count"
        ]
        self._do(
            f"""CREATE TABLE loaded AS SELECT position, source::INTEGER AS source,
                round(duration_s::DOUBLE * 1000)::INTEGER AS duration_ms, {IS_IMAGE} AS is_image,
                {failed_sql(passes)} AS failed,
                {failed_sql(_plain(enumerate(self.plan.tier_rules)))} AS tier_failed,
                {bucket_sql(config.buckets)} AS bucket, (width::BIGINT * height)::INTEGER AS pixels,
                ({quality})::DOUBLE AS quality, {category}::INTEGER AS category,
                {caption}::UBIGINT AS caption, NULL::INTEGER AS caption_count
                {"".join(f", {value}" for value in values)}
            FROM stream""",
            stream=clips,
        )
        if self.plan.counts_captions:
            self._count_captions()
        bounds = self._quantiles()
        failed = f"(failed | {self._late(enumerate(config.rules, start=1), bounds)})"
        # A scene that was rejected fails that alone: most scores are never taken of it.
        failed = f"(CASE WHEN failed & 1 = 1 THEN 1 ELSE {failed} END)::BIGINT"
        tier_failed = f"(tier_failed | {self._late(enumerate(self.plan.tier_rules), bounds)})"
        self._do(
            f"""CREATE TABLE clips AS SELECT position, source, duration_ms, is_image,
                {failed} AS failed, {tier_sql(config.tiers, tier_failed)} AS tier, bucket, pixels,
                quality, category, caption, caption_count FROM loaded"""
        )
        self._do("DROP TABLE loaded")
        return bounds

    def _late_values(self) -> dict[Rule, str]:
        """Where `loaded` has the values of the rules that are asked late."""
        return {
            rule: "caption_count" if rule.column == "caption_count" else f"value_{number}"
            for number, rule in enumerate(self.plan.late_rules)
        }

    def _count_captions(self) -> None:
        """Fill in how many scenes that are no rejects have each one's caption."""
        self._do(
            """CREATE TABLE caption_counts AS SELECT caption, count(*)::INTEGER AS number
            FROM loaded WHERE failed & 1 = 0 AND caption IS NOT NULL
            GROUP BY caption HAVING count(*) > 1"""
        )
        self._do(
            """UPDATE loaded SET caption_count = CASE WHEN caption IS NULL THEN 0 ELSE 1 END
            WHERE failed & 1 = 0"""
        )
        self._do(
            """UPDATE loaded SET caption_count = number FROM caption_counts
            WHERE loaded.caption = caption_counts.caption AND failed & 1 = 0"""
        )
        self._do("DROP TABLE caption_counts")

    def _quantiles(self) -> dict[Rule, Bounds]:
        """Values of the quantiles that the plan's rules ask for, among clips that are scenes."""
        late = self.plan.quantile_rules
        values, names = [], self._late_values()
        for rule in late:
            among = f"FILTER (WHERE failed & 1 = 0 AND {applies_sql(rule, is_image='is_image')})"
            for quantile in (rule.min_quantile, rule.max_quantile):
                share = f"{quantile!r}::DOUBLE"
                values.append(
                    "NULL" if quantile is None else f"quantile_disc({names[rule]}, {share}) {among}"
                )
        if not values:
            return {}
        (row,) = self._rows(f"SELECT {', '.join(values)} FROM loaded")
        found = [None if value is None else float(value) for value in row]
        return {rule: (found[2 * n], found[2 * n + 1]) for n, rule in enumerate(late)}

    def _late(self, rules: Iterable[tuple[int, Rule]], bounds: dict[Rule, Bounds]) -> str:
        """SQL of the bits of the rules that are asked late."""
        late = self._late_values()
        return failed_sql(
            {
                bit: pass_sql(
                    rule, bounds.get(rule, (None, None)), value=late[rule], is_image="is_image"
                )
                for bit, rule in rules
                if rule.is_late
            }
        )

    def kept_positions(self) -> np.ndarray:
        """Positions of the clips that fail nothing so far, rising."""
        found = self._arrow("SELECT position FROM clips WHERE failed = 0")["position"]
        return np.sort(found.to_numpy())

    def ranked(self, exported: np.ndarray) -> np.ndarray:
        """Positions of the clips that fail nothing so far, the best first, as `Balance` ranks them.

        Args:
            exported: positions of those that go before all others.
        """
        self._connection.register("exported", pa.table({"position": pa.array(exported)}))
        found = self._arrow(
            f"""SELECT position FROM clips WHERE failed = 0
            ORDER BY position IN (SELECT position FROM exported) DESC, {BEST_FIRST}"""
        )
        self._connection.unregister("exported")
        return found["position"].to_numpy().astype(np.int64)

    def best_of(self, members: pa.Table) -> pa.Table:
        """For each clip that has look-alikes, which of them is kept.

        Args:
            members: `position`, `group_number`, `clip_id`, `is_exported`.

        Returns:
            `position` (rising), `kept_id`, `is_kept`. Kept is one that lies in the selection's
            shards already, then the one with most pixels, then the highest quality column, then the
            first clip id.
        """
        self._connection.register("members", members)
        best = self._arrow(
            """SELECT position, first_value(clip_id) OVER best AS kept_id,
                row_number() OVER best = 1 AS is_kept
            FROM members JOIN clips USING (position)
            WINDOW best AS (PARTITION BY group_number
                ORDER BY is_exported DESC, pixels DESC, quality DESC NULLS LAST, clip_id, position)
            ORDER BY position"""
        )
        self._connection.unregister("members")
        return best

    def sources_of(self, positions: np.ndarray) -> np.ndarray:
        """Number of the source of each clip, int64; positions rise."""
        wanted = pa.table({"position": pa.array(positions)})
        self._connection.register("wanted", wanted)
        found = self._arrow(
            "SELECT clips.source FROM wanted JOIN clips USING (position) ORDER BY position"
        )
        self._connection.unregister("wanted")
        return found["source"].to_numpy().astype(np.int64)

    def kept_of_source(self, num_sources: int) -> np.ndarray:
        """Kept videos of each source, int64 ``[S]``; kept pictures where no video is kept."""
        rows = self._arrow(
            """SELECT source, count(*) FILTER (WHERE NOT is_image) AS videos,
                count(*) FILTER (WHERE is_image) AS images
            FROM clips WHERE failed = 0 GROUP BY source"""
        )
        counts = np.zeros((2, num_sources), np.int64)
        for number, kind in enumerate(("videos", "images")):
            counts[number, rows["source"].to_numpy()] = rows[kind].to_numpy()
        return counts[0] if counts[0].any() else counts[1]

    def split_amounts(self, of_source: np.ndarray) -> dict[int, Amount]:
        """Kept clips of each split, by the split of their sources."""
        splits = pa.table(
            {
                "source": pa.array(np.arange(len(of_source), dtype=np.int32)),
                "split": pa.array(of_source),
            }
        )
        self._connection.register("splits", splits)
        rows = self._rows(
            """SELECT split, count(*), count(*) FILTER (WHERE is_image), sum(duration_ms)::BIGINT
            FROM clips JOIN splits USING (source) WHERE failed = 0 GROUP BY ALL ORDER BY ALL"""
        )
        self._connection.unregister("splits")
        return {k: Amount(clips=n, images=i, duration_ms=d or 0) for k, n, i, d in rows}

    def surplus(self, column: str, limit: int) -> pa.ChunkedArray:
        """Positions of kept clips beyond the best ``limit`` of each value of a column; null is none."""
        table = self._arrow(
            f"""SELECT position FROM (SELECT position, row_number() OVER (
                PARTITION BY {column}
                ORDER BY {BEST_FIRST}) AS place
            FROM clips WHERE failed = 0 AND {column} IN (SELECT {column} FROM clips
                WHERE failed = 0 GROUP BY {column} HAVING count(*) > {limit}))
            WHERE place > {limit}"""
        )
        return table["position"]

    def fail(self, rule: str, positions: pa.ChunkedArray) -> None:
        """Let some clips fail a rule."""
        self._do(
            f"""UPDATE clips SET failed = failed | {self.plan.bit(rule)}::BIGINT
            FROM losers WHERE clips.position = losers.position""",
            losers=pa.table({"position": positions}),
        )

    def amounts(self, key: str, where: str = "true") -> dict[int, Amount]:
        """How many clips have each value of a column."""
        rows = self._rows(
            f"""SELECT {key}, count(*), count(*) FILTER (WHERE is_image), sum(duration_ms)::BIGINT
            FROM clips WHERE {where} GROUP BY ALL ORDER BY ALL"""
        )
        return {k: Amount(clips=n, images=i, duration_ms=d or 0) for k, n, i, d in rows}

    def category_counts(self) -> list[tuple[int, int]]:
        """Kept clips of each category code; those without a category have none."""
        return self._rows(
            "SELECT category, count(*) FROM clips WHERE failed = 0 AND category IS NOT NULL "
            "GROUP BY ALL ORDER BY ALL"
        )

    def num_uncategorised(self) -> int:
        """Kept clips without a category."""
        ((count,),) = self._rows("SELECT count(*) FROM clips WHERE failed = 0 AND category IS NULL")
        return int(count)

    def verdicts(self) -> pa.RecordBatchReader:
        """`position`, `source`, `failed`, `tier`, `bucket`, `category` (-1 for none), `caption_count`.

        In the clips' order.

        The engine keeps the order of insertion; the writer asserts it.
        """
        query = """SELECT position, source, failed, tier, bucket,
            coalesce(category, -1) AS category, caption_count FROM clips"""
        return self._connection.sql(query).to_arrow_reader(VERDICT_ROWS)


def _caption_key() -> str:
    """SQL of a number that stands for a clip's caption; null where there is none.

    Of 64 bits, instead of the text, which would not fit into memory: that two of 25 million captions
    share one has a probability of 2e-5.
    """
    return "(CASE WHEN trim(caption::VARCHAR) <> '' THEN hash(caption::VARCHAR) END)"


def _plain(rules: Iterable[tuple[int, Rule]]) -> dict[int, str]:
    """Bit -> SQL of the rules that need no other clip."""
    return {bit: pass_sql(rule) for bit, rule in rules if not rule.is_late}
