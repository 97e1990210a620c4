"""`lavie curate --dry-run`: what a run would read, make and find done. Writes nothing, not even a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table

from curation.corpus import layout
from curation.corpus.ledger import Ledger
from curation.corpus.store import Store
from curation.select import SelectConfig
from pipelines.corpus import deal_sources, existing
from pipelines.curate import HowToRun, among, grown
from pipelines.curation_config import RiverConfig
from pipelines.recording import check_sources_are_there
from pipelines.rejects import Rejects, num_to_cut_again
from pipelines.retry import Retries

NAMED = 5


def show(
    store: Store,
    sources: pa.Table,
    how: HowToRun,
    *,
    config: RiverConfig,
    console: Console,
) -> None:
    """Print the sources, the parts, and each layer with how much of it is there.

    What the run would be refused for is raised here as there.

    Args:
        store: where the corpus is or would be.
        sources: what was listed.
        how: what the run would be told.
        config: its settings.
        console: where to print.

    Raises:
        CorpusError: as `pipelines.curate.measure` does before any work.
    """
    info, ledger, most = existing(store), Ledger(store, is_read_only=True), config.sources_per_part
    dealing = deal_sources(
        ledger, sources, sources_per_part=most, bytes_per_part=config.bytes_per_part
    )
    new, there, made = dealing.new, dealing.parts_before, len(dealing.starts)
    _say(console, "dry run: nothing is written")
    config, configured, current = grown(ledger, config, dealing.num_parts, how, console)
    layers = configured.layers
    if there:
        check_sources_are_there(ledger, there)
    retries = Retries(ledger, configured.stations, layers, current, there)
    renewed = retries.rejected_among(dealing.changed, dealing.known) if dealing.changed else {}
    unchanged = sources.filter(pc.invert(among(sources, dealing.changed)))
    retries.check_none_left_behind(
        unchanged, dealing.known, retry_failed=how.retry_failed, renewed=renewed
    )
    _say(console, f"output: {store.root} ({f'a corpus of {there} parts' if info else 'new'})")
    images = pc.sum(pc.equal(sources["media"], "image")).as_py() or 0
    size_mb = (pc.sum(sources["size_bytes"]).as_py() or 0) / 1e6
    _say(
        console,
        f"sources: {len(sources):,} ({len(sources) - images:,} videos and {images:,} images by name, "
        f"{size_mb:,.1f} MB where known); {len(new):,} new, {len(sources) - len(new):,} known",
    )
    _name(console, new["uri"].to_pylist())
    if dealing.changed:
        Rejects(
            changed={uri: what for uri, what in dealing.changed.items() if uri not in renewed},
            renewed={} if how.retry_failed else {uri: dealing.changed[uri] for uri in renewed},
        ).say_changes(console)
    counts, parts = retries.other_texts(unchanged, dealing.known)
    if counts:
        numbers = ", ".join(f"{n:,} {name}" for name, n in counts.items())
        _say(
            console,
            f"known sources that get other texts from the list: {numbers}; in {len(parts):,} parts the rows "
            "that are made of them are made anew, in finished shards too",
        )
    if how.retry_failed and there:
        _say_tried_again(console, retries, renewed)
    _say(console, f"parts: {there:,} there, {made:,} to add, up to {most:,} sources each")
    table = Table(title="layers")
    table.add_column("layer", overflow="fold")
    table.add_column("parts done", justify="right")
    table.add_column("parts to do", justify="right")
    for name, layer_id in layers.items():
        done = len(store.files(f"layers/{layer_id}")) if info else 0
        table.add_row(name, f"{done:,}", f"{there + made - done:,}")
    console.print(table)


def _say_tried_again(console: Console, retries: Retries, renewed: Mapping[str, int]) -> None:
    sources, captions = retries.failed_sources(renewed), retries.failed_captions()
    uris = [uri for rows in sources.values() for uri in rows.values()]
    num_captions = sum(map(len, captions.values()))
    _say(console, f"tried again: {len(uris):,} sources, {num_captions:,} captions")
    _name(console, uris)


def _name(console: Console, uris: Sequence[str]) -> None:
    """The first of some sources."""
    for uri in uris[:NAMED]:
        _say(console, f"  {uri}")
    if len(uris) > NAMED:
        _say(console, f"  ... and {len(uris) - NAMED:,} more")


def show_selection(
    store: Store, name: str, config: SelectConfig, steps: Sequence[str], console: Console
) -> None:
    """Print the rules, and what is there of the steps after measuring.

    Args:
        store: where the corpus is or would be.
        name: of the selection.
        config: its rules.
        steps: those of select, export and report that the run would do.
        console: where to print.
    """
    if "select" in steps:
        _say(console, f"selection {name}: {len(config.rules)} rules")
        for rule in config.rules:
            _say(console, f"  {rule.label}: {rule.describe()}")
    made = {
        "select": f"{layout.selection(name)}/rules.json",
        "export": layout.shard_manifest(name),
        "report": f"{layout.report(name)}/index.html",
    }
    for step in steps:
        state = "there, brought up to date" if store.exists(made[step]) else "to be made"
        if step == "export" and (failed := num_to_cut_again(store, name)):
            state += f"; {failed:,} clips that could not be cut may be: --retry-failed tries them"
        _say(console, f"{step}: {made[step].rpartition('/')[0]}, {state}")


def _say(console: Console, line: str) -> None:
    console.print(line, soft_wrap=True, highlight=False, markup=False)
