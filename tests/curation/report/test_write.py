"""The whole report: its numbers against pandas, its page against its numbers."""

from __future__ import annotations

import csv
import io
import json
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import pytest

from curation.corpus.parts import read_clips
from curation.corpus.selection import read_funnel, read_verdicts
from curation.errors import CorpusError
from curation.report import ReportConfig, write_report
from curation.report.measures import MEASURES
from curation.select import Rule, SelectConfig, select

VOID = {"meta", "img", "br", "rect", "line"}


def written(made, config: ReportConfig | None = None) -> tuple[str, dict[str, Any]]:
    """The page and the statistics of a report."""
    paths = write_report(made.store, made.info, made.selection, config or ReportConfig())
    page = made.store.read(paths.page).decode()
    return page, json.loads(made.store.read(paths.statistics))


def frame_of(made) -> pd.DataFrame:
    """Clips and verdicts as a data frame."""
    columns = [c for m in MEASURES for c in m.columns] + ["category", "caption_language"]
    frames = []
    for part in range(made.info.num_parts):
        clips = read_clips(made.store, made.info.layers, part, dict.fromkeys(columns))
        frame = clips.to_pandas()
        frame["keep"] = read_verdicts(made.store, "default", part)["keep"].to_pandas().to_numpy()
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def numbers_in(value: Any) -> set[float]:
    """Every number of a JSON value."""
    if isinstance(value, dict):
        return set().union(*map(numbers_in, value.values())) if value else set()
    if isinstance(value, list):
        return set().union(*map(numbers_in, value)) if value else set()
    return {float(value)} if isinstance(value, int | float) and value is not None else set()


def texts_in(value: Any) -> set[str]:
    """Every text of a JSON value."""
    if isinstance(value, dict):
        return set().union(*map(texts_in, value.values())) if value else set()
    if isinstance(value, list):
        return set().union(*map(texts_in, value)) if value else set()
    return {value} if isinstance(value, str) else set()


@pytest.fixture(scope="module")
def report(big) -> tuple[str, dict[str, Any]]:
    """Page and statistics of the big corpus."""
    return written(big)


