"""Contents of statistics.json: every number of the report, as plain data.

The page is drawn from this and from nothing else, so it cannot say a number that is not here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from curation.corpus.gap import Gap
from curation.errors import REJECT_REASONS, CorpusError
from curation.report.collect import POPULATIONS, ClipStatistics, Collected, available, left_out
from curation.report.measures import FIGURES, MEASURES, WORDS, Measure, Word
from curation.report.reference import SOURCE, Published, Scrambled
from curation.report.statistics import MAX_WORD_CHARS, Distribution, Tally
from curation.report.text import cut_text

REPORT_VERSION = 1
MS_PER_HOUR = 3_600_000
WORDS_SHOWN = 20
BESIDE_LAVIE = ("aesthetic", "height", "width", "duration", "caption_words", "category")
"""Figures that LaVie's paper has too, in the page's order."""


def percent(part: float, whole: float) -> float:
    """Share in percent; 0 of nothing is 0."""
    return round(100 * part / whole, 6) if whole else 0.0


def hours(duration_ms: int) -> float:
    """Milliseconds as hours, as funnel.json rounds them."""
    return round(duration_ms / MS_PER_HOUR, 6)


def headline(found: Collected) -> dict[str, Any]:
    """The numbers at the top."""
    sources, everything, kept = found.sources, found.clips["all"], found.clips["kept"]
    kept_videos = kept.clips - kept.images
    return {
        "sources": sources.sources,
        "sources_used": sources.rejects.missing,
        "sources_rejected": sources.rejects.num_values,
        "sources_rejected_percent": percent(sources.rejects.num_values, sources.sources),
        "source_bytes": sources.size_bytes,
        "source_hours": hours(sources.duration_ms),
        "clips": everything.clips,
        "clip_hours": hours(everything.duration_ms),
        "images": everything.images,
        "kept_clips": kept.clips,
        "kept_videos": kept_videos,
        "kept_images": kept.images,
        "kept_percent": percent(kept.clips, everything.clips),
        "kept_hours": hours(kept.duration_ms),
        "kept_hours_percent": percent(kept.duration_ms, everything.duration_ms),
        "kept_mean_s": round(kept.duration_ms / 1000 / kept_videos, 3) if kept_videos else None,
    }


def funnel_figure(funnel: Mapping[str, Any], found: Collected) -> dict[str, Any]:
    """The funnel of the selection with shares, checked against what the layers say.

    Raises:
        CorpusError: if funnel.json counts other clips than the corpus holds.
    """
    for name, statistics in (("clips", found.clips["all"]), ("kept", found.clips["kept"])):
        if funnel[name]["clips"] != statistics.clips:
            raise CorpusError(
                f"funnel.json counts {funnel[name]['clips']} {name}, the parts hold "
                f"{statistics.clips}: run `lavie select` again"
            )
    total = funnel["clips"]
    return {
        "clips": _share(funnel["clips"], total),
        "kept": _share(funnel["kept"], total),
        "rejected": _share(funnel["rejected"], total),
        "duplicate_groups": funnel["duplicate_groups"],
        "steps": [_step(step, total) for step in funnel["steps"]],
        "tiers": _amounts(funnel["tiers"], funnel["kept"]),
        "buckets": _amounts(funnel["buckets"], funnel["kept"]),
        "splits": _amounts(funnel.get("splits", {}), funnel["kept"]),
        "uncategorised": funnel.get("uncategorised"),
        "skipped": funnel.get("skipped", []),
    }


def _share(amount: Mapping[str, Any], total: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **amount,
        "percent": percent(amount["clips"], total["clips"]),
        "hours_percent": percent(amount["hours"], total["hours"]),
    }


def _step(step: Mapping[str, Any], total: Mapping[str, Any]) -> dict[str, Any]:
    amounts = ("left", "removed_here", "removed_alone", "removed_only")
    texts = {name: step[name] for name in ("rule", "allows", "source")}
    return texts | {name: _share(step[name], total) for name in amounts}


def _amounts(amounts: Mapping[str, Any], total: Mapping[str, Any]) -> list[dict[str, Any]]:
    named = [{"name": name or "none", **_share(a, total)} for name, a in amounts.items()]
    return sorted(named, key=lambda entry: (-entry["clips"], entry["name"]))


def rejected_sources(found: Collected) -> list[dict[str, Any]]:
    """Sources that could not be used, by reason."""
    return [
        {
            "reason": reason,
            "meaning": REJECT_REASONS.get(reason, ""),
            "sources": count,
            "percent": percent(count, found.sources.sources),
        }
        for reason, count in found.sources.rejects.ranked()
    ]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _rounded(value: float | None) -> float | None:
    """Six significant digits: more than a figure needs, and no noise of float32."""
    return None if value is None else float(f"{value:.6g}")


def measure_figure(measure: Measure, clips: Mapping[str, ClipStatistics]) -> dict[str, Any]:
    """One distribution, for all and for kept clips, beside the published ones."""
    bins = zip(measure.bin_labels, measure.edges, measure.edges[1:], strict=False)
    return {
        "id": measure.name,
        "kind": "bins",
        "title": measure.title,
        "unit": measure.unit,
        "reads": measure.reads,
        "columns": list(measure.columns),
        "named_bins": bool(measure.labels),
        "bins": [{"label": x, "low": _finite(a), "high": _finite(b)} for x, a, b in bins],
        "series": [_series(name, clips[name].numbers[measure.name]) for name in POPULATIONS],
        "published": [_published(measure, entry) for entry in measure.published],
        "scrambled": _scrambled(measure.scrambled),
        "notes": [entry.note for entry in measure.published if entry.note],
    }


def _series(population: str, values: Distribution) -> dict[str, Any]:
    return {
        "population": population,
        "num_values": values.num_values,
        "missing": values.missing,
        "outside": values.outside,
        "counts": values.counts,
        "percents": [percent(count, values.num_values) for count in values.counts],
        "mean": _rounded(values.mean),
        "min": _rounded(values.low if values.num_values else None),
        "p10": _rounded(values.quantile(0.1)),
        "p50": _rounded(values.quantile(0.5)),
        "p90": _rounded(values.quantile(0.9)),
        "max": _rounded(values.high if values.num_values else None),
    }


def _published(measure: Measure, entry: Published) -> dict[str, Any]:
    """Published percents put to our bins of the same edges; None where nothing was published."""
    printed = dict(
        zip(zip(entry.edges, entry.edges[1:], strict=False), entry.percents, strict=True)
    )
    ours = list(zip(measure.edges, measure.edges[1:], strict=False))
    assert set(printed) <= set(ours), f"{measure.name}: published bins that we do not count"
    return {"corpus": entry.corpus, "percents": [printed.get(edges) for edges in ours]}


def _scrambled(entry: Scrambled | None) -> dict[str, Any] | None:
    if entry is None:
        return None
    return {
        "corpus": entry.corpus,
        "percents_sorted": list(entry.percents),
        "bins": entry.bins,
        "note": entry.note,
    }


def word_figure(word: Word, clips: Mapping[str, ClipStatistics]) -> dict[str, Any]:
    """The most frequent texts of one column, for all and for kept clips."""
    tallies = {name: clips[name].words[word.name] for name in POPULATIONS}
    ranked = tallies["all"].ranked()
    shown = [text for text, _ in ranked[:WORDS_SHOWN]]
    return {
        "id": word.name,
        "kind": "words",
        "title": word.title,
        "reads": word.reads,
        "columns": list(word.columns),
        "num_values": {name: tally.num_values for name, tally in tallies.items()},
        "missing": {name: tally.missing for name, tally in tallies.items()},
        "distinct": len(ranked),
        "rows": [
            {"text": cut_text(text, MAX_WORD_CHARS), **_word_row(text, tallies)} for text in shown
        ],
        "not_shown": {
            name: tally.num_values - sum(tally.counts[text] for text in shown)
            for name, tally in tallies.items()
        },
        "scrambled": _scrambled(word.scrambled),
        "ranked": _ranked(tallies["kept"], word.scrambled),
    }


def _word_row(text: str, tallies: Mapping[str, Tally]) -> dict[str, Any]:
    counts = {name: tally.counts[text] for name, tally in tallies.items()}
    return counts | {
        f"{name}_percent": percent(counts[name], tally.num_values)
        for name, tally in tallies.items()
    }


def _ranked(kept: Tally, scrambled: Scrambled | None) -> list[dict[str, Any]]:
    """Our shares by rank beside published ones by rank: how even, not which is which."""
    if scrambled is None:
        return []
    ours = [percent(count, kept.num_values) for _, count in kept.ranked()]
    ours += [0.0] * (len(scrambled.percents) - len(ours))
    pairs = zip(ours, scrambled.percents, strict=False)
    return [
        {"rank": rank, "kept": kept_percent, "published": published}
        for rank, (kept_percent, published) in enumerate(pairs, 1)
    ]


def remarks(found: Collected, figures: Sequence[Mapping[str, Any]], gap: Gap) -> list[str]:
    """What a reader must know before comparing: absent parts, stop-gaps and absent measures."""
    by_id = {figure["id"]: figure for figure in figures}
    said = []
    if gap:
        said.append(
            "This selection was made while parts of the corpus were not measured in full, and leaves out "
            f"{gap}."
        )
    engines = {row["text"]: row for row in by_id.get("caption_engine", {}).get("rows", [])}
    if engines.get("tags", {}).get("all"):
        said.append(
            "Captions of the engine 'tags' are a stop-gap: image tags strung together, not written "
            "by a caption model. Do not compare their lengths, and do not train on them."
        )
    if "given" in engines:
        said.append(
            "Captions of the engine 'given' come from the source list, as WebVid10M's do; those of "
            "Vimeo25M were written by the model VideoChat."
        )
    if "aesthetic" not in by_id:
        said.append(
            "This corpus has no aesthetic score, the measure by which LaVie compares Vimeo25M with "
            "WebVid10M: read sharpness, brightness and motion instead. They are no substitute."
        )
    if not found.clips["kept"].clips:
        said.append("The selection keeps no clip: the funnel says which rule takes them.")
    return said


def report_figures(found: Collected) -> list[dict[str, Any]]:
    """All figures that the corpus can have, LaVie's first."""
    figures = [measure_figure(m, found.clips) for m in available(MEASURES, found.columns)]
    figures += [word_figure(w, found.clips) for w in available(WORDS, found.columns)]
    figures = [figure for figure in figures if _says_something(figure)]
    order = {name: place for place, name in enumerate(BESIDE_LAVIE)}
    return sorted(figures, key=lambda figure: order.get(figure["id"], len(order)))


def _says_something(figure: Mapping[str, Any]) -> bool:
    if figure["kind"] == "bins":
        return bool(figure["series"][0]["num_values"])
    return bool(figure["rows"])


def without_values(found: Collected, figures: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Figures that were left out, each with what would fill it."""
    shown = {figure["id"] for figure in figures}
    absent = left_out(found.columns)
    titles = {entry["figure"] for entry in absent}
    empty = [
        {"figure": f.title, "column": f.columns[0], "station": ""}
        for f in available(FIGURES, found.columns)
        if f.name not in shown and f.title not in titles
    ]
    return absent + empty


def beside_lavie(figures: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Which figures stand beside LaVie's, and where LaVie's numbers come from."""
    shown = {figure["id"] for figure in figures}
    return {"source": SOURCE, "figures": [name for name in BESIDE_LAVIE if name in shown]}
