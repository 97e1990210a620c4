"""Cutting the kept clips and packing them into WebDataset shards.

::

    shard_plan   which clip goes into which shard: `plan_shards`, one `ShardPlan` a shard
    clips        one clip, cut out of its source
    facts        the .json of a sample
    tar          a tar that says where each member's bytes lie
    write        one shard: cut its clips, pack them, commit: `ShardWriter`
    outdated     which samples tell of their clips what is no longer so
    rewriting    shards written anew: without removed samples, or with today's texts
    finish       index.parquet and manifest.json over all shards: `finish_shards`

An export adds a generation: the kept clips that no shard holds yet (`curation.corpus.generations`).
A shard is the unit of work. It is committed by its Parquet file, written after its tar; a killed
run leaves at most a tar without one, which the next run writes over with the same bytes.
"""

from __future__ import annotations

from curation.export.clips import EXPORT_REJECTS, ExportConfig
from curation.export.finish import finish_shards, plan_of
from curation.export.outdated import FactsOfToday, facts_of_parts
from curation.export.rewriting import with_facts_of_today, without_clips
from curation.export.shard_plan import ShardPlan, plan_shards
from curation.export.write import ShardWriter

__all__ = [
    "EXPORT_REJECTS",
    "ExportConfig",
    "FactsOfToday",
    "ShardPlan",
    "ShardWriter",
    "facts_of_parts",
    "finish_shards",
    "plan_of",
    "plan_shards",
    "with_facts_of_today",
    "without_clips",
]
