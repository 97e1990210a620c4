"""CPU time of each keyframe station, and what the text detector finds with and without text.

    python benchmarks/keyframe_stations.py            the stations on Big Buck Bunny
    python benchmarks/keyframe_stations.py --clip     also CLIP ViT-B/32, random weights
    python benchmarks/keyframe_stations.py --text FILM...   also the detector at several settings

Needs `lavie weights fetch embedded`. One thread a station; CPU time, so that a busy machine counts
less.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pyarrow as pa
from PIL import Image

from curation.stations.clip_model import ClipModel
from curation.stations.embeddings import Embeddings, EmbeddingsConfig
from curation.stations.overlay_text import OverlayText, OverlayTextConfig
from curation.stations.safety import Safety
from curation.stations.taxonomy import Taxonomy, TaxonomyConfig
from curation.weights.catalog import BIG_BUCK_BUNNY, BIG_BUCK_BUNNY_TRAILER, find


def pictures(film: Path, *, every_s: float, start_s: float = 0.0, end_s: float = 1e9) -> Iterator:
    """Pictures at most 384 px high, one every so many seconds, as the keyframes layer has them."""
    import av

    with av.open(str(film)) as container:
        due_s = start_s
        for frame in container.decode(video=0):
            if frame.time is None or frame.time < due_s:
                continue
            if frame.time > end_s:
                return
            due_s = frame.time + every_s
            picture = frame.to_image()
            picture.thumbnail((683, 384))
            yield picture


def clips_of(found: list[Image.Image]) -> pa.Table:
    """Eight keyframes a clip."""

    def jpeg(picture: Image.Image) -> bytes:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=90)
        return buffer.getvalue()

    rows = [[jpeg(p) for p in found[i : i + 8]] for i in range(0, len(found), 8)]
    return pa.table(
        {
            "clip_id": [str(i) for i in range(len(rows))],
            "keyframes": pa.array(rows, pa.list_(pa.binary())),
        }
    )


def measure(label: str, station: Any, clips: pa.Table, num: int) -> pa.Table:
    """Print one line of the table; the second of two runs counts."""
    started = time.process_time()
    station.setup()
    setup_s = time.process_time() - started
    station(clips.slice(0, 1))
    started = time.process_time()
    added = station(clips)
    print(f"| {label} | {(time.process_time() - started) / num * 1e3:.1f} | {setup_s:.1f} |")
    return added


def clip_folder(folder: Path) -> Path:
    """ViT-B/32 with random weights as a model folder."""
    import json

    import torch

    from curation.weights.torchvision_shim import ensure_torchvision

    ensure_torchvision()
    import open_clip
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-32")
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    config = {"model_cfg": open_clip.get_model_config("ViT-B-32"), "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


def stations(*, with_clip: bool) -> None:
    """The first table."""
    clips = clips_of(list(pictures(find(BIG_BUCK_BUNNY), every_s=2.4, start_s=30, end_s=220)))
    num = sum(len(row) for row in clips["keyframes"].to_pylist())
    print(f"{num} keyframes, one thread\n\n| station | CPU-ms a keyframe | setup CPU-s |")
    print("| --- | --- | --- |")
    lite = Embeddings(EmbeddingsConfig(engine="efficientnet_lite0"))
    embedded = measure("embeddings, EfficientNet-Lite0", lite, clips, num)
    measure("taxonomy, imagenet", Taxonomy(TaxonomyConfig(engine="imagenet")), embedded, num)
    measure("safety", Safety(), clips, num)
    for px in (320, 640):
        station = OverlayText(OverlayTextConfig(long_side_px=px))
        measure(f"overlay_text, {px} px", station, clips, num)
    if with_clip:
        with tempfile.TemporaryDirectory() as folder:
            path = str(clip_folder(Path(folder)))
            for precision in ("fp32", "bf16"):
                clip = ClipModel(architecture=path, precision=precision)
                station = Embeddings(EmbeddingsConfig(clip=clip))
                measure(f"embeddings, CLIP ViT-B/32 {precision}", station, clips, num)


def text(films: list[Path]) -> None:
    """The second table: share of pictures with a box, and with more than 7 % under boxes."""
    film, trailer = find(BIG_BUCK_BUNNY), find(BIG_BUCK_BUNNY_TRAILER)
    sets = {
        "film 40-480 s, no text": list(pictures(film, every_s=4, start_s=40, end_s=480)),
        "film 500-580 s, credits": list(pictures(film, every_s=4, start_s=500, end_s=580)),
        "trailer, titles in half of it": list(pictures(trailer, every_s=1)),
    } | {path.name: list(pictures(path, every_s=0.7)) for path in films}
    print("\n| px | pixel, box threshold | " + " | ".join(sets) + " |")
    print("| --- | --- |" + " --- |" * len(sets))
    for px in (320, 480, 640):
        for pixel, box in ((0.2, 0.4), (0.3, 0.6), (0.3, 0.7)):
            station = OverlayText(
                OverlayTextConfig(long_side_px=px, pixel_threshold=pixel, box_threshold=box)
            )
            station.setup()
            cells = []
            for found in sets.values():
                shares = np.array([station.measure(picture)[0] for picture in found])
                cells.append(f"{(shares > 0).mean():.0%} / {(shares > 0.07).mean():.0%}")
            print(f"| {px} | {pixel}, {box} | " + " | ".join(cells) + " |")


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clip", action="store_true", help="also CLIP ViT-B/32, random weights")
    parser.add_argument(
        "--text", nargs="*", type=Path, help="also the detector, on these films too"
    )
    arguments = parser.parse_args()
    stations(with_clip=arguments.clip)
    if arguments.text is not None:
        text(arguments.text)


if __name__ == "__main__":
    main()
