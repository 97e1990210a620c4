"""What `lavie curate` and the commands of its single steps share: rules as typed, and the steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from curation.corpus import layout
from curation.corpus.manifest import CorpusInfo
from curation.corpus.store import Store
from curation.errors import UsageError, typed
from curation.export import ExportConfig
from curation.report import ReportConfig, write_report
from curation.select import (
    Funnel,
    SelectConfig,
    SelectResources,
    change_rules,
    check_selection,
    parse_rule,
    select,
)
from curation.select.rules import known_columns, no_such_column
from curation.select.sql import check_types
from pipelines.progress import PartBar
from pipelines.rejects import say_failed_clips

if TYPE_CHECKING:
    from pipelines.commands.curation import Curate
    from pipelines.commands.selection import Export, Select

EXIT_NOT_ALL = 1
"""Done, but for parts or sources that were named."""

EXIT_PASSING = 3
"""All steps were done, and sources or clips are left that `--retry-failed` may read."""


def new_console() -> Console:
    """Where a command tells what it does."""
    return Console(stderr=False)


def selection_typed(start: SelectConfig, typed_flags: Curate | Select) -> SelectConfig:
    """A preset's or recipe's selection with all that the user typed."""
    changed = changed_rules(start, add=typed_flags.rule, drop=typed_flags.drop_rule)
    return replace(
        changed,
        dedup=typed_flags.dedup,
        balance=typed_flags.balance,
        buckets=typed_flags.buckets,
        splits=typed_flags.splits,
        clusters=typed_flags.clusters,
        quality_column=typed_flags.quality_column or changed.quality_column,
    )


def changed_rules(config: SelectConfig, *, add: Sequence[str], drop: Sequence[str]) -> SelectConfig:
    """A selection with the rules that the user typed.

    Raises:
        UsageError: for a rule that cannot be read or dropped.
    """
    with typed("--drop-rule"):
        config = change_rules(config, drop=drop)
    with typed("--rule"):
        return change_rules(config, add=[parse_rule(text) for text in add])


def check_name(name: str, flag: str) -> None:
    """Raise `UsageError` for a name that cannot be a selection's."""
    with typed(flag):
        layout.check_selection_name(name)


def check_rules(info: CorpusInfo, name: str, config: SelectConfig, flag: str) -> None:
    """Check the selection's name and rules as they were typed, before any work."""
    check_name(name, flag)
    with typed("--rule"):
        check_types(config.rules)
    named = {
        "--quality-column": config.quality_column,
        "--balance.category-column": config.balance.category_column,
    }
    for column_flag, column in named.items():
        if column is not None and column not in known_columns():
            raise UsageError(f"{column_flag}: {no_such_column(column)}")
    with typed("selection"):
        check_selection(info, name, config)


def funnel_table(funnel: Funnel) -> Table:
    """The funnel for a terminal: what each rule leaves, and what it removes alone and as the only one.

    Numbers are never cut: where a line is narrow, names and what they allow go over several.
    """
    table = Table(
        title=f"funnel: {funnel.sources:,} sources, {funnel.clips.clips:,} scenes",
        box=SIMPLE_HEAD,
    )
    table.add_column("rule: what it allows", overflow="fold", min_width=20)
    for header in ("clips", "hours", "share", "fail it", "only it"):
        table.add_column(header, justify="right", no_wrap=True)
    total = funnel.clips
    table.add_row("all scenes", f"{total.clips:,}", _hours(total.hours), "100.0%", "", "")
    for step in funnel.steps:
        table.add_row(
            Text(step.rule) + Text(f": {step.allows}", style="dim"),
            f"{step.left.clips:,}",
            _hours(step.left.hours),
            f"{step.share_left:.1%}",
            f"{step.removed_alone.clips:,}",
            f"{step.removed_only.clips:,}",
        )
    for one in funnel.skipped:
        about = f": {one['allows']}; skipped, the corpus lacks {one['column']} ({one['station']})"
        table.add_row(Text(one["name"]) + Text(about, style="dim"), "", "", "", "", "")
    said = [f"{name or 'none'} {amount.clips:,}" for name, amount in funnel.splits.items()]
    notes = [f"splits of the kept clips: {', '.join(said)}"] if said else []
    if funnel.uncategorised:
        # A quota that nothing falls under must not look like one that was kept.
        notes.append(
            f"{funnel.uncategorised:,} of {funnel.kept.clips:,} kept clips have no category, so limits and "
            "weights by category pass them by; the station 'taxonomy' (engine clip) gives one"
        )
    table.caption = "\n".join(notes)
    return table


def _hours(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 1000 else f"{hours:.3f}"


def select_clips(
    store: Store,
    info: CorpusInfo,
    name: str,
    config: SelectConfig,
    console: Console,
    *,
    resources: SelectResources | None = None,
) -> None:
    """Select, with a bar, and print the funnel."""
    with PartBar(console) as bar:
        funnel = select(store, info, name, config, resources=resources, on_progress=bar.advance)
    console.print(funnel_table(funnel))


def export_clips(
    store: Store,
    info: CorpusInfo,
    how: Curate | Export,
    config: ExportConfig,
    console: Console,
    *,
    moved_to: Sequence[str] = (),
) -> int:
    """Export; returns how many selected clips could not be cut for reasons that may pass."""
    from pipelines import curate, exporting

    manifest = exporting.export(
        store,
        info,
        how.selection,
        config,
        console=console,
        how=curate.HowToRun(
            ray_address=how.ray_address,
            retry_failed=how.retry_failed,
            web=how.web,
            moved_to=moved_to,
        ),
    )
    console.print(
        f"shards: {store.root}/{layout.shards(how.selection)} "
        f"({manifest['num_clips']:,} clips in {manifest['num_shards']:,} tars, "
        f"{manifest['num_failed']:,} could not be cut)",
        soft_wrap=True,
        highlight=False,
    )
    return say_failed_clips(store, how.selection, console) if manifest["num_failed"] else 0


def report_clips(
    store: Store, info: CorpusInfo, selection: str, config: ReportConfig, console: Console
) -> None:
    """Write the report of a selection, and say where its files are."""
    paths = write_report(store, info, selection, config)
    console.print(f"report: {store.root}/{paths.page}", soft_wrap=True, highlight=False)
    console.print(f"numbers: {store.root}/{paths.statistics}", soft_wrap=True, highlight=False)
    console.print(f"rejected: {store.root}/{paths.rejects}", soft_wrap=True, highlight=False)
