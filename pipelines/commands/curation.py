"""curate, select, export, report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, Positional, UseAppendAction, arg

from curation.corpus import layout
from curation.corpus.gap import Gap, find_gap
from curation.corpus.ledger import Ledger
from curation.corpus.manifest import CorpusInfo, read_corpus
from curation.corpus.removal import read_removed
from curation.corpus.selection import read_rules
from curation.corpus.store import Store, is_remote
from curation.errors import NothingToDo, UsageError, typed
from curation.export import ExportConfig
from curation.report import ReportConfig, write_report
from curation.select import (
    Balance,
    Buckets,
    Clusters,
    Dedup,
    Funnel,
    SelectConfig,
    SelectResources,
    Splits,
    change_rules,
    check_selection,
    parse_rule,
    select,
    without_missing,
)
from curation.select.rule_presets import PRESETS as RECIPES
from curation.select.rule_presets import RecipeName
from curation.select.rules import known_columns, no_such_column
from curation.select.sql import check_types
from curation.sources import WebConfig, local_path
from pipelines.advice import take_in
from pipelines.corpus import existing
from pipelines.curation_config import CurationConfig
from pipelines.growing import OnIncomplete, PlannedShards, preset_named
from pipelines.listing import ListingConfig, listed
from pipelines.locking import command_line, locked
from pipelines.logs import LogAs, log_as
from pipelines.places import check_writable, store_at
from pipelines.presets import PRESETS, PresetName
from pipelines.progress import PartBar
from pipelines.rejects import say_failed_clips

if TYPE_CHECKING:
    from pipelines.curate import HowToRun
    from pipelines.run import UnitsFailed

STEPS = ("measure", "select", "export", "report")
EXIT_NOT_ALL = 1
"""Done, but for parts or sources that were named."""
EXIT_PASSING = 3
"""All steps were done, and sources or clips are left that `--retry-failed` may read."""


def _console() -> Console:
    return Console(stderr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Curate:
    """Raw videos and images -> corpus, selection, shards and report, in one go.

    $ lavie curate films/ --out corpus
    $ lavie curate films/ --out corpus --rule 'motion_mean>=q0.25' --dry-run
    $ lavie curate s3://raw/2023 --out s3://lavie/corpus --ray-address auto

    Run the same command again after an interruption: nothing is done twice.

    Flags that matter stand first; each step's and station's follow by its name.
    """

    sources: Annotated[Positional[tuple[str, ...]], arg(metavar="SOURCE [SOURCE ...]")]
    """Files, folders, globs, s3://, gs:// or hf:// prefixes, http(s):// addresses, and lists (.csv .jsonl
    .parquet) of sources."""
    out: Annotated[str, arg(metavar="CORPUS")]
    """Folder or object-store prefix of the corpus."""
    preset: PresetName = "embedded"
    """Where the defaults of all other flags come from; `lavie doctor` says what each needs."""
    dry_run: Annotated[bool, FlagCreatePairsOff] = False
    """Say what would be read and made and what is done already; write nothing."""
    until: str = "report"
    """Stop after this step: measure, select, export or report."""
    retry_failed: Annotated[bool, FlagCreatePairsOff] = False
    """Try again what failed in earlier runs for reasons that may pass: sources that were not found,
    unreadable or too slow, or whose decoder died, captions, and
    clips that could not be cut; and rejected sources that have another length now. All else stays."""
    selection: str = "default"
    """Name of the selection, its shards and its report."""
    rule: UseAppendAction[tuple[str, ...]] = ()
    """One more rule: 'aesthetic_score>=4.5', 'motion_mean>=q0.25', 'width(images)>=1024',
    'category!=Comedy|Music'; may be given again."""
    drop_rule: UseAppendAction[tuple[str, ...]] = ()
    """Name of a preset's rule to leave out; may be given again."""
    quality_column: str | None = None
    """Number that decides which of several duplicates is the best one."""
    ray_address: str = "local"
    """'local' starts a private Ray on this machine; 'auto' or an address joins a cluster."""
    log: LogAs = "warnings"
    """What goes to stderr beside errors: warnings; readable lines, also of what each worker did for how long,
    with part and source; or the same with one JSON object a line."""
    incomplete_layers: OnIncomplete = "refuse"
    """What becomes of layers of earlier runs whose stations this run leaves out, where they would lack
    parts or be outdated: refuse the run; fill them by the settings on record; or drop them from the
    current layers."""
    sources_flags: Annotated[ListingConfig, arg(name="sources"), OmitArgPrefixes] = field(
        default_factory=ListingConfig
    )
    """Which of the named sources are taken."""
    config: Annotated[CurationConfig, arg(name="")] = field(default_factory=CurationConfig)
    """Settings of every step."""
    web: WebConfig = field(default_factory=WebConfig)
    """How web servers are asked for sources over http(s)."""
    dedup: Dedup = field(default_factory=Dedup)
    """Which clips are the same."""
    balance: Balance = field(default_factory=Balance)
    """How much of one kind is kept."""
    buckets: Buckets = field(default_factory=Buckets)
    """How kept clips are dealt into shards."""
    splits: Splits = field(default_factory=Splits)
    """Which kept clips are trained on, and which are held out; whole films, with all that look the same."""
    clusters: Clusters = field(default_factory=Clusters)
    """Clips by what they show; `cluster` in the selection."""

    def run(self) -> int:
        """Run the steps; 0, 1 if sources were refused, or 3 if some may do better at another try.

        Raises:
            UnitsFailed: at the end, if parts could not be measured and were left out.
        """
        from pipelines import curate  # imports Ray: not to show flags
        from pipelines.ray_cluster import check_address, start_ray

        log_as(self.log)
        if self.until not in STEPS:
            raise UsageError(f"--until must be one of {', '.join(STEPS)}, got {self.until!r}")
        steps = STEPS[: STEPS.index(self.until) + 1]
        rules = _selection(self.config.select, self)
        shards = PlannedShards(selection=self.selection, rules=rules, export=self.config.export)
        console, store = _console(), store_at(self.out, "--out")
        _check_out(store, self.sources)
        before = existing(store)
        with preset_named(before, self.preset):
            with typed("--stations"):
                layers = curate.configure(self.config.river).layers
            planned = CorpusInfo(num_parts=0, layers=layers)
            if "select" in steps:
                _check_rules(planned, self.selection, rules, "--selection")
        how = curate.HowToRun(
            command=command_line(),
            preset=self.preset,
            ray_address=self.ray_address,
            retry_failed=self.retry_failed,
            listing=self.sources_flags,
            incomplete_layers=self.incomplete_layers,
            shards=shards if "select" in steps else None,
            web=self.web,
        )
        check_address(self.ray_address)
        if self.dry_run:
            self._show(store, how, rules, steps, console)
            return 0
        if self.ray_address != "local":  # before a folder is made for what no cluster works on
            start_ray(self.ray_address)
        if store.is_local:
            check_writable(Path(store.path()), "--out")
        with locked(store) as store:
            info, rejects = curate.measure(
                self.sources,
                store,
                self.config.river,
                console=console,
                how=how,
            )
            num_failed, failed = self._follow(store, info, rules, steps, console, rejects.failed)
        rejects.say_not_listed(console)
        rejects.say_passing(console)
        rejects.say_changes(console)
        if failed is not None:
            raise failed
        if rejects.changed:
            return EXIT_NOT_ALL
        return EXIT_PASSING if rejects.num_passing or rejects.renewed or num_failed else 0

    def _follow(
        self,
        store: Store,
        info: CorpusInfo,
        rules: SelectConfig,
        steps: Sequence[str],
        console: Console,
        failed: UnitsFailed | None,
    ) -> tuple[int, UnitsFailed | None]:
        """The steps after measuring, over what is there.

        Args:
            store: the corpus.
            info: its contents.
            rules: of the selection.
            steps: all that were asked for.
            console: where to print.
            failed: what could not be measured.

        Returns:
            How many clips could not be cut for reasons that may pass, and all units that failed.
        """
        from pipelines.run import UnitsFailed

        num_failed = 0
        if "select" in steps:
            _select(store, info, self.selection, rules, console)
        if "export" in steps:
            try:
                num_failed = _export(store, info, self, self.config.export, console)
            except UnitsFailed as error:  # of shards; the verdicts have a report all the same
                failed = error.after(failed)
            except NothingToDo as error:
                raise error if failed is None else NothingToDo(f"{error}\n{failed}") from error
        if "report" in steps:
            _report(store, info, self.selection, self.config.report, console)
        return num_failed, failed

    def _show(
        self,
        store: Store,
        how: HowToRun,
        rules: SelectConfig,
        steps: Sequence[str],
        console: Console,
    ) -> None:
        from pipelines import dry_run

        dry_run.show(
            store,
            listed(self.sources, self.sources_flags, console),
            how,
            config=self.config.river,
            console=console,
        )
        dry_run.show_selection(store, self.selection, rules, steps[1:], console)


