"""Progress with rate and time left: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

PLAIN_INTERVAL_S = 5.0  # a line every few seconds keeps a job's log readable


BAR_CHARS = 10
WITHOUT_COUNTS_CHARS = 70
"""A line of the bars without its counters: a name, the bar, '1200/1200 parts', rate, time left."""


class _RateColumn(ProgressColumn):
    """Units a minute."""

    def render(self, task: Task) -> Text:
        if not task.speed:
            return Text("")
        return Text(
            f"{60 * task.speed:,.0f}/min" if task.speed > 2 else f"{60 * task.speed:.1f}/min",
            style="progress.data.speed",
        )


class _CountsColumn(ProgressColumn):
    """A stage's counters, cut to the room that a line has for them: names and numbers before them stay.

    Args:
        room: characters.
    """

    def __init__(self, *, room: int) -> None:
        super().__init__()
        self._room = room

    def render(self, task: Task) -> Text:
        text = Text(task.fields["counts"], style="dim", no_wrap=True)
        text.truncate(self._room, overflow="ellipsis")
        return text


def _counts_text(counts: Mapping[str, int]) -> str:
    shown = {name: n for name, n in sorted(counts.items()) if n and name != "micro-USD"}
    return ", ".join(f"{number:,} {name}" for name, number in shown.items())


class ProgressBars:
    """Shows each stage's units; a `pipelines.run.Watcher` and a context manager.

    Args:
        console: where to write; bars only if it is a terminal.
        unit: what one unit is called, such as "parts".
    """

    def __init__(self, console: Console, *, unit: str = "parts") -> None:
        self._console = console
        self._unit = unit
        self._bars = Progress(
            TextColumn("{task.description:14}"),
            BarColumn(bar_width=BAR_CHARS),
            MofNCompleteColumn(),
            TextColumn(unit),
            _RateColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            _CountsColumn(room=max(0, console.width - WITHOUT_COUNTS_CHARS)),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._counts: dict[str, Counter[str]] = {}
        self._stages: dict[str, tuple[int, int, int]] = {}  # total, done before, done now
        self._began: dict[str, float] = {}
        self._last_line = 0.0

    def __enter__(self) -> ProgressBars:
        if self._console.is_terminal:
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._console.is_terminal:
            self._bars.stop()

    def start(self, stage: str, *, total: int, done: int) -> None:
        """A stage has ``total`` units, ``done`` of them committed by earlier runs."""
        self._counts[stage] = Counter()
        self._stages[stage] = (total, done, 0)
        self._began[stage] = time.monotonic()
        self._tasks[stage] = self._bars.add_task(stage, total=total, completed=done, counts="")
        if done and not self._console.is_terminal:
            self._console.print(f"{stage}: {done} of {total} {self._unit} were done before")

    def advance(self, stage: str, counts: Mapping[str, int]) -> None:
        """A stage has committed one more unit."""
        self._counts[stage].update(counts)
        total, before, now = self._stages[stage]
        self._stages[stage] = (total, before, now + 1)
        self._bars.update(self._tasks[stage], advance=1, counts=_counts_text(self._counts[stage]))
        finished = before + now + 1 == total
        due = time.monotonic() - self._last_line >= PLAIN_INTERVAL_S
        if not self._console.is_terminal and (finished or due):
            self._line(stage)

    def _line(self, stage: str) -> None:
        self._last_line = time.monotonic()
        elapsed_s = max(self._last_line - self._began[stage], 1e-3)
        total, before, now = self._stages[stage]
        rate = now / elapsed_s
        left_s = (total - before - now) / rate
        self._console.print(
            f"{stage}: {before + now} of {total} {self._unit}, {60 * rate:.1f}/min, "
            f"{left_s:.0f} s left; {_counts_text(self._counts[stage])}",
            soft_wrap=True,
            highlight=False,
        )


class PartBar:
    """One bar for work that passes over the parts a few times; nothing where it is no terminal.

    Args:
        console: where to write.
    """

    def __init__(self, console: Console) -> None:
        self._bars = Progress(
            TextColumn("{task.description:14}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("parts"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> PartBar:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def advance(self, what: str, done: int, total: int) -> None:
        """``done`` of ``total`` parts have gone through the pass called ``what``."""
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=total)
        self._bars.update(self._tasks[what], completed=done)
