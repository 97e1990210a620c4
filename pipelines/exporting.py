"""The command export as a function: clips that no shard holds yet are cut, by Ray's workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rich.console import Console

from curation.corpus import layout
from curation.corpus.generations import read_plans, shards_state
from curation.corpus.manifest import CorpusInfo
from curation.corpus.parts import read_table
from curation.corpus.store import Store
from curation.errors import NothingToDo
from curation.export import ExportConfig, ShardWriter, plan_shards
from curation.sources import SeenFolders, WebClient, is_web
from curation.stations.station import Resources
from pipelines.costs import costs_table
from pipelines.curate import QUIET, HowToRun
from pipelines.host_turns import RayTurns, shared_turns
from pipelines.jobs import ExportJob
from pipelines.moved import moved_sources
from pipelines.progress import ProgressBars
from pipelines.ray_cluster import start_ray
from pipelines.refresh import finish_anew, refresh_shards
from pipelines.run import Stage, run_stages


def export(
    store: Store,
    info: CorpusInfo,
    selection: str,
    config: ExportConfig,
    *,
    console: Console = QUIET,
    how: HowToRun | None = None,
) -> dict[str, Any]:
    """Cut the selected clips that no shard holds yet, into new shards; returns the manifest.

    With ``how.retry_failed`` also those that earlier exports could not cut for reasons that may pass; one
    that was begun ends first. Shards whose clips have got other texts since are written anew
    (`pipelines.refresh`).
    """
    how = how or HowToRun()
    state = shards_state(store, selection) if how.retry_failed else None
    if state is not None and state.is_unfinished:
        begun = replace(how, retry_failed=False)
        export(store, info, selection, config, console=console, how=begun)
    plans = list(plan_shards(store, info, selection, config, retry_failed=how.retry_failed))
    if not plans and not read_plans(store, selection):
        raise NothingToDo(f"selection {selection!r} keeps no clip: there is nothing to export")
    writer = ShardWriter(store, info, selection, config)
    uris = [
        uri
        for part in range(info.num_parts)
        for uri in read_table(store, layout.sources(part), ["uri"])["uri"].to_pylist()
    ]
    writer.seen = SeenFolders.of(uris)
    writer.web = WebClient(how.web, RayTurns())
    done = frozenset(number for number, plan in enumerate(plans) if writer.is_done(plan))
    if len(done) < len(plans):
        writer.moved = moved_sources(store, info, how.moved_to)
    stage = Stage(
        name="export",
        job=ExportJob(writer),
        resources=Resources(cpus=config.threads),
        units=range(len(plans)),
        done=done,
        plans=plans,
    )
    if len(done) < len(plans):
        start_ray(how.ray_address)
        asks_web = any(map(is_web, uris))
        with shared_turns(asks_web), ProgressBars(console, unit="shards") as bars:
            costs = run_stages([stage], bars)
        console.print(costs_table(costs))
    manifest = finish_anew(store, selection)
    for line in growth_lines(manifest, has_new=bool(plans)):
        console.print(line, highlight=False, soft_wrap=True)
    return refresh_shards(store, info, selection, console=console) or manifest


def growth_lines(manifest: Mapping[str, Any], *, has_new: bool) -> list[str]:
    """What an export added to shards that there were, and what the selection no longer keeps."""
    lines = []
    newest, fallen = manifest["generations"][-1], manifest["num_no_longer_selected"]
    if not has_new:
        lines.append("all clips that the selection keeps were exported before: no new shards")
    elif newest["generation"] > 1:
        lines.append(
            f"generation {newest['generation']} of the shards: {newest['num_clips']:,} new clips in "
            f"{newest['num_shards']:,} new tars; the tars before it stay as they were"
        )
    if fallen:
        lines.append(
            f"{fallen:,} exported clips are no longer selected: they stay in their tars, and the index "
            f"says so (still_selected), so that training leaves them out"
        )
    return lines
