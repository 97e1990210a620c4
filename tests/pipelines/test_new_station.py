"""ARCHITECTURE.md, "Add a station in five steps": done in a copy of the tree, as the page says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

COLUMNS = """
COLOURFULNESS = (
    Column("colourfulness", F32, "mean over keyframes of Hasler's M; null without any", "0..255"),
)

LAYERS: dict[str, Layer] = {"""

LAYER = """    "colourfulness": Layer("How colourful the keyframes are.", COLOURFULNESS),
    "captions": Layer("""

STATION = '''"""Station `colourfulness`: Hasler and Suesstrunk, "Measuring colourfulness" (2003)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curation.corpus.schema import layer_schema
from curation.stations.keyframe_images import map_keyframes, reduced
from curation.stations.station import Station
from curation.weights.catalog import Weight


@dataclass(frozen=True, slots=True, kw_only=True)
class ColourfulnessConfig:
    """Settings of the station."""

    mean_weight: float = 0.3
    """What the mean of the opponent colours counts beside their deviation."""


def colourfulness(pixels_HWC: NDArray[np.float32], *, mean_weight: float) -> float:
    """M = deviation + 0.3 mean of the opponent colours red-green and yellow-blue, 0 for grey."""
    red, green, blue = np.moveaxis(pixels_HWC, -1, 0)
    opponents = np.stack([red - green, (red + green) / 2 - blue]).reshape(2, -1)
    deviation = np.linalg.norm(opponents.std(axis=1))
    return float(deviation + mean_weight * np.linalg.norm(opponents.mean(axis=1)))


class Colourfulness(Station[ColourfulnessConfig]):
    """Adds `colourfulness`."""

    name = "colourfulness"
    version = 1
    config_class = ColourfulnessConfig
    needs = ("keyframes",)

    def weights(self) -> Sequence[Weight]:
        """None."""
        return []

    def setup(self) -> None:
        """Nothing to load."""

    def __call__(self, clips: pa.Table) -> pa.Table:
        """Measure every keyframe."""
        weight = self.config.mean_weight
        values = map_keyframes(
            clips,
            prepare=lambda p: np.array([colourfulness(np.asarray(p, np.float32), mean_weight=weight)]),
            compute=lambda batch: batch.astype(np.float32),
            batch_size=64,
        )
        schema = layer_schema(self.name)
        return pa.Table.from_arrays([clips["clip_id"], reduced(values, np.mean)], schema=schema)
'''

IMPORT = """from curation.stations.colourfulness import Colourfulness, ColourfulnessConfig
from curation.stations.embeddings import"""

FIELD = '''    colourfulness: ColourfulnessConfig = field(
        default_factory=ColourfulnessConfig, metadata={"station": Colourfulness}
    )
    """How colourful the keyframes are."""
    captions: CaptionsConfig'''

USE = """
import json, sys
import numpy as np
from dataclasses import replace
from curation.corpus.document import corpus_page
from curation.corpus.manifest import read_corpus
from curation.corpus.parts import read_clips
from curation.corpus.store import Store
from curation.decode.decoding_pass import DecodingPass
from curation.export.facts import clip_columns
from curation.report import ReportConfig, write_report
from curation.select import Dedup, Rule, SelectConfig, select
from curation.stations.colourfulness import colourfulness
from pipelines import river
from pipelines.curation_config import STATIONS
from pipelines.jobs import StationJob
from pipelines.presets import embedded, tiny

store = Store(sys.argv[1])
info = read_corpus(store)
config = tiny().river
config = replace(config, stations=("colourfulness", *config.stations))
stations = river.stations(config)
ids = river.layer_ids(DecodingPass(config.decode), stations)
job = StationJob(store, stations[0], {**info.layers, "colourfulness": ids["colourfulness"]})
job.setup()
for part in range(info.num_parts):
    job.run(part)
info = replace(info, layers=dict(job.layers))
tables = [read_clips(store, info.layers, p, ["colourfulness"]) for p in range(info.num_parts)]
values = [value for table in tables for value in table["colourfulness"].to_pylist()]
threshold = float(np.median([value for value in values if value is not None]))
rule = Rule(column="colourfulness", min=threshold)
no_dedup = Dedup(copies=False, look_alikes=False)
funnel = select(store, info, "s", SelectConfig(rules=(rule,), dedup=no_dedup))
paths = write_report(store, info, "s", ReportConfig())
report = json.loads(store.read(paths.statistics))
print(json.dumps({
    "order": [station.name for station in STATIONS],
    "chosen": [station.name for station in stations],
    "embedded": "colourfulness" in embedded().river.stations,
    "grey": colourfulness(np.full((4, 4, 3), 128.0, np.float32), mean_weight=0.3),
    "values": values,
    "threshold": threshold,
    "kept": funnel.kept.clips,
    "failed": [f for card in report["contact_sheet"]["rejected"] for f in card["failed"]],
    "lineage": [layer["name"] for layer in report["lineage"]["layers"]],
    "exported": "colourfulness" in clip_columns(info.layers),
    "docs": "## colourfulness" in corpus_page(),
}))
"""


def put(path: Path, before: str, after: str) -> None:
    """Replace a text that stands there once."""
    text = path.read_text()
    assert text.count(before) == 1, f"{before!r} stands {text.count(before)} times in {path}"
    path.write_text(text.replace(before, after))


def python(tree: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_station_is_added_by_what_the_page_says_and_nothing_else(
    small_corpus: Path, tmp_path: Path
) -> None:
    tree, corpus = tmp_path / "tree", tmp_path / "corpus"
    for package in ("curation", "pipelines"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, tree / package, ignore=ignored)
    shutil.copytree(small_corpus, corpus)
    schema = tree / "curation/corpus/schema.py"
    put(schema, "\nLAYERS: dict[str, Layer] = {", COLUMNS)  # step 1
    put(schema, '    "captions": Layer(', LAYER)
    (tree / "curation/stations/colourfulness.py").write_text(STATION)  # step 2; no model: no step 3
    config = tree / "pipelines/curation_config.py"
    put(config, "from curation.stations.embeddings import", IMPORT)  # step 4
    put(config, "    captions: CaptionsConfig", FIELD)

    said = json.loads(python(tree, "-c", USE, str(corpus)))

    order = said["order"]
    assert order.index("taxonomy") < order.index("colourfulness") < order.index("captions")
    assert said["chosen"] == ["colourfulness", "captions", "caption_text"]
    assert said["embedded"], "a station is on in every preset that does not leave it out"
    assert said["grey"] == 0
    assert len(set(said["values"])) > 5
    assert said["kept"] == sum(value >= said["threshold"] for value in said["values"])
    assert {failed["column"] for failed in said["failed"]} == {"colourfulness"}
    assert "colourfulness" in said["lineage"]
    assert said["exported"]
    assert said["docs"]
