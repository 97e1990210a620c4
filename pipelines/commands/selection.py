"""select, export, report."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated

from rich.console import Console
from tyro.conf import FlagCreatePairsOff, Positional, UseAppendAction, arg

from curation.corpus.gap import Gap, find_gap
from curation.corpus.ledger import Ledger
from curation.corpus.manifest import CorpusInfo, read_corpus
from curation.corpus.removal import read_removed
from curation.corpus.selection import read_rules
from curation.corpus.store import Store
from curation.errors import UsageError
from curation.export import ExportConfig
from curation.report import ReportConfig
from curation.select import (
    Balance,
    Buckets,
    Clusters,
    Dedup,
    SelectConfig,
    SelectResources,
    Splits,
    without_missing,
)
from curation.select.rule_presets import PRESETS as RECIPES
from curation.select.rule_presets import RecipeName
from curation.sources import WebConfig
from pipelines.advice import take_in
from pipelines.commands.steps import (
    EXIT_NOT_ALL,
    EXIT_PASSING,
    check_name,
    check_rules,
    export_clips,
    new_console,
    report_clips,
    select_clips,
    selection_typed,
)
from pipelines.locking import locked
from pipelines.logs import LogAs, log_as
from pipelines.places import store_at
from pipelines.presets import PRESETS, PresetName


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
        return selection_typed(start, self)

    def run(self) -> int:
        """Select and print the funnel."""
        check_name(self.name, "--name")
        with _written(self.corpus) as (store, info):
            config = self.config
            if self.skip_missing:
                config = without_missing(config, info.layers)
            with _of_preset(self.preset, self.like):
                check_rules(info, self.name, config, "--name")
            console = new_console()
            select_clips(store, info, self.name, config, console, resources=self.resources)
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
            console = new_console()
            num_failed = export_clips(
                store, info, self, self.config, console, moved_to=self.moved_to
            )
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
            console = new_console()
            report_clips(store, info, self.selection, self.config, console)
            return _gap_said(store, info, self.selection, console)


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
