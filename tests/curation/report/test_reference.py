"""LaVie's published figures: what can be checked about them without the paper."""

from __future__ import annotations

import pytest

from curation.report.measures import MEASURES, WORDS
from curation.report.reference import AESTHETIC, CAPTION_WORDS, CATEGORIES, DURATION_S

PUBLISHED = [(m.name, entry) for m in MEASURES for entry in m.published]


@pytest.mark.parametrize(
    ("name", "entry"), PUBLISHED, ids=lambda value: getattr(value, "corpus", value)
)
def test_published_percents_sum_to_a_hundred_as_far_as_they_are_published(name, entry):
    assert sum(p for p in entry.percents if p is not None) == pytest.approx(100, abs=0.02)


@pytest.mark.parametrize("scrambled", [DURATION_S, CAPTION_WORDS, CATEGORIES], ids=lambda s: s.bins)
def test_values_without_bins_are_sorted_so_that_no_order_is_pretended(scrambled):
    assert sorted(scrambled.percents, reverse=True) == list(scrambled.percents)
    assert sum(scrambled.percents) == pytest.approx(100, abs=0.02)
    assert "not recoverable" in scrambled.note


def test_the_shares_that_the_papers_text_states_are_the_figures():
    vimeo, webvid = AESTHETIC
    assert (vimeo.percents[2], vimeo.percents[3]) == (79.12, 16.89)
    assert (webvid.percents[2], webvid.percents[3]) == (72.58, 7.22)


def test_every_published_bin_is_one_that_we_count():
    for measure in MEASURES:
        ours = set(zip(measure.edges, measure.edges[1:], strict=False))
        for entry in measure.published:
            assert set(zip(entry.edges, entry.edges[1:], strict=False)) <= ours


def test_every_measure_has_a_name_for_every_bin():
    for measure in MEASURES:
        assert len(measure.bin_labels) == len(measure.edges) - 1, measure.name
    names = [figure.name for figure in (*MEASURES, *WORDS)]
    assert len(names) == len(set(names))
