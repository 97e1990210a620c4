"""What of a part a station is shown at once."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curation.corpus.manifest import read_corpus
from curation.corpus.parts import read_clips
from curation.corpus.store import Store
from curation.stations.logos import Logos
from pipelines import curate
from pipelines.jobs import StationJob, block_starts
from pipelines.presets import tiny


def test_blocks_are_of_one_source_and_begin_with_its_first_clip() -> None:
    sources = np.repeat([4, 5, 9], [70, 3, 40])
    assert block_starts(sources, 32).tolist() == [0, 32, 64, 70, 73, 105]
    assert block_starts(sources[:1], 32).tolist() == [0]


def test_clips_that_a_station_sees_together_are_never_divided_where_few_fit_into_memory(
    small_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Logos, "clips_together", 3)
    tables = []
    for number, at_once in enumerate((1000, 5)):
        monkeypatch.setattr("pipelines.jobs.CLIPS_AT_ONCE", at_once)
        root = tmp_path / str(number)
        shutil.copytree(small_corpus, root)
        store = Store(str(root))
        river = curate.configure(replace(tiny().river, stations=("logos",)))
        seen: list[int] = []

        class Watched(Logos):
            def __call__(self, clips: pa.Table) -> pa.Table:
                seen.append(clips.num_rows)  # noqa: B023
                return super().__call__(clips)

        job = StationJob(store, Watched(), river.layers)
        job.setup()
        num_parts = read_corpus(store).num_parts
        for part in range(num_parts):
            job.run(part)
        assert max(seen) <= at_once
        columns = ["logo", "logo_share", "logo_box"]
        tables.append([read_clips(store, river.layers, part, columns) for part in range(num_parts)])
    assert len(seen) > num_parts
    assert tables[0] == tables[1]
