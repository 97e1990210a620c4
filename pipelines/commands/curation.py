"""curate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.console import Console
from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, Positional, UseAppendAction, arg

from curation.corpus import layout
from curation.corpus.manifest import CorpusInfo
from curation.corpus.store import Store, is_remote
from curation.errors import NothingToDo, UsageError, typed
from curation.select import (
    Balance,
    Buckets,
    Clusters,
    Dedup,
    SelectConfig,
    Splits,
)
from curation.sources import WebConfig, local_path
from pipelines.corpus import existing
from pipelines.curation_config import CurationConfig
from pipelines.growing import OnIncomplete, PlannedShards, preset_named
from pipelines.listing import ListingConfig, listed
from pipelines.locking import command_line, locked
from pipelines.logs import LogAs, log_as
from pipelines.places import check_writable, store_at
from pipelines.presets import PresetName

if TYPE_CHECKING:
    from pipelines.curate import HowToRun
    from pipelines.run import UnitsFailed
from pipelines.commands.steps import (
    EXIT_NOT_ALL,
    EXIT_PASSING,
    check_rules,
    export_clips,
    new_console,
    report_clips,
    select_clips,
    selection_typed,
)

STEPS = ("measure", "select", "export", "report")


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
        rules = selection_typed(self.config.select, self)
        shards = PlannedShards(selection=self.selection, rules=rules, export=self.config.export)
        console, store = new_console(), store_at(self.out, "--out")
        _check_out(store, self.sources)
        before = existing(store)
        with preset_named(before, self.preset):
            with typed("--stations"):
                layers = curate.configure(self.config.river).layers
            planned = CorpusInfo(num_parts=0, layers=layers)
            if "select" in steps:
                check_rules(planned, self.selection, rules, "--selection")
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
            select_clips(store, info, self.selection, rules, console)
        if "export" in steps:
            try:
                num_failed = export_clips(store, info, self, self.config.export, console)
            except UnitsFailed as error:  # of shards; the verdicts have a report all the same
                failed = error.after(failed)
            except NothingToDo as error:
                raise error if failed is None else NothingToDo(f"{error}\n{failed}") from error
        if "report" in steps:
            report_clips(store, info, self.selection, self.config.report, console)
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
