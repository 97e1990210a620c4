"""The counters against numpy, and halves against wholes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.report.measures import MEASURES
from curation.report.statistics import MAX_WORDS, Distribution, Tally, range_labels

FLOATS = st.lists(st.floats(width=32), max_size=60)


def counted(edges: tuple[float, ...], values: np.ndarray) -> Distribution:
    distribution = Distribution(edges)
    distribution.add(values)
    return distribution


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.name)
def test_counts_of_every_figure_are_those_of_numpy_histogram(measure):
    rng = np.random.default_rng(0)
    finite = [edge for edge in measure.edges if np.isfinite(edge)]
    low, high = min(finite), max(finite)
    values = np.concatenate([rng.uniform(low, high, 5000), finite[:-1]])
    ours = counted(measure.edges, values)
    expected, _ = np.histogram(values, bins=np.array(measure.edges))
    assert ours.counts == expected.tolist()
    assert ours.outside == 0


def test_an_edge_belongs_to_the_bin_that_it_begins():
    assert counted((0.0, 2.0, 4.0, np.inf), np.array([0.0, 2.0, 4.0])).counts == [1, 1, 1]


def test_values_beyond_the_outer_edges_are_counted_apart():
    distribution = counted((0.0, 1.0), np.array([-0.1, 0.5, 1.0]))
    assert (distribution.counts, distribution.outside, distribution.num_values) == ([1], 2, 3)


def test_nan_and_infinite_values_are_missing_not_counted():
    distribution = counted((0.0, 1.0), np.array([np.nan, np.inf, -np.inf, 0.5]))
    assert (distribution.missing, distribution.num_values) == (3, 1)


@settings(max_examples=60, deadline=None)
@given(FLOATS, FLOATS)
def test_merging_two_halves_gives_the_whole_exactly(first, second):
    edges = (-np.inf, -1.0, 0.0, 1e-3, 1.0, 1e6, np.inf)
    merged = counted(edges, np.array(first))
    merged.merge(counted(edges, np.array(second)))
    assert merged == counted(edges, np.array(second + first))


@pytest.mark.parametrize("q", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("centre", [0.0, 5.0, 3000.0])
def test_quantiles_are_within_one_percent_of_the_exact_ones(q, centre):
    values = np.random.default_rng(1).normal(centre, 2.0, 20001)
    ours = counted((-np.inf, np.inf), values).quantile(q)
    exact = np.quantile(values, q, method="inverted_cdf")
    assert ours == pytest.approx(exact, rel=0.008, abs=1e-6)


def test_mean_minimum_and_maximum_are_those_of_numpy():
    values = np.random.default_rng(2).gamma(2, 3, 10_000)
    distribution = counted((0.0, np.inf), values)
    assert distribution.mean == pytest.approx(values.mean(), abs=1e-6)
    assert (distribution.low, distribution.high) == (values.min(), values.max())


def test_no_values_have_no_mean_and_no_quantile():
    distribution = counted((0.0, 1.0), np.array([]))
    assert distribution.mean is None
    assert distribution.quantile(0.5) is None


def test_edges_that_do_not_rise_are_refused():
    with pytest.raises(ValueError, match="edges must rise"):
        Distribution((1.0, 1.0))


def test_tally_counts_texts_and_nulls_over_parts():
    first, second = Tally(), Tally()
    first.add(pa.array(["a", "b", None, "a"]))
    second.add(pa.chunked_array([["b"], ["c", None]]))
    first.merge(second)
    assert first.ranked() == [("a", 2), ("b", 2), ("c", 1)]
    assert (first.missing, first.num_values) == (2, 5)


def test_tally_stays_bounded_when_every_text_differs():
    tally = Tally()
    tally.add(pa.array([f"{number:07d}" for number in range(MAX_WORDS + 5)]))
    assert len(tally.counts) == MAX_WORDS
    assert (tally.others, tally.num_values) == (5, MAX_WORDS + 5)


def test_tally_cuts_long_texts():
    tally = Tally()
    tally.add(pa.array(["x" * 10_000]))
    assert [len(text) for text, _ in tally.ranked()] == [80]


def test_bins_are_named_by_their_ranges():
    assert range_labels([-np.inf, 0, 0.5, np.inf]) == ["<0", "0-0.5", ">=0.5"]
    assert range_labels([0, 1, 3, np.inf], whole=True) == ["0", "1-2", "3+"]
