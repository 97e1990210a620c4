"""Captions part by part: runs that are killed and resumed, failed clips that are asked again."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from curation.corpus import layout
from curation.corpus.ledger import Ledger, PartState
from curation.corpus.parts import read_clips, read_table, to_parquet
from curation.corpus.schema import SOURCES, layer_schema, schema
from curation.corpus.store import Store
from curation.stations.caption_models.settings import EndpointConfig
from curation.stations.caption_text import CaptionText
from curation.stations.captions import Captions, CaptionsConfig
from curation.stations.station import made_by
from pipelines.again import noted_parts
from pipelines.jobs import StationJob
from pipelines.retry import Retries

LAYERS = {
    "probe": "probe@1-t",
    "scenes": "scenes@1-t",
    "keyframes": "keyframes@1-t",
    "captions": "captions@1-t",
    "caption_text": "caption_text@1-t",
}
WORKER = """
import sys
from curation.stations.caption_models.settings import EndpointConfig
from curation.stations.captions import Captions, CaptionsConfig
from curation.corpus import layout
from curation.corpus.store import Store
from pipelines.jobs import StationJob
root, url, parts = sys.argv[1], sys.argv[2], int(sys.argv[3])
layers = {name: f"{name}@1-t" for name in ("probe", "scenes", "keyframes", "captions")}
endpoint = EndpointConfig(base_url=url, model="m", key_env="", backoff_s=0.01, concurrency=64,
                          max_attempts=12, max_answer_attempts=6)
store = Store(root)
job = StationJob(store, Captions(CaptionsConfig(engines=("endpoint",), endpoint=endpoint)), layers)
job.setup()
for part in range(parts):
    if not store.exists(layout.layer(layers["captions"], part)):
        job.run(part)
"""


def filled(name, columns):
    """A layer's table: these columns, nulls elsewhere."""
    wanted = layer_schema(name) if name != "sources" else schema(SOURCES)
    count = len(next(iter(columns.values())))
    arrays = [
        pa.array(columns[f.name], f.type) if f.name in columns else pa.nulls(count, f.type)
        for f in wanted
    ]
    return pa.Table.from_arrays(arrays, schema=wanted)


def frames_of(part, row):
    """Bytes that begin like a JPEG and belong to one clip alone."""
    return [b"\xff\xd8\xff" + f"{part}/{row}/{j}".encode() for j in range(1 + row % 4)]


def make_corpus(root: Path, *, num_parts: int, clips_per_part: int) -> Store:
    """Parts whose keyframes lie there; nothing is captioned."""
    store = Store(str(root))
    for part in range(num_parts):
        ids = [
            f"{part}-{hashlib.sha256(f'{part}/{r}'.encode()).hexdigest()[:12]}"
            for r in range(clips_per_part)
        ]
        scenes = {
            "clip_id": ids,
            "source_row": [0] * len(ids),
            "scene_index": range(len(ids)),
            "duration_s": [4.0] * len(ids),
        }
        keyframes = {"clip_id": ids, "keyframes": [frames_of(part, r) for r in range(len(ids))]}
        store.write(layout.sources(part), to_parquet(filled("sources", {"uri": ["a.mp4"]})))
        for name, columns in (("scenes", scenes), ("keyframes", keyframes)):
            store.write(layout.layer(LAYERS[name], part), to_parquet(filled(name, columns)))
    return store


def mismatches(tools, store, num_parts):
    """Rows whose caption is not that of their own frames; every row must have one."""
    wrong = 0
    for part in range(num_parts):
        table = read_clips(store, LAYERS, part, ["caption", "keyframes"]).to_pylist()
        for row in table:
            urls = [
                "data:image/jpeg;base64," + base64.b64encode(f).decode() for f in row["keyframes"]
            ]
            wrong += row["caption"] != tools.answer_of(urls)["short"]
    return wrong


def shuffled(tools, seed=0):
    """A server that answers after random times, and sometimes breaks off, fails or babbles."""
    generator = random.Random(seed)

    def behave(body, nth):
        kind = generator.random()
        if kind < 0.02:
            return tools.Act(b"x" * 99, close_after=7)
        if kind < 0.04:
            return tools.Act(b"", status=503)
        if kind < 0.05:
            return tools.Act(tools.completion("no JSON"))
        return replace(tools.good(body, nth), delay_s=generator.uniform(0, 0.1))

    return behave


