"""The page: statistics.json drawn as one HTML file that loads nothing and runs nothing.

There is no script on it. Its policy forbids all but inline pictures and its own style sheet, which
is named by its digest, so even an escaping mistake could neither run nor fetch anything. Everything
that came from outside goes through the template engine's escaping.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from jinja2 import BaseLoader, Environment, StrictUndefined
from markupsafe import Markup

from curation.report.chart import Chart, bar_chart, percent_text, shown_label

SERIES_NAMES = {"all": "all clips", "kept": "kept"}
MINUTES_PER_HOUR = 60
SECONDS_PER_HOUR = 3600
WITH_DECIMALS = 100
"""Below it hours are printed with a decimal."""


def render(statistics: Mapping[str, Any], pictures: Mapping[str, str]) -> str:
    """The page.

    Args:
        statistics: contents of statistics.json.
        pictures: place of a clip -> base64 of a JPEG, '' where none is shown.
    """
    package = files("curation.report")
    css = package.joinpath("page.css").read_text("utf-8")
    environment = Environment(
        loader=BaseLoader(),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": count,
        "percent": percent,
        "hours": hours,
        "size": size,
        "number": number,
        "clock": clock,
        "json": as_json,
        "label": shown_label,
        "plain": plain,
        "prose": prose,
        "seconds": seconds,
    }
    template = environment.from_string(package.joinpath("page.html").read_text("utf-8"))
    figures = statistics["figures"]
    return template.render(
        s=statistics,
        css=Markup(css),  # noqa: S704  our own file
        style_digest=base64.b64encode(hashlib.sha256(css.encode()).digest()).decode(),
        charts={f["id"]: chart(f) for f in figures if f["kind"] == "bins"},
        rank_charts={f["id"]: rank_chart(f) for f in figures if f.get("ranked")},
        pictures=pictures,
        names=SERIES_NAMES,
        widest={f["id"]: widest(f) for f in figures if f["kind"] == "words"},
    )


def chart(figure: Mapping[str, Any]) -> Chart:
    """The bars of a distribution; open outer bins that hold nothing are not drawn."""
    series = [
        (entry["population"], SERIES_NAMES[entry["population"]], entry["percents"])
        for entry in figure["series"]
        if entry["num_values"]
    ]
    series += [(e["corpus"], e["corpus"], e["percents"]) for e in figure["published"]]
    bins = figure["bins"]
    first, last = 0, len(bins)
    if bins[0]["low"] is None and _is_empty(series, 0):
        first += 1
    if bins[-1]["high"] is None and _is_empty(series, -1) and not figure["scrambled"]:
        last -= 1
    return bar_chart(
        [shown_label(entry["label"]) for entry in bins[first:last]],
        [(key, name, percents[first:last]) for key, name, percents in series],
        edges=None if figure["named_bins"] else _edges(bins[first:last]),
    )


def _edges(bins: list[Mapping[str, Any]]) -> list[float]:
    lows = [float("-inf") if entry["low"] is None else entry["low"] for entry in bins]
    high = bins[-1]["high"]
    return [*lows, float("inf") if high is None else high]


def _is_empty(series: list[tuple[str, str, list[float | None]]], place: int) -> bool:
    return not any(percents[place] for _, _, percents in series)


def rank_chart(figure: Mapping[str, Any]) -> Chart:
    """Shares by rank, ours beside the published ones."""
    ranked = figure["ranked"]
    return bar_chart(
        [str(entry["rank"]) for entry in ranked],
        [
            ("kept", "kept", [entry["kept"] for entry in ranked]),
            ("Vimeo25M", "Vimeo25M", [entry["published"] for entry in ranked]),
        ],
        edges=None,
    )


def widest(figure: Mapping[str, Any]) -> float:
    """The largest percentage among a figure's rows; bars are drawn in relation to it."""
    return max([1.0, *(max(row["all_percent"], row["kept_percent"]) for row in figure["rows"])])


def _data(value: float | None, text: str) -> Markup:
    """A number as the page shows it, with the one of statistics.json behind it."""
    return Markup('<data value="{}">{}</data>').format(value, text)


def _nothing() -> Markup:
    return Markup('<span class="none">&ndash;</span>')


def count(value: int | None) -> Markup:
    """1234567 -> '1,234,567'."""
    return _nothing() if value is None else _data(value, f"{value:,}")


def plain(value: int | None) -> Markup:
    """1280 -> '1280': sizes of pictures are read without separators."""
    return _nothing() if value is None else _data(value, str(value))


def seconds(value: float | None) -> Markup:
    """4.25 -> '4.2 s'."""
    return _nothing() if value is None else _data(value, f"{value:.1f}\N{NO-BREAK SPACE}s")


def prose(text: str) -> str:
    """A sentence of ours: ranges with a dash, no line break before a percent sign."""
    return shown_label(text).replace(" %", "\N{NO-BREAK SPACE}%")


def percent(value: float | None) -> Markup:
    """12.3456 -> '12.3 %'; the space does not break."""
    return (
        _nothing() if value is None else _data(value, f"{percent_text(value)}\N{NO-BREAK SPACE}%")
    )


def hours(value: float | None) -> Markup:
    """Hours, minutes or seconds, whichever reads best: '1,234 h', '12.3 h', '9.9 min', '42 s'."""
    if value is None:
        return _nothing()
    if value >= WITH_DECIMALS:
        text = f"{value:,.0f} h"
    elif value >= 1:
        text = f"{value:.1f} h"
    elif value * MINUTES_PER_HOUR >= 1:
        text = f"{value * MINUTES_PER_HOUR:.1f} min"
    else:
        text = f"{value * SECONDS_PER_HOUR:.0f} s"
    return _data(value, text.replace(" ", "\N{NO-BREAK SPACE}"))


def size(value: int | None) -> Markup:
    """Bytes in decimal units: '1.2 GB'."""
    if value is None:
        return _nothing()
    scaled, unit = float(value), "B"
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if scaled < 1000 or unit == "PB":
            break
        scaled /= 1000
    text = f"{scaled:.0f}" if unit == "B" else f"{scaled:.1f}"
    return _data(value, f"{text}\N{NO-BREAK SPACE}{unit}")


def number(value: float | None) -> Markup:
    """Three significant digits: '0.0123', '4.56', '1,230'."""
    if value is None:
        return _nothing()
    text = f"{value:,.0f}" if abs(value) >= WITH_DECIMALS else f"{value:.3g}"
    return _data(value, text)


def clock(value: float | None) -> Markup:
    """Seconds as a place in a film: '1:02:03.4', '4:05.0'."""
    if value is None:
        return _nothing()
    tenths = round(value * 10)
    minutes, left = divmod(tenths, 600)
    whole, minutes = divmod(minutes, 60)
    text = f"{minutes}:{left / 10:04.1f}"
    return _data(value, f"{whole}:{minutes:02d}:{left / 10:04.1f}" if whole else text)


def as_json(value: Any) -> str:
    """Settings for a reader; the template escapes it."""
    return json.dumps(value, indent=1, sort_keys=True)
