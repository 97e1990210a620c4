"""What the report counts: columns, fixed bins, units, and how each figure is read.

Bins are fixed, not fitted to the corpus, so that reports of different corpora and the counters of
different parts can be laid beside each other. Bin i holds ``edges[i] <= value < edges[i + 1]``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curation.report.reference import (
    AESTHETIC,
    CAPTION_WORDS,
    CATEGORIES,
    DURATION_S,
    HEIGHT_PX,
    INF,
    WIDTH_PX,
    Published,
    Scrambled,
)
from curation.report.statistics import range_labels


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One number of clips, and the bins in which the report counts it."""

    name: str
    """Id of the figure in statistics.json."""
    title: str
    """Heading."""
    unit: str
    """Unit of the bins; empty for plain numbers."""
    reads: str
    """One sentence that tells a reader what the number is."""
    columns: tuple[str, ...]
    """What it is computed from."""
    edges: tuple[float, ...]
    """Edges of the bins."""
    labels: tuple[str, ...] = ()
    """Names of the bins; their ranges where not given."""
    videos_only: bool = False
    """Whether still images have no such number."""
    value: Callable[[pa.Table], NDArray[np.floating]] | None = None
    """How it comes from the columns; the first column itself if not given."""
    published: tuple[Published, ...] = ()
    """The same figure in LaVie's paper."""
    scrambled: Scrambled | None = None
    """The same figure in LaVie's paper, without its bins."""

    @property
    def bin_labels(self) -> tuple[str, ...]:
        """A name for every bin."""
        return self.labels or tuple(range_labels(self.edges))

    def values(self, clips: pa.Table) -> NDArray[np.floating]:
        """The number of each clip, NaN where it has none."""
        if self.value is not None:
            return self.value(clips)
        return numbers(clips, self.columns[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """One text of clips whose values the report counts."""

    name: str
    """Id of the figure in statistics.json."""
    title: str
    """Heading."""
    reads: str
    """One sentence that tells a reader what the text is."""
    columns: tuple[str, ...]
    """What it is taken from."""
    value: Callable[[pa.Table], pa.ChunkedArray] | None = None
    """How it comes from the columns; the first column itself if not given."""
    scrambled: Scrambled | None = None
    """Something comparable in LaVie's paper."""

    def values(self, clips: pa.Table) -> pa.ChunkedArray:
        """The text of each clip, null where it has none."""
        return self.value(clips) if self.value is not None else clips[self.columns[0]]


def numbers(clips: pa.Table, column: str) -> NDArray[np.float64]:
    """A column as float64, NaN where null."""
    filled = pc.fill_null(pc.cast(clips[column], pa.float64()), float("nan"))
    return filled.combine_chunks().to_numpy(zero_copy_only=False)


def _aspect(clips: pa.Table) -> NDArray[np.float64]:
    height = numbers(clips, "height")
    return numbers(clips, "width") / np.where(height > 0, height, np.nan)


def _first_tag(clips: pa.Table) -> pa.ChunkedArray:
    tags = clips["tags"]
    some = pc.greater(pc.fill_null(pc.list_value_length(tags), 0), 0)
    # list_element fails on empty lists: those become null before it looks.
    return pc.list_element(pc.if_else(some, tags, pa.scalar(None, tags.type)), 0)


_WORD_EDGES = (0.0, 1.0, 3.0, 4.0, 7.0, 9.0, 11.0, 13.0, INF)

MEASURES: tuple[Measure, ...] = (
    Measure(
        name="aesthetic",
        title="Aesthetic score",
        unit="",
        reads="LAION aesthetic predictor over CLIP embeddings, mean over keyframes. LaVie does not "
        "say which model it used: compare shapes, not tenths.",
        columns=("aesthetic_score",),
        edges=(-INF, 0.0, 2.0, 4.0, 6.0, 8.0, 10.0, INF),
        published=AESTHETIC,
    ),
    Measure(
        name="height",
        title="Height",
        unit="px",
        reads="Shown height of the picture, in the paper's bins.",
        columns=("height",),
        edges=(0.0, 400.0, 600.0, 800.0, INF),
        published=HEIGHT_PX,
    ),
    Measure(
        name="width",
        title="Width",
        unit="px",
        reads="Shown width of the picture, in the paper's bins.",
        columns=("width",),
        edges=(0.0, 400.0, 600.0, 800.0, INF),
        published=WIDTH_PX,
    ),
    Measure(
        name="duration",
        title="Clip length",
        unit="s",
        reads="Seconds from the clip's first frame to the end of its last, in the paper's bins; "
        "videos only.",
        columns=("duration_s",),
        edges=(0.0, 2.0, 4.0, 8.0, 14.0, 20.0, INF),
        videos_only=True,
        scrambled=DURATION_S,
    ),
    Measure(
        name="caption_words",
        title="Words in the caption",
        unit="words",
        reads="0 where a clip has no caption. The paper drops captions with fewer than 3 words.",
        columns=("caption_words",),
        edges=_WORD_EDGES,
        labels=tuple(range_labels(_WORD_EDGES, whole=True)),
        scrambled=CAPTION_WORDS,
    ),
    Measure(
        name="aspect",
        title="Aspect ratio",
        unit="width / height",
        reads="Named by the nearest common format; edges 0.65, 0.88, 1.16, 1.55 (cosmos-curate's) "
        "and 2.0.",
        columns=("width", "height"),
        edges=(0.0, 0.65, 0.88, 1.16, 1.55, 2.0, INF),
        labels=("9:16", "3:4", "1:1", "4:3", "16:9", "wider"),
        value=_aspect,
    ),
    Measure(
        name="motion",
        title="Motion",
        unit="short sides/s",
        reads="Mean length of the optical flow, in short sides of the picture per second; videos "
        "only. LaVie publishes no motion figure.",
        columns=("motion_mean",),
        edges=(0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, INF),
        videos_only=True,
    ),
    Measure(
        name="text_area",
        title="Overlaid text",
        unit="% of the picture",
        reads="Share of the picture under text that was laid over it, mean over keyframes; signs in "
        "the scene do not count. Stable Video Diffusion rejects over 7 % of text of any kind.",
        columns=("overlay_text_share",),
        edges=(0.0, 0.001, 0.01, 0.02, 0.04, 0.07, 0.15, 0.3, INF),
        labels=("<0.1", "0.1-1", "1-2", "2-4", "4-7", "7-15", "15-30", ">=30"),
    ),
    Measure(
        name="brightness",
        title="Brightness",
        unit="mean luma, 0-255",
        reads="Mean luma over sampled frames: 16 is video black, 235 video white. Allegro "
        "keeps 20-180.",
        columns=("brightness_mean",),
        edges=(0.0, 20.0, 50.0, 80.0, 110.0, 140.0, 180.0, 215.0, INF),
    ),
    Measure(
        name="sharpness",
        title="Sharpness",
        unit="variance of the Laplacian",
        reads="Of luma at analysis size, median over sampled frames: low is blurred or plain, high "
        "is detailed or noisy.",
        columns=("sharpness",),
        edges=(0.0, 100.0, 300.0, 1000.0, 2000.0, 3000.0, 5000.0, INF),
    ),
    Measure(
        name="fps",
        title="Frame rate",
        unit="frames/s",
        reads="Frames over duration; videos only. Bars are named by the common rate in their bin.",
        columns=("fps",),
        edges=(0.0, 14.0, 23.5, 24.5, 27.0, 31.0, 49.0, 51.0, 61.0, INF),
        labels=("<14", "14-23", "24", "25", "30", "31-48", "50", "60", ">=61"),
        videos_only=True,
    ),
    Measure(
        name="nsfw",
        title="Explicit content",
        unit="probability",
        reads="Of the keyframe that looks most explicit, by the safety model.",
        columns=("nsfw_score",),
        edges=(0.0, 0.05, 0.1, 0.2, 0.5, 0.8, INF),
        labels=("<0.05", "0.05-0.1", "0.1-0.2", "0.2-0.5", "0.5-0.8", ">=0.8"),
    ),
)

WORDS: tuple[Word, ...] = (
    Word(
        name="category",
        title="Categories",
        reads="The likeliest of Vimeo's ten categories, by the taxonomy station.",
        columns=("category",),
        scrambled=CATEGORIES,
    ),
    Word(
        name="tag",
        title="Most frequent tags",
        reads="The likeliest tag of each clip, by the taxonomy station.",
        columns=("tags",),
        value=_first_tag,
    ),
    Word(
        name="language",
        title="Languages of the captions",
        reads="Code of the language that the caption was detected to be in.",
        columns=("caption_language",),
    ),
    Word(
        name="caption_engine",
        title="Where captions come from",
        reads="'given': from the source list. 'tags': a stop-gap that strings tags together. Else "
        "the model engine.",
        columns=("caption_engine",),
    ),
    Word(
        name="licence",
        title="Licences",
        reads="As given in the source list; nothing checks them.",
        columns=("licence",),
    ),
)

FIGURES: tuple[Measure | Word, ...] = (*MEASURES, *WORDS)
"""All that the report can show."""

ALWAYS_READ = ("duration_s", "scene_reject")
"""Read whatever figures there are: which clips are videos, which had no keyframe."""
