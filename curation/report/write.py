"""Write a report: gather, put into statistics.json, draw the page from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from curation.corpus import layout
from curation.corpus.gap import Gap
from curation.corpus.manifest import CorpusInfo, sealed
from curation.corpus.parts import LAYER_METADATA, open_parquet
from curation.corpus.schema import LAYERS
from curation.corpus.selection import read_funnel, read_rules, selected_parts
from curation.corpus.store import Store
from curation.errors import CorpusError
from curation.report.collect import Collected, collect
from curation.report.figures import (
    REPORT_VERSION,
    beside_lavie,
    funnel_figure,
    headline,
    rejected_sources,
    remarks,
    report_figures,
    without_values,
)
from curation.report.gallery import MAX_URI_CHARS, cards
from curation.report.page import render
from curation.report.rejects import Reject, write_rejects
from curation.report.settings import ReportConfig, ReportPaths
from curation.report.text import cut_text, safe_command, safe_settings

PAGE = "index.html"
REJECTS = "rejected_sources.csv"


def write_report(
    store: Store, info: CorpusInfo, selection: str, config: ReportConfig
) -> ReportPaths:
    """Write `reports/<selection>/index.html`, `statistics.json` and `rejected_sources.csv`.

    The same corpus and settings give the same bytes: no clock, no chance. statistics.json is written last,
    with the digests of the other files and its own.

    Args:
        store: the corpus.
        info: its corpus.json.
        selection: name of a finished selection.
        config: what the page shows.

    Raises:
        CorpusError: if there is no such selection, or it was made from layers that are not current.
        TornPart: if a file is damaged or its rows do not line up.
    """
    rules = read_rules(store, selection)
    _check_layers(rules, info, selection)
    parts = selected_parts(store, info, selection)
    return _write(store, info, selection, config, parts)


def rewrite_report(
    store: Store, info: CorpusInfo, selection: str, config: ReportConfig
) -> ReportPaths:
    """Write the report of a selection anew, of the parts and layers that it was made from.

    What has come to the corpus since is not in it, as it was not in the report before.

    Args:
        store: the corpus.
        info: its corpus.json.
        selection: name of a finished selection.
        config: what the page shows.

    Raises:
        CorpusError: if there is no such selection, or files that it was made from are gone or have other
            rows now.
    """
    rules = read_rules(store, selection)
    parts = Gap.of_selection(rules).complete
    then = replace(info, num_parts=rules["num_parts"], layers=_layers_then(store, info, rules))
    return _write(store, then, selection, config, parts)


def _layers_then(store: Store, info: CorpusInfo, rules: dict[str, Any]) -> dict[str, str]:
    """Layers that a selection read, and others over the same scenes that all of its parts have."""
    read: dict[str, str] = rules["layers"]
    scenes = read.get("scenes", info.layers["scenes"])
    beside = {
        name: f"{name}@{scenes.partition('@')[2]}" for name in ("probe", "scenes", "keyframes")
    }
    if info.layers["scenes"] == scenes:
        beside |= info.layers
    there = {
        name: layer
        for name, layer in beside.items()
        if all(store.exists(layout.layer(layer, n)) for n in Gap.of_selection(rules).complete)
    }
    return there | read


def _write(
    store: Store, info: CorpusInfo, selection: str, config: ReportConfig, parts: Sequence[int]
) -> ReportPaths:
    rules = read_rules(store, selection)
    found = collect(
        store,
        info,
        selection,
        parts,
        kept=config.num_kept_shown,
        rejected=config.num_rejected_shown,
    )
    folder = layout.report(selection)
    paths = ReportPaths(
        page=f"{folder}/{PAGE}",
        statistics=layout.report_statistics(selection),
        rejects=f"{folder}/{REJECTS}",
    )
    store.delete(paths.statistics)  # it is there when all else is
    rejects, of_rejects = write_rejects(store, info, parts, paths.rejects)
    statistics = _statistics(store, info, selection, found, rules)
    _name_rejects(statistics["rejected_sources"], rejects)
    shown = statistics["contact_sheet"] = {}
    pictures: dict[str, str] = {}
    columns = {_label(rule): rule["column"] for rule in rules["config"]["rules"]}
    for name, choice in (("kept", found.kept_shown), ("rejected", found.rejected_shown)):
        chosen = choice.chosen()
        made = cards(store, info, selection, chosen, rules=columns, config=config)
        pictures |= {card["place"]: card.pop("picture") for card in made}
        shown[name] = made
    page = render(statistics, pictures).encode()
    store.write(paths.page, page)
    of_page = {"sha256": hashlib.sha256(page).hexdigest(), "size_bytes": len(page)}
    files = {PAGE: of_page, REJECTS: of_rejects}
    store.write(paths.statistics, sealed(statistics | {"files": files}))
    return paths


def _name_rejects(reasons: list[dict[str, Any]], rejects: dict[str, list[Reject]]) -> None:
    """Add the first names to each reason of the statistics."""
    for entry in reasons:
        names = rejects.get(entry["reason"], [])
        entry["named"] = [
            {"name": cut_text(r["uri"], MAX_URI_CHARS), "detail": r["detail"]} for r in names
        ]


def _label(rule: dict[str, Any]) -> str:
    return str(rule["name"] or rule["column"])


def _check_layers(rules: dict[str, Any], info: CorpusInfo, selection: str) -> None:
    """A funnel over one layer beside distributions of another would contradict each other."""
    for name, layer in rules["layers"].items():
        if info.layers.get(name) != layer:
            raise CorpusError(
                f"selection {selection!r} was made from the layer {layer}, the corpus now has "
                f"{info.layers.get(name)}: run `lavie select --name {selection}` again"
            )


def _statistics(
    store: Store, info: CorpusInfo, selection: str, found: Collected, rules: dict[str, Any]
) -> dict[str, Any]:
    """Everything but the contact sheet."""
    figures, gap = report_figures(found), Gap.of_selection(rules)
    return {
        "report_version": REPORT_VERSION,
        "schema_version": info.schema_version,
        "selection": selection,
        "command": safe_command(info.created_by),
        "headline": headline(found),
        "remarks": remarks(found, figures, gap),
        "funnel": funnel_figure(read_funnel(store, selection), found),
        "rejected_sources": rejected_sources(found),
        "beside_lavie": beside_lavie(figures),
        "figures": figures,
        "left_out": without_values(found, figures),
        "lineage": {
            "num_parts": info.num_parts,
            **gap.to_json(),
            "layers": [_lineage(store, info, n, gap) for n in LAYERS if n in info.layers],
            "settings": safe_settings(info.settings),
            "selection": safe_settings(rules["config"]),
            "verdicts_sha256": rules.get("verdicts_sha256"),
        },
    }


def _lineage(store: Store, info: CorpusInfo, name: str, gap: Gap) -> dict[str, Any]:
    """What made one layer, as its files say."""
    layer = info.layers[name]
    made: dict[str, Any] = {}
    for part in gap.complete[:1]:
        with open_parquet(store, layout.layer(layer, part), few_rows=True) as file:
            metadata = file.schema_arrow.metadata or {}
        made = json.loads(metadata.get(LAYER_METADATA, b"{}"))
    return {
        "name": name,
        "layer": layer,
        "version": made.get("version"),
        "settings": safe_settings(made.get("settings", {})),
        "weights": made.get("weights", {}),
    }
