"""Contact sheets: a few kept and a few rejected clips, one picture each.

Which clips are shown follows from their ids alone: an id is a uuid5, a digest, so the smallest ids
are a fair draw that any order of parts gives again.
"""

from __future__ import annotations

import base64
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.corpus.manifest import CorpusInfo
from curation.corpus.parts import read_clips
from curation.corpus.schema import CLIP_COLUMNS, LAYER_OF
from curation.corpus.selection import read_verdicts
from curation.corpus.store import Store
from curation.report.settings import ReportConfig
from curation.report.text import cut_text, safe_uri

CARD_COLUMNS = (
    "uri",
    "start_s",
    "duration_s",
    "width",
    "height",
    "fps",
    "motion_mean",
    "brightness_mean",
    "aesthetic_score",
    "overlay_text_share",
    "scene_text_share",
    "nsfw_score",
    "category",
    "tags",
    "caption",
    "caption_engine",
)
"""What a card may say of its clip, as far as the corpus has it."""
MAX_CAPTION_CHARS = 200
MAX_NAME_CHARS = 80
MAX_URI_CHARS = 300
MAX_PIXELS = 1 << 24
"""A keyframe's short side is at most 384 px; more pixels than this are no keyframe."""


class Shown(NamedTuple):
    """A clip of the sheet: its place says which one, for the same bytes under two names have one id."""

    clip_id: str
    part: int
    row: int

    @property
    def place(self) -> str:
        """Part and row as one text, the key of its picture."""
        return f"{self.part}-{self.row}"


@dataclass(slots=True)
class Choice:
    """Clips to show: even over their strata (reasons, buckets), the smallest ids of each.

    Args:
        limit: how many at most.
    """

    limit: int
    strata: dict[str, list[Shown]] = field(default_factory=lambda: defaultdict(list))

    def add(self, part: int, clip_ids: pa.ChunkedArray, strata: pa.ChunkedArray) -> None:
        """Consider some clips of one part; a row that has no stratum (null) is not among them.

        Args:
            part: their part.
            clip_ids: of every row of the part.
            strata: of every row of the part; null for clips that are not to be shown.
        """
        rows = pa.array(np.arange(len(clip_ids)))
        table = pa.table({"clip_id": clip_ids, "row": rows, "stratum": strata})
        order = [("clip_id", "ascending"), ("row", "ascending")]
        for stratum in pc.unique(table["stratum"].drop_null()).to_pylist():
            those = table.filter(pc.equal(table["stratum"], stratum))
            best = those.take(pc.select_k_unstable(those, k=self.limit, sort_keys=order))
            self._keep(stratum, [Shown(r["clip_id"], part, r["row"]) for r in best.to_pylist()])

    def merge(self, other: Choice) -> None:
        """Add up with a choice among other clips."""
        for stratum, clips in other.strata.items():
            self._keep(stratum, clips)

    def _keep(self, stratum: str, clips: Iterable[Shown]) -> None:
        self.strata[stratum] = sorted([*self.strata[stratum], *clips])[: self.limit]

    def chosen(self) -> list[Shown]:
        """The clips, one stratum after the other in turns."""
        names = sorted(self.strata)
        turns = [
            (turn, name, clip) for name in names for turn, clip in enumerate(self.strata[name])
        ]
        first = sorted(turns, key=lambda entry: (entry[0], entry[1]))[: self.limit]
        # Shown stratum by stratum, so that neighbours share their reason.
        return [clip for _, _, clip in sorted(first, key=lambda entry: (entry[1], entry[0]))]


