"""Where the bars of a figure go: geometry for the template's SVG, in its own units.

Grouped vertical bars over equal-width bins. No plotting library: these few rectangles need no
script on the page, follow the reader's light or dark colours, and stay sharp on paper.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 480.0, 240.0
LEFT, RIGHT, TOP, BOTTOM = 40.0, 6.0, 30.0, 24.0
MIN_LABELLED_BAR = 25.0
"""A bar at least this wide carries its value: four characters at the chart's font size."""
MAX_RANGE_LABELS = 7
"""More bins than this are labelled at their edges: ranges would run into each other."""
CHARACTER_WIDTH = 8.4
"""Of a digit at the largest font of page.css, 15 units on paper; for the same question."""


_RANGE = re.compile(r"(\d)-(\d)")


@dataclass(frozen=True, slots=True)
class Bar:
    """One rectangle.

    Args:
        series: key of its series, its colour class.
        value: percent.
        label: text above it, '' where there is no room.
    """

    series: str
    x: float
    y: float
    width: float
    height: float
    value: float
    label: str


@dataclass(frozen=True, slots=True)
class Bin:
    """One group of bars with its place for the pointer."""

    x: float
    width: float
    bars: list[Bar]
    tip: str


@dataclass(frozen=True, slots=True)
class Tick:
    """A text at an axis."""

    place: float
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    """All that the template draws."""

    width: float
    height: float
    left: float
    right: float
    base: float
    bins: list[Bin]
    y_ticks: list[Tick]
    x_ticks: list[Tick]


def percent_text(value: float) -> str:
    """A percentage as the page prints it: '79.1', '<0.1', '0'."""
    if value == 0:
        return "0"
    return "<0.1" if value < 0.05 else f"{value:.1f}"


def shown_label(label: str) -> str:
    """A bin's name as a reader expects it: a real greater-or-equal sign, an en dash in ranges."""
    dashed = _RANGE.sub("\\1\N{EN DASH}\\2", label)
    return dashed.replace(">=", "\N{GREATER-THAN OR EQUAL TO}")


def bar_chart(
    labels: Sequence[str],
    series: Sequence[tuple[str, str, Sequence[float | None]]],
    *,
    edges: Sequence[float] | None,
) -> Chart:
    """Lay out grouped bars.

    Args:
        labels: a name for every bin.
        series: key, name and percent of every bin; None where there is no value.
        edges: of bins that are ranges of numbers: many are labelled at their edges instead.
    """
    top = _axis_top(max((v for _, _, values in series for v in values if v is not None), default=0))
    base, plot = HEIGHT - BOTTOM, HEIGHT - BOTTOM - TOP
    step = (WIDTH - LEFT - RIGHT) / len(labels)
    bar_width = min(0.8 * step / max(len(series), 1), 46.0)
    bins = []
    for i in range(len(labels)):
        x = LEFT + i * step + (step - bar_width * len(series)) / 2
        bars = [
            _bar(key, x + j * bar_width, bar_width, values[i], plot / top)
            for j, (key, _, values) in enumerate(series)
        ]
        shown = ((name, values[i]) for _, name, values in series)
        tip = ", ".join(f"{name} {percent_text(v)} %" for name, v in shown if v is not None)
        bins.append(Bin(round(LEFT + i * step, 2), round(step, 2), [b for b in bars if b], tip))
    return Chart(
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
        right=WIDTH - RIGHT,
        base=base,
        bins=bins,
        y_ticks=[Tick(round(base - plot * s / 4, 2), f"{top * s / 4:g}") for s in range(5)],
        x_ticks=_x_ticks(labels, edges, step),
    )


def _bar(key: str, x: float, width: float, value: float | None, scale: float) -> Bar | None:
    if value is None:
        return None
    height = value * scale
    if 0 < height < 1:
        height = 1.0  # a little is not nothing
    return Bar(
        series=key,
        x=round(x + 0.5, 2),
        y=round(HEIGHT - BOTTOM - height, 2),
        width=round(width - 1, 2),
        height=round(height, 2),
        value=value,
        label=percent_text(value) if width >= MIN_LABELLED_BAR and value > 0 else "",
    )


def _axis_top(largest: float) -> float:
    """The smallest round number that is not under the largest value; four steps lead up to it."""
    return next((top for top in (4, 8, 20, 40, 60, 80, 100) if largest <= top), 100)


def _x_ticks(labels: Sequence[str], edges: Sequence[float] | None, step: float) -> list[Tick]:
    fits = max(len(label) for label in labels) * CHARACTER_WIDTH <= step - 4
    if edges is None or (len(labels) <= MAX_RANGE_LABELS and fits):
        return [Tick(round(LEFT + (i + 0.5) * step, 2), label) for i, label in enumerate(labels)]
    finite = [(i, edge) for i, edge in enumerate(edges) if math.isfinite(edge)]
    return [Tick(round(LEFT + i * step, 2), f"{edge:g}") for i, edge in finite]