@dataclass(frozen=True, slots=True, kw_only=True)
class Select:
    """Choose clips by rules over the columns: seconds, at will, no video is read."""

    corpus: Positional[str]
    """Folder or prefix of the corpus."""
    name: str = "default"
    """Name of the selection; an existing one of this name is replaced."""
    preset: PresetName = "embedded"
    """Where the rules and the defaults of all other flags come from; not given, it is the preset that the
    corpus was curated with."""
    rule: UseAppendAction[tuple[str, ...]] = ()
    """One more rule: 'aesthetic_score>=4.5', 'motion_mean>=q0.25', 'width(images)>=1024',
    'category!=Comedy|Music'; may be given again. A bound on what still images do not have (motion,
    length, frame rate) is for videos alone, so that images pass it; '(all)' asks them too."""
    drop_rule: UseAppendAction[tuple[str, ...]] = ()
    """Name of a preset's rule to leave out; may be given again."""
    like: RecipeName | None = None
    """A published recipe instead of the preset's selection; `curation/select/rule_presets.py` has their
    numbers with their sources, and says what each had to leave out."""
    skip_missing: Annotated[bool, FlagCreatePairsOff] = False
    """Leave out rules, tiers and limits that read a column which this corpus lacks; they are named here, in
    rules.json, in the funnel and in the report. Left out itself, they stop the command."""
    quality_column: str | None = None
    """Number that decides which of several duplicates is the best one."""
    dedup: Dedup = field(default_factory=Dedup)
    """Which clips are the same."""
    balance: Balance = field(default_factory=Balance)
    """How much of one kind is kept."""
    buckets: Buckets = field(default_factory=Buckets)
    """How kept clips are dealt into shards."""
    splits: Splits = field(default_factory=Splits)
    """Which kept clips are trained on, and which are held out; whole films, with all that look the same."""
    clusters: Clusters = field(default_factory=Clusters)
    """Clips by what they show; `cluster` in the selection."""
    resources: SelectResources = field(default_factory=SelectResources)
    """What the query may use; the result does not depend on it."""

    @property
    def config(self) -> SelectConfig:
        """The effective selection."""
        start = RECIPES[self.like]() if self.like else PRESETS[self.preset]().select
        return _selection(start, self)

    def run(self) -> int:
        """Select and print the funnel."""
        with _written(self.corpus) as (store, info):
            config = self.config
            if self.skip_missing:
                config = without_missing(config, info.layers)
            with _of_preset(self.preset, self.like):
                _check_rules(info, self.name, config, "--name")
            console = _console()
            _select(store, info, self.name, config, console, resources=self.resources)
            return _gap_said(store, info, self.name, console)


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """Cut the selected clips and pack them into WebDataset shards."""

    corpus: Positional[str]
    """Folder or prefix of the corpus."""
    selection: str = "default"
    """Name of the selection."""
    ray_address: str = "local"
    """'local' starts a private Ray on this machine; 'auto' or an address joins a cluster."""
    log: LogAs = "warnings"
    """What goes to stderr beside errors: warnings; readable lines, also of what each worker did for how long,
    with part and source; or the same with one JSON object a line."""
    retry_failed: Annotated[bool, FlagCreatePairsOff] = False
    """Cut also clips that earlier exports could not cut for reasons that may pass."""
    moved_to: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="PLACE")] = ()
    """A folder, file or list to look through for films that were renamed or moved since they were curated;
    they are told by their bytes. May be given again."""
    preset: PresetName = "embedded"
    """Where the defaults of the settings come from; not given, it is the preset that the corpus was curated
    with."""
    config: Annotated[ExportConfig, arg(name="")] = field(default_factory=ExportConfig)
    """How clips are cut and packed."""
    web: WebConfig = field(default_factory=WebConfig)
    """How web servers are asked for sources over http(s)."""

    def run(self) -> int:
        """Export what is not exported yet."""
        log_as(self.log)
        check_name(self.selection, "--selection")
        with _written(self.corpus) as (store, info):
            console = _console()
            num_failed = _export(store, info, self, self.config, console, moved_to=self.moved_to)
            return _gap_said(store, info, self.selection, console) or (
                EXIT_PASSING if num_failed else 0
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Write the statistics report of a selection."""

    corpus: Positional[str]
    """Folder or prefix of the corpus."""
    selection: str = "default"
    """Name of the selection."""
    preset: PresetName = "embedded"
    """Where the defaults of the settings come from; not given, it is the preset that the corpus was curated
    with."""
    config: Annotated[ReportConfig, arg(name="")] = field(default_factory=ReportConfig)
    """What the report shows."""

    def run(self) -> int:
        """Write index.html and statistics.json."""
        check_name(self.selection, "--selection")
        with _written(self.corpus) as (store, info):
            console = _console()
            _report(store, info, self.selection, self.config, console)
            return _gap_said(store, info, self.selection, console)


def _selection(start: SelectConfig, typed_flags: Curate | Select) -> SelectConfig:
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


@contextmanager
def _written(root: str) -> Iterator[tuple[Store, CorpusInfo]]:
    """A corpus that is there, held for writing; a mistyped name does not become a folder.

    Raises:
        RemovalUnfinished: nothing more is made of what a removal has left half removed.
    """
    store = store_at(root, "CORPUS")
    read_corpus(store)
    with locked(store) as held:
        read_removed(held).check_finished()
        yield held, read_corpus(held)


def _gap_said(store: Store, info: CorpusInfo, selection: str, console: Console) -> int:
    """Name the parts that a selection leaves out, if there are any; returns the exit code."""
    gap = Gap.of_selection(read_rules(store, selection))
    if gap:
        now = find_gap(Ledger(store), info)
        how = take_in(store, info, selection, without=gap, now=now)
        console.print(
            f"selection {selection} leaves out {gap}; due: {how}",
            soft_wrap=True,
            highlight=False,
            markup=False,
        )
    return EXIT_NOT_ALL if gap else 0


@contextmanager
def _of_preset(preset: str, like: str | None) -> Iterator[None]:
    """Say whose rules a corpus does not answer, where that was not typed."""
    try:
        yield
    except UsageError as error:
        whose = f"the recipe {like}" if like else f"the preset {preset}"
        raise UsageError(
            f"{error} (the rules are those of {whose}; --preset or --like names others, --skip-missing "
            "leaves out what the corpus lacks)"
        ) from error


_OF_A_CORPUS = {
    *("sources", "layers", "selections", "clusters", "shards", "encoded", "reports", "again"),
}


def _check_out(store: Store, sources: Sequence[str]) -> None:
    """Refuse to write a corpus among other files, most of all into the folder that the footage lies in."""
    out = store.root
    if not is_remote(out):
        folder = local_path(out).resolve()
        for source in sources:
            if not is_remote(source) and local_path(source).resolve() == folder and folder.is_dir():
                raise UsageError(
                    f"--out: {out!r} is one of the source folders; the corpus needs one of its own"
                )
    if store.exists(layout.CORPUS) or (store.is_local and not Path(store.path()).is_dir()):
        return
    names = [*store.files(), *store.folders()]
    foreign = [n for n in names if n not in _OF_A_CORPUS and not n.startswith(".")]
    if foreign and foreign != ["lost+found"]:
        raise UsageError(
            f"--out: {out!r} holds other things ({', '.join(sorted(foreign)[:3])}"
            f"{', ...' if len(foreign) > 3 else ''}) and no corpus; the corpus needs a folder of its own"
        )


def check_name(name: str, flag: str) -> None:
    """Raise `UsageError` for a name that cannot be a selection's."""
    with typed(flag):
        layout.check_selection_name(name)


def _check_rules(info: CorpusInfo, name: str, config: SelectConfig, flag: str) -> None:
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


def _select(
    store: Store,
    info: CorpusInfo,
    name: str,
    config: SelectConfig,
    console: Console,
    *,
    resources: SelectResources | None = None,
) -> None:
    with PartBar(console) as bar:
        funnel = select(store, info, name, config, resources=resources, on_progress=bar.advance)
    console.print(funnel_table(funnel))


def _export(
    store: Store,
    info: CorpusInfo,
    how: Curate | Export,
    config: ExportConfig,
    console: Console,
    *,
    moved_to: Sequence[str] = (),
) -> int:
    """Export; returns how many selected clips could not be cut for reasons that may pass."""
    from pipelines import curate

    manifest = curate.export(
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


def _report(
    store: Store, info: CorpusInfo, selection: str, config: ReportConfig, console: Console
) -> None:
    paths = write_report(store, info, selection, config)
    console.print(f"report: {store.root}/{paths.page}", soft_wrap=True, highlight=False)
    console.print(f"numbers: {store.root}/{paths.statistics}", soft_wrap=True, highlight=False)
    console.print(f"rejected: {store.root}/{paths.rejects}", soft_wrap=True, highlight=False)