def cards(
    store: Store,
    info: CorpusInfo,
    selection: str,
    chosen: Sequence[Shown],
    *,
    rules: Mapping[str, str],
    config: ReportConfig,
) -> list[dict[str, Any]]:
    """What the contact sheet says of each chosen clip, in their order.

    Args:
        store: the corpus.
        info: its corpus.json.
        selection: whose verdicts.
        chosen: the clips, each once.
        rules: rule -> the column it reads.
        config: size and quality of the pictures, and which are left out.

    Returns:
        One dict a clip; `picture` is base64 of a JPEG, '' where `withheld` says why not.
    """
    by_part: dict[int, list[int]] = defaultdict(list)
    for clip in chosen:
        by_part[clip.part].append(clip.row)
    found: dict[tuple[int, int], dict[str, Any]] = {}
    for part in sorted(by_part):
        rows = sorted(by_part[part])
        shown = _clips(store, info, part, rows, rules)
        verdicts = read_verdicts(store, selection, part, ["failed_rules", "bucket", "tier"])
        verdicts = verdicts.take(pa.array(rows, pa.int64()))
        for row, columns, verdict in zip(rows, shown, verdicts.to_pylist(), strict=True):
            frames = columns.pop("keyframes", None) or []
            card = _card(columns, verdict, rules)
            middle = frames[len(frames) // 2] if frames else None
            found[part, row] = card | _picture(middle, card, config)
    return [{"place": clip.place} | found[clip.part, clip.row] for clip in chosen]


def _clips(
    store: Store, info: CorpusInfo, part: int, rows: Sequence[int], rules: Mapping[str, str]
) -> list[dict[str, Any]]:
    """What the corpus has of some clips, as far as a card shows it."""
    present = {"sources", *info.layers}
    asked = [*CARD_COLUMNS, "keyframes", *(c for c in rules.values() if c in CLIP_COLUMNS)]
    columns = [c for c in dict.fromkeys(asked) if LAYER_OF[c] in present]
    return read_clips(store, info.layers, part, columns, rows=rows).to_pylist()


def _card(
    clip: dict[str, Any], verdict: dict[str, Any], rules: Mapping[str, str]
) -> dict[str, Any]:
    clip |= {
        "short_side": min(clip["width"], clip["height"]),
        "aspect": clip["width"] / clip["height"] if clip["height"] else None,
    }
    card = {name: _short(clip[name]) for name in CARD_COLUMNS if name in clip}
    return card | {
        "clip_id": clip["clip_id"],
        "uri": cut_text(safe_uri(clip["uri"]), MAX_URI_CHARS),
        "name": cut_text(safe_uri(clip["uri"]).rstrip("/").rpartition("/")[2], MAX_NAME_CHARS),
        "caption": cut_text(clip.get("caption") or "", MAX_CAPTION_CHARS),
        "tags": [cut_text(tag, MAX_NAME_CHARS) for tag in (clip.get("tags") or [])[:3]],
        "bucket": verdict["bucket"],
        "tier": verdict["tier"],
        "failed": [
            {
                "rule": rule,
                "column": rules.get(rule),
                "value": _number(clip.get(rules.get(rule, ""))),
            }
            for rule in verdict["failed_rules"]
        ],
    }


def _short(value: Any) -> Any:
    """A value as a card shows it: texts cut, all else as it is."""
    return cut_text(value, MAX_NAME_CHARS) if isinstance(value, str) else value


def _number(value: Any) -> float | None:
    """A value that can be shown beside a rule: numbers only."""
    return float(value) if isinstance(value, int | float) else None


def _picture(
    keyframe: bytes | None, card: Mapping[str, Any], config: ReportConfig
) -> dict[str, str]:
    if keyframe is None:
        return {"picture": "", "withheld": "no keyframe"}
    if (card.get("nsfw_score") or 0.0) > config.hide_nsfw_above:
        return {"picture": "", "withheld": "picture withheld: may be explicit"}
    data = small_jpeg(keyframe, side_px=config.picture_side_px, quality=config.picture_quality)
    if data is None:
        return {"picture": "", "withheld": "keyframe unreadable"}
    return {"picture": base64.b64encode(data).decode("ascii"), "withheld": ""}


def small_jpeg(keyframe: bytes, *, side_px: int, quality: int) -> bytes | None:
    """A keyframe, decoded and encoded again: only pixels travel into the page, no metadata.

    Args:
        keyframe: JPEG or WebP bytes.
        side_px: longer side of the result at most.
        quality: of the JPEG, 1..95.

    Returns:
        JPEG bytes; None if the keyframe is no picture, or one of too many pixels.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(keyframe), formats=("JPEG", "WEBP")) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                return None
            rgb = picture.convert("RGB")
    except (UnidentifiedImageError, OSError):
        return None
    rgb.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    rgb.save(out, "JPEG", quality=quality, optimize=True)
    return out.getvalue()