def run_and_kill(tools, server, store, *, num_parts, num_kills):
    """Run the worker, kill -9 it at random times, run it again until it ends by itself."""
    server.behave = shuffled(tools)
    generator = random.Random(1)
    command = [sys.executable, "-c", WORKER, store.root, server.url, str(num_parts)]
    killed = 0
    while True:
        asked = len(server.requests)
        worker = subprocess.Popen(command, cwd=Path(__file__).parents[4])
        if killed == num_kills:
            assert worker.wait(500) == 0
            return killed
        more = generator.randint(100, 600)
        while len(server.requests) < asked + more and worker.poll() is None:
            time.sleep(0.01)
        if worker.poll() is None:
            os.kill(worker.pid, signal.SIGKILL)
            killed += 1
        worker.wait()


def test_a_killed_and_resumed_run_puts_no_caption_on_another_clip(server, tools, tmp_path):
    store = make_corpus(tmp_path, num_parts=4, clips_per_part=100)
    assert run_and_kill(tools, server, store, num_parts=4, num_kills=1) == 1
    assert mismatches(tools, store, 4) == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_thousand_clips_with_shuffled_latencies_and_crashes_have_no_mismatch(
    server, tools, tmp_path
):
    store = make_corpus(tmp_path, num_parts=20, clips_per_part=500)
    assert run_and_kill(tools, server, store, num_parts=20, num_kills=5) == 5
    assert mismatches(tools, store, 20) == 0
    total = sum(
        read_table(store, layout.layer(LAYERS["captions"], part), ["caption"]).num_rows
        for part in range(20)
    )
    assert total == 10_000


@pytest.fixture
def half_failed(server, tools, tmp_path):
    """Two parts captioned; the server would not take some clips of the first."""
    store = make_corpus(tmp_path, num_parts=2, clips_per_part=10)
    bad = {base64.b64encode(frames_of(0, row)[0]).decode() for row in (2, 5, 9)}

    def behave(body, nth):
        if tools.pictures_of(body)[0].rpartition(",")[2] in bad:
            return tools.Act(b"no", status=422)
        return tools.good(body, nth)

    server.behave = behave
    endpoint = EndpointConfig(base_url=server.url, model="m", key_env="")
    stations = [
        Captions(CaptionsConfig(engines=("endpoint",), endpoint=endpoint)),
        CaptionText(),
    ]
    for station in stations:
        job = StationJob(store, station, LAYERS)
        job.setup()
        for part in range(2):
            job.run(part)
    server.behave = tools.good
    server.requests.clear()
    return store, stations


def note_failed(store, stations):
    """What a driver does before a run with --retry-failed; counts, and the states of both layers."""
    ledger = Ledger(store)
    for layer_id in LAYERS.values():
        ledger.reconcile(layout.layer_folder(layer_id), 2)
    counts = Retries(ledger, stations, LAYERS, LAYERS, 2).note_failed(
        {}, schema(SOURCES).empty_table()
    )
    folders = [layout.layer_folder(LAYERS[station.name]) for station in stations]
    return counts, [ledger.states(folder, 2) for folder in folders]


def test_only_failed_clips_are_asked_again_and_what_was_made_of_them_follows(
    half_failed, server, tools
):
    store, stations = half_failed
    place = layout.layer(LAYERS["captions"], 0)
    before = read_table(store, place)
    untouched = store.read(layout.layer(LAYERS["captions"], 1))
    counts, (captions, _) = note_failed(store, stations)
    assert (counts["captions"], captions) == (3, [PartState.AGAIN, PartState.DONE])
    for station in stations:
        job = StationJob(store, station, LAYERS)
        job.setup()
        assert job.run(0, True).counts["clips"] == 3
    assert len(server.requests) == 3
    after = read_table(store, place)
    assert mismatches(tools, store, 2) == 0
    assert after.schema.equals(before.schema, check_metadata=True)
    kept = pc.equal(before["caption_status"], "ok")
    assert after.filter(kept).equals(before.filter(kept))
    words = read_table(store, layout.layer(LAYERS["caption_text"], 0))["caption_words"]
    assert min(words.to_pylist()) > 0
    assert store.read(layout.layer(LAYERS["captions"], 1)) == untouched


def test_without_failures_nothing_is_noted(half_failed, server):
    store, stations = half_failed
    StationJob(store, stations[0], LAYERS).run(0)
    server.requests.clear()
    counts, states = note_failed(store, stations)
    assert not counts
    assert states == [[PartState.DONE] * 2] * 2
    assert not noted_parts(store)
    assert server.requests == []


def test_a_noted_part_that_is_not_there_is_made_whole(half_failed, server, tools):
    store, stations = half_failed
    note_failed(store, stations)
    store.delete(layout.layer(LAYERS["captions"], 0))
    assert StationJob(store, stations[0], LAYERS).run(0, True).counts["clips"] == 10
    metadata = read_table(store, layout.layer(LAYERS["captions"], 0)).schema.metadata
    assert json.loads(metadata[b"lavie.layer"]) == json.loads(json.dumps(made_by(stations[0])))
