"""What a run tells Ray's metrics, and says at its end."""

from __future__ import annotations

from collections import Counter

import pytest
from ray.util import metrics as ray_metrics

from curation.corpus.ledger import Commit
from curation.corpus.record_file import Record
from pipelines.metrics import KEPT_S, VIDEO_S, RunMetrics, in_one_sentence
from pipelines.stages import StageCost
from pipelines.worker import Ran, UnitResult


def test_a_committed_unit_is_counted_by_stage_and_reject(monkeypatch: pytest.MonkeyPatch) -> None:
    told: Counter[tuple[str, ...]] = Counter()

    def inc(self: ray_metrics.Counter, amount: float, tags: dict[str, str]) -> None:
        assert set(tags) == set(self.info["tag_keys"])
        told[self.info["name"], *tags.values()] += amount  # type: ignore[assignment]

    monkeypatch.setattr(ray_metrics.Counter, "inc", inc)
    counts = {"sources": 3, "scenes": 5, VIDEO_S: 60, KEPT_S: 40, "rejected: empty": 2}
    records = [Record(sha256="", size_bytes=size, num_rows=1) for size in (100, 20)]
    commits = [Commit(folder="layers/probe@1-a", part=0, record=record) for record in records]
    result = UnitResult(counts=counts, commits=commits)
    metrics = RunMetrics()
    ran = Ran(result=result, wall_s=4.0, setup_s=0.0, cpu_s=3.0, memory_bytes=1)
    metrics.committed("decode", ran)
    metrics.failed("decode")
    assert told == {
        ("lavie_units", "decode"): 1,
        ("lavie_clips", "decode"): 5,
        ("lavie_video_seconds_in", "decode"): 60,
        ("lavie_video_seconds_kept", "decode"): 40,
        ("lavie_worker_seconds", "decode"): 4.0,
        ("lavie_cpu_seconds", "decode"): 3.0,
        ("lavie_bytes", "decode"): 120,
        ("lavie_failures", "decode"): 1,
        ("lavie_rejects", "decode", "empty"): 2,
    }


def test_a_run_says_its_pace_and_where_its_time_went() -> None:
    costs = {
        "decode": StageCost(units=2, wall_s=5400, cpu_s=7200, counts=Counter({VIDEO_S: 36000})),
        "captions": StageCost(units=2, wall_s=1800, cpu_s=1800),
        "safety": StageCost(),
    }
    assert list(in_one_sentence(costs)) == [
        "10.00 hours of video in 2.50 CPU-hours: 4.0 video-hours per CPU-hour",
        "most of the workers' time went into decode: 75% of 2.00 worker-hours",
    ]
    assert list(in_one_sentence({"decode": StageCost()})) == []
