"""What a run tells Ray's metrics while it goes, and in one sentence when it has ended.

Ray serves them to Prometheus under `ray_lavie_...`, where its dashboard's agent runs (`ray[default]`);
`deploy/grafana-lavie.json` shows them. All is counted by the driver, when a unit is committed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ray.util.metrics import Counter

from pipelines.stages import StageCost
from pipelines.worker import Ran

VIDEO_S, KEPT_S = "video seconds", "video seconds in clips"
"""Counters of the decoding job: seconds of video that were read, and that lie in scenes long enough."""
_REJECTED = "rejected: "
_STAGE = ("stage",)


class RunMetrics:
    """Counters of a run, by stage."""

    def __init__(self) -> None:
        def counter(name: str, what: str, tags: tuple[str, ...] = _STAGE) -> Counter:
            return Counter(f"lavie_{name}", description=what, tag_keys=tags)

        self._units = counter("units", "units that were committed")
        self._clips = counter("clips", "clips that went through, or came out of decoding")
        self._video_s = counter("video_seconds_in", "seconds of video that were decoded")
        self._kept_s = counter("video_seconds_kept", "seconds of it in scenes that are long enough")
        self._wall_s = counter("worker_seconds", "time in units, summed over workers")
        self._cpu_s = counter("cpu_seconds", "processor time of workers and their children")
        self._bytes = counter("bytes", "bytes of the parts that were put")
        self._failures = counter("failures", "tries of units that failed")
        self._rejects = counter("rejects", "rejected sources by reason", ("stage", "reason"))

    def committed(self, stage: str, ran: Ran) -> None:
        """A unit was done."""
        tags, counts = {"stage": stage}, ran.result.counts
        amounts = (
            (self._units, 1),
            (self._clips, counts.get("clips", counts.get("scenes", 0))),
            (self._video_s, counts.get(VIDEO_S, 0)),
            (self._kept_s, counts.get(KEPT_S, 0)),
            (self._wall_s, ran.wall_s),
            (self._cpu_s, ran.cpu_s),
            (self._bytes, sum(commit.record.size_bytes for commit in ran.result.commits)),
        )
        for counter, amount in amounts:
            if amount > 0:
                counter.inc(amount, tags)
        for name, number in counts.items():
            if name.startswith(_REJECTED):
                reason = name.removeprefix(_REJECTED)
                self._rejects.inc(number, {**tags, "reason": reason})

    def failed(self, stage: str) -> None:
        """A try of a unit failed, and was counted."""
        self._failures.inc(1, {"stage": stage})


def in_one_sentence(costs: Mapping[str, StageCost]) -> Iterator[str]:
    """Video-hours per CPU-hour, and the stage that the workers spent most time in; nothing for no work."""
    cpu_s = sum(cost.cpu_s for cost in costs.values())
    worker_s = {name: cost.wall_s for name, cost in costs.items() if cost.units}
    video_s = sum(cost.counts[VIDEO_S] for cost in costs.values())
    if video_s and cpu_s > 0:
        yield (
            f"{video_s / 3600:,.2f} hours of video in {cpu_s / 3600:,.2f} CPU-hours: "
            f"{video_s / cpu_s:,.1f} video-hours per CPU-hour"
        )
    total_s = sum(worker_s.values())
    if total_s > 0:
        slowest = max(worker_s, key=lambda name: worker_s[name])
        yield (
            f"most of the workers' time went into {slowest}: {worker_s[slowest] / total_s:.0%} of "
            f"{total_s / 3600:,.2f} worker-hours"
        )
