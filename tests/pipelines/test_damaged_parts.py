"""A part that is missing, cut off, changed or of other clips: one sentence from every reader of parts."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from curation.corpus import layout
from curation.corpus.manifest import CorpusInfo, read_corpus
from curation.corpus.store import Store
from curation.errors import CorpusError, MissingPart, TornPart
from curation.export import ExportConfig, ShardWriter, plan_shards
from curation.report import ReportConfig, write_report
from curation.select import Rule, SelectConfig, select
from curation.stations.caption_text import CaptionText
from pipelines.jobs import StationJob

PART = 1


@pytest.fixture
def corpus(small_corpus: Path, tmp_path: Path) -> tuple[Store, CorpusInfo]:
    """A copy of the small corpus, to damage."""
    root = tmp_path / "corpus"
    shutil.copytree(small_corpus, root)
    store = Store(str(root))
    return store, read_corpus(store)


def selected(store: Store, info: CorpusInfo) -> None:
    rule = Rule(column="caption_status", one_of=("ok",))
    select(store, info, "again", SelectConfig(rules=(rule,)))


def exported(store: Store, info: CorpusInfo) -> None:
    shutil.rmtree(store.path(layout.shards("default")))  # what is in shards is not read again
    config = ExportConfig(x264_preset="ultrafast", max_clips_per_shard=4)
    plans = list(plan_shards(store, info, "default", config))
    writer = ShardWriter(store, info, "default", config)
    writer.setup()
    try:
        for plan in plans:
            if PART in plan.clips["part"].to_pylist():
                writer(plan)
    finally:
        writer.close()


def reported(store: Store, info: CorpusInfo) -> None:
    write_report(store, info, "default", ReportConfig())


def measured(store: Store, info: CorpusInfo) -> None:
    job = StationJob(store, CaptionText(), info.layers)
    job.setup()
    job.run(PART)


def missing(store: Store, name: str, other: str) -> None:
    store.delete(name)


def cut_off(store: Store, name: str, other: str) -> None:
    data = store.read(name)
    store.write(name, data[: len(data) // 2])


def flipped(store: Store, name: str, other: str) -> None:
    """One bit in the last page of every column: each reader meets one that it reads."""
    data = bytearray(store.read(name))
    group = pq.read_metadata(store.path(name)).row_group(0)
    for column in range(group.num_columns):
        chunk = group.column(column)
        first = chunk.dictionary_page_offset or chunk.data_page_offset
        data[first + chunk.total_compressed_size - 1] ^= 1
    store.write(name, bytes(data))


def of_other_clips(store: Store, name: str, other: str) -> None:
    store.write(name, store.read(other))


READERS: Mapping[str, Callable[[Store, CorpusInfo], None]] = {
    "select": selected,
    "export": exported,
    "report": reported,
    "station": measured,
}
FAULTS: Mapping[str, tuple[Callable[[Store, str, str], None], type[CorpusError], str]] = {
    "missing": (missing, MissingPart, "is missing: run the same `lavie curate` again"),
    "cut off": (cut_off, TornPart, "is damaged, `lavie verify --repair` makes it anew"),
    "flipped": (flipped, TornPart, "is damaged, `lavie verify --repair` makes it anew"),
    "of other clips": (of_other_clips, TornPart, "its rows are not those of the scenes layer"),
}


@pytest.mark.parametrize("layer", ["captions", "scenes"])
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("reader", READERS)
def test_every_reader_says_in_a_sentence_which_file_and_what_to_do(
    corpus: tuple[Store, CorpusInfo], reader: str, fault: str, layer: str
) -> None:
    store, info = corpus
    damage, kind, remedy = FAULTS[fault]
    name = layout.layer(info.layers[layer], PART)
    damage(store, name, layout.layer(info.layers[layer], 0))
    with pytest.raises(kind) as caught:
        READERS[reader](store, info)
    assert remedy in str(caught.value)
    assert "\n" not in str(caught.value)
    if (fault, layer) != ("of other clips", "scenes"):  # then it is the others that do not fit
        assert name in str(caught.value)


@pytest.mark.parametrize("layer", ["probe", "scenes"])
def test_a_corpus_without_a_layer_that_all_rests_on_is_refused(
    corpus: tuple[Store, CorpusInfo], layer: str
) -> None:
    store, info = corpus
    layers = {name: layer_id for name, layer_id in info.layers.items() if name != layer}
    bare = CorpusInfo(num_parts=info.num_parts, layers=layers)
    for reader in (selected, reported):
        with pytest.raises(CorpusError, match=rf"station '{layer}'|has None: run"):
            reader(store, bare)


def test_a_selection_of_other_clips_is_refused_with_what_makes_it(
    corpus: tuple[Store, CorpusInfo],
) -> None:
    store, info = corpus
    folder = layout.selection("default")
    first, second = (f"{folder}/{layout.part_file(part)}" for part in (0, PART))
    store.write(second, store.read(first))
    with pytest.raises(TornPart, match=r"not those of the scenes layer; run `lavie select` again"):
        reported(store, info)
    store.delete(second)
    for reader in (reported, exported):
        with pytest.raises(MissingPart, match=r"is missing: run `lavie select` again"):
            reader(store, info)
