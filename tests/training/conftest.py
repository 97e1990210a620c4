"""A small corpus, made by the curation itself, that the tests of training read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

SCENE_FRAMES = 54  # 2.25 s at 24 frames a second
LOOKS = ("red", "teal", "gold", "navy", "olive")


@pytest.fixture(autouse=True)
def _one_torch_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def make_corpus(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``make_corpus({"film.mp4": "its caption", ...}, folder)``: an exported corpus of the files.

    All steps of `lavie curate --preset tiny`, in this process: Ray takes longer to start than this.
    A caption of None is none. ``name`` is that of the selection.
    """

    def make(captions: dict[str, str | None], folder: Path, *, name: str = "default") -> Path:
        from curation.corpus.store import Store
        from curation.select import select
        from curation.shards import ExportConfig, ShardWriter, finish_shards, plan_shards
        from curation.sources import list_sources
        from pipelines import corpus as corpora
        from pipelines import curate
        from pipelines.jobs import DecodeJob, StationJob
        from pipelines.presets import tiny

        sources = folder / "sources.jsonl"
        rows = [
            {"uri": file} | ({} if caption is None else {"caption": caption})
            for file, caption in captions.items()
        ]
        sources.write_text("\n".join(json.dumps(row) for row in rows))
        root = tmp_path_factory.mktemp("corpus")
        store, config = Store(str(root)), tiny()
        river = curate.configure(config.river)
        num_parts = corpora.deal_sources(store, list_sources([str(sources)]), sources_per_part=4)
        info = corpora.record(
            store, num_parts=num_parts, layers=river.layers, settings={}, command="tests"
        )
        jobs = [DecodeJob(store, river.decoding, river.layers)]
        jobs += [StationJob(store, station, river.layers) for station in river.stations]
        for job in jobs:
            job.setup()
            for part in range(num_parts):
                job.run(part)
            job.close()
        select(store, info, name, config.select)
        export = ExportConfig(x264_preset="ultrafast", max_clips_per_shard=4)
        plans = list(plan_shards(store, info, name, export))
        writer = ShardWriter(store, info, name, export)
        writer.setup()
        for plan in plans:
            writer(plan)
        writer.close()
        finish_shards(store, name)
        return root

    return make


@pytest.fixture(scope="session")
def small_media(
    tmp_path_factory: pytest.TempPathFactory,
    make_video: Callable[..., Path],
    texture: Callable[..., object],
) -> Path:
    """Folder with six wide and two tall films of five and four scenes, and eight pictures."""
    folder = tmp_path_factory.mktemp("media")
    options = {"preset": "ultrafast", "threads": "1"}
    for number in range(6):
        scenes = [(f"{look}/{number}", SCENE_FRAMES) for look in LOOKS]
        make_video(folder / f"wide-{number}.mp4", scenes, size=(128, 72), options=options)
    for number in range(2):
        scenes = [(f"{look}/tall {number}", SCENE_FRAMES) for look in LOOKS[:4]]
        make_video(folder / f"tall-{number}.mp4", scenes, size=(96, 128), options=options)
    for number in range(8):
        picture = texture(f"{LOOKS[number % 5]}/picture {number}", (160, 120))
        Image.fromarray(picture).save(folder / f"picture-{number}.jpg", quality=90)  # type: ignore[arg-type]
    return folder


@pytest.fixture(scope="session")
def small_corpus(small_media: Path, make_corpus: Callable[..., Path]) -> Path:
    """Path of an exported corpus: 30 wide and 8 tall clips of 2.25 s, 24 frames a second, and 8 images.

    All have captions; shards hold 4 clips. Tests only read it.
    """
    names = sorted(path.name for path in small_media.iterdir())
    captions = {name: f"what {name.split('.')[0]} shows" for name in names}
    return make_corpus(captions, small_media)