class Page(HTMLParser):
    """What a page shows, and what it would fetch or run."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.data: list[float] = []
        self.bars: list[float] = []
        self.texts: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "data":
            self.data.append(float(given["value"]))
        if "data-value" in given:
            self.bars.append(float(given["data-value"]))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.bars += [float(v) for name, v in attrs if name == "data-value"]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, "tags are not closed in order"

    def handle_data(self, data: str) -> None:
        if not {"data", "svg", "style", "pre"} & set(self._open) and data.strip():
            self.texts.append(data.strip())


@pytest.mark.parametrize("population", ["all", "kept"])
@pytest.mark.parametrize("name", ["height", "brightness", "caption_words", "aesthetic", "motion"])
def test_distributions_are_those_of_pandas(big, report, name, population):
    _, statistics = report
    figure = next(f for f in statistics["figures"] if f["id"] == name)
    series = next(s for s in figure["series"] if s["population"] == population)
    measure = next(m for m in MEASURES if m.name == name)
    frame = frame_of(big)
    frame = frame if population == "all" else frame[frame.keep]
    frame = frame[frame.duration_s > 0] if measure.videos_only else frame
    values = frame[measure.columns[0]]
    cut = pd.cut(values, list(measure.edges), right=False)
    assert series["counts"] == cut.value_counts(sort=False).tolist()
    assert series["missing"] == values.isna().sum()
    assert series["mean"] == pytest.approx(values.mean(), rel=1e-5)
    expected = np.quantile(values.dropna(), 0.5, method="inverted_cdf")
    assert series["p50"] == pytest.approx(expected, rel=0.01)


def test_headline_and_categories_are_those_of_pandas(big, report):
    _, statistics = report
    frame, headline = frame_of(big), statistics["headline"]
    kept = frame[frame.keep]
    assert (headline["clips"], headline["kept_clips"]) == (len(frame), len(kept))
    assert headline["kept_images"] == (kept.duration_s == 0).sum()
    assert headline["kept_hours"] == pytest.approx(kept.duration_s.sum() / 3600, abs=1e-4)
    figure = next(f for f in statistics["figures"] if f["id"] == "category")
    assert {
        row["text"]: row["kept"] for row in figure["rows"]
    } == kept.category.value_counts().to_dict()


def test_the_funnel_is_that_of_the_selection(big, report):
    _, statistics = report
    funnel = read_funnel(big.store, "default")
    ours = statistics["funnel"]
    for step, theirs in zip(ours["steps"], funnel["steps"], strict=True):
        assert step["left"]["clips"] == theirs["left"]["clips"]
        assert step["removed_only"]["clips"] == theirs["removed_only"]["clips"]
    assert ours["kept"]["percent"] == pytest.approx(
        100 * funnel["kept"]["clips"] / funnel["clips"]["clips"]
    )


def test_every_number_on_the_page_is_in_the_statistics(report):
    html, statistics = report
    page, known = Page(html), numbers_in(statistics)
    assert len(page.data) > 500
    assert set(page.data) <= known
    assert set(page.bars) <= known
    # What is not marked up as a number may only repeat what texts of the statistics say.
    said = tokens("\n".join(texts_in(statistics)))
    assert tokens("\n".join(page.texts)) <= said


def tokens(text: str) -> set[str]:
    """Words with a digit in them."""
    plain = re.sub("[\u2013\u2265\xa0-]", " ", text)
    return {token.strip(".") for token in re.findall(r"[\w.]*\d[\w.]*", plain)}


def test_every_count_of_every_figure_is_on_the_page(report):
    html, statistics = report
    shown = set(Page(html).data)
    for figure in statistics["figures"]:
        if figure["kind"] == "bins":
            assert {float(c) for s in figure["series"] for c in s["counts"]} <= shown


def test_the_same_corpus_gives_the_same_bytes(big, report):
    assert written(big) == report


def test_the_page_is_self_contained_and_small(big):
    html, _ = written(big, ReportConfig(num_kept_shown=60, num_rejected_shown=60))
    page = Page(html)
    assert len(html) < 10_000_000
    assert not [tag for tag, _ in page.tags if tag in ("script", "link", "iframe", "object")]
    loads = [given[n] for _, given in page.tags for n in ("src", "href") if given.get(n)]
    assert all(target.startswith(("data:image/jpeg;base64,", "#")) for target in loads)
    assert not [name for _, given in page.tags for name in given if name.startswith("on")]
    assert not [given for _, given in page.tags if "style" in given]
    policy = next(g["content"] for _, g in page.tags if "http-equiv" in g)
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")


def test_pictures_have_alternative_texts_and_charts_have_labels(report):
    html, _ = report
    tags = Page(html).tags
    assert all(given.get("alt") for tag, given in tags if tag == "img")
    charts = [given for tag, given in tags if tag == "svg" and given.get("class") == "chart"]
    assert charts
    assert all(given["role"] == "img" and given["aria-label"] for given in charts)


def test_missing_layers_leave_figures_out_and_name_the_station(corpus, build):
    clips = build.many(1, 40)
    clips.layers = ("probe", "scenes")
    made = corpus(clips, SelectConfig(rules=(Rule(column="num_frames", min=16),)))
    html, statistics = written(made)
    left = {entry["figure"]: entry["station"] for entry in statistics["left_out"]}
    assert left["Aesthetic score"] == "aesthetics"
    assert left["Overlaid text"] == "overlay_text"
    assert left["Words in the caption"] == "caption_text"
    assert "which the station <code>aesthetics</code> would add" in html
    assert all(card["withheld"] == "no keyframe" for card in statistics["contact_sheet"]["kept"])


def test_rejected_sources_are_named_on_the_page_and_all_of_them_in_a_file(corpus, build):
    gone = [
        build.source(
            f"films/<b>{n:02d}.mp4",
            source_sha256=None,
            source_reject="not_found" if n else "empty",
            source_reject_detail="0 bytes" if not n else f"no file {n}",
        )
        for n in range(30)
    ]
    clips = build.Clips(sources=[[build.source()], gone])
    clips.clips = [[build.clip(1)], []]
    made = corpus(clips)
    paths = write_report(made.store, made.info, made.selection, ReportConfig())
    rows = list(csv.DictReader(io.StringIO(made.store.read(paths.rejects).decode())))
    assert [row["uri"] for row in rows] == [row["uri"] for row in gone]
    assert rows[0] == {"uri": "films/<b>00.mp4", "reason": "empty", "detail": "0 bytes"}
    page = made.store.read(paths.page).decode()
    assert "films/&lt;b&gt;00.mp4" in page
    assert "no file 1<" in page
    assert page.count("films/&lt;b&gt;") == 1 + 20
    assert 'href="rejected_sources.csv"' in page


def test_an_empty_selection_still_has_a_report(corpus, build):
    made = corpus(build.many(1, 30), SelectConfig(rules=(Rule(column="width", min=1e6),)))
    html, statistics = written(made)
    assert statistics["headline"]["kept_clips"] == 0
    assert statistics["contact_sheet"]["kept"] == []
    assert "The selection keeps no clip" in html


def test_a_corpus_without_any_clip_has_a_report(corpus, build):
    clips = build.Clips()
    rejected = build.source(source_reject="truncated", source_sha256=None, source_duration_s=None)
    clips.sources, clips.clips = [[rejected]], [[]]
    html, statistics = written(corpus(clips))
    assert statistics["rejected_sources"][0]["meaning"] in html
    assert statistics["headline"]["sources_rejected"] == 1
    assert statistics["figures"] == []


def test_images_alone_have_no_length_motion_or_frame_rate(corpus, build):
    clips = build.Clips(sources=[[build.source("a.jpg", media="image")]])
    clips.clips = [
        [build.clip(i, duration_s=0.0, fps=None, motion_mean=None, num_frames=1) for i in range(5)]
    ]
    _, statistics = written(corpus(clips))
    assert {f["id"] for f in statistics["figures"]} & {"duration", "motion", "fps"} == set()
    assert "height" in {f["id"] for f in statistics["figures"]}
    assert statistics["headline"]["kept_images"] == 5
    assert statistics["headline"]["kept_mean_s"] is None


def test_captions_made_of_tags_are_called_a_stop_gap(corpus, build):
    clips = build.Clips(sources=[[build.source()]])
    clips.clips = [[build.clip(1, caption_engine="tags")]]
    html, _ = written(corpus(clips))
    assert "stop-gap: image tags strung together" in html


def test_published_figures_stand_beside_ours_and_scrambled_ones_are_not_drawn(report):
    html, statistics = report
    figures = {figure["id"]: figure for figure in statistics["figures"]}
    vimeo = next(p for p in figures["aesthetic"]["published"] if p["corpus"] == "Vimeo25M")
    bins = [entry["label"] for entry in figures["aesthetic"]["bins"]]
    assert dict(zip(bins, vimeo["percents"], strict=True))["4-6"] == 79.12
    assert figures["duration"]["published"] == []
    assert figures["duration"]["scrambled"]["percents_sorted"] == [54, 21, 13, 6, 4, 2]
    assert "not recoverable" in html
    ranked = figures["category"]["ranked"]
    assert [r["kept"] for r in ranked] == sorted((r["kept"] for r in ranked), reverse=True)


def test_lineage_names_layers_settings_and_the_command_without_its_secrets(corpus, build):
    clips = build.Clips(sources=[[build.source("s3://key:hushed@b/a.mp4?sig=hushed")]])
    clips.clips = [[build.clip(1)]]
    made = corpus(clips, command="lavie curate 's3://key:hushed@b/a.mp4?sig=hushed' --out c")
    html, statistics = written(made)
    layers = {entry["name"]: entry for entry in statistics["lineage"]["layers"]}
    assert layers["scenes"]["layer"] == made.info.layers["scenes"]
    assert layers["scenes"]["settings"] == {"size": 3}
    assert "hushed" not in html
    assert "hushed" not in json.dumps(statistics)
    assert statistics["contact_sheet"]["kept"][0]["uri"] == "s3://b/a.mp4"


def test_a_selection_made_from_other_layers_is_refused(corpus, build):
    made = corpus(build.many(1, 5))
    made.info.layers["aesthetics"] = "aesthetics@1-ffffffffffff"
    with pytest.raises(CorpusError, match="was made from the layer aesthetics@1-0123456789ab"):
        write_report(made.store, made.info, "default", ReportConfig())


def test_a_missing_selection_is_refused_by_name(big):
    with pytest.raises(CorpusError, match="no finished selection 'other'"):
        write_report(big.store, big.info, "other", ReportConfig())


def test_another_selection_of_the_same_corpus_has_its_own_report(corpus, build):
    made = corpus(build.many(2, 20))
    select(made.store, made.info, "wide", SelectConfig(rules=(Rule(column="width", min=500),)))
    paths = write_report(made.store, made.info, "wide", ReportConfig())
    assert paths.page == "reports/wide/index.html"
    assert made.store.exists(paths.statistics)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_kept_shown", 201),
        ("picture_quality", 0),
        ("picture_side_px", 1000),
        ("hide_nsfw_above", 2),
    ],
)
def test_settings_out_of_range_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"{field} must be within"):
        ReportConfig(**{field: value})
