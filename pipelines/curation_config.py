"""What a curation run is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from tyro.conf import Suppress, arg

from curation.decode.decoding_pass import DecodeConfig
from curation.export import ExportConfig
from curation.report import ReportConfig
from curation.select import SelectConfig
from curation.stations.aesthetics import AestheticsConfig
from curation.stations.alignment import AlignmentConfig
from curation.stations.caption_text import CaptionTextConfig
from curation.stations.captions import CaptionsConfig
from curation.stations.embeddings import EmbeddingsConfig
from curation.stations.overlay_text import OverlayTextConfig
from curation.stations.safety import SafetyConfig
from curation.stations.taxonomy import TaxonomyConfig

STATIONS = (
    "embeddings",
    "aesthetics",
    "overlay_text",
    "safety",
    "taxonomy",
    "captions",
    "caption_text",
    "alignment",
)
"""Keyframe stations, in the order of the river."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RiverConfig:
    """The stations of a run and their settings; a field of a station that is not on has no effect."""

    stations: tuple[str, ...] = STATIONS
    """Keyframe stations to run; each needs those whose columns it reads."""
    sources_per_part: int = 64
    """Sources in a part: what one worker does at a time, and loses when it is killed."""
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    """The decoding pass: scenes, motion, picture, keyframes."""
    embeddings: EmbeddingsConfig = field(default_factory=EmbeddingsConfig)
    """Keyframes as vectors."""
    aesthetics: AestheticsConfig = field(default_factory=AestheticsConfig)
    """LAION's aesthetic heads over the vectors."""
    overlay_text: OverlayTextConfig = field(default_factory=OverlayTextConfig)
    """Share of the picture that is text."""
    safety: SafetyConfig = field(default_factory=SafetyConfig)
    """Explicit content."""
    taxonomy: TaxonomyConfig = field(default_factory=TaxonomyConfig)
    """Category and tags."""
    captions: CaptionsConfig = field(default_factory=CaptionsConfig)
    """A sentence for each clip."""
    caption_text: CaptionTextConfig = field(default_factory=CaptionTextConfig)
    """Words, language, repetition of the sentence, and what models write when they fail."""
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    """How well the sentence fits the keyframes."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.stations if name not in STATIONS]
        if unknown:
            raise ValueError(
                f"stations must be among {', '.join(STATIONS)}, got {', '.join(unknown)}"
            )
        if self.sources_per_part < 1:
            raise ValueError(f"sources_per_part must be at least 1, got {self.sources_per_part}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CurationConfig:
    """From raw files to shards and a report."""

    river: Annotated[RiverConfig, arg(name="")] = field(default_factory=RiverConfig)
    """What is measured."""
    select: Suppress[SelectConfig] = field(default_factory=SelectConfig)
    """Which clips are kept; changed by --rule and --drop-rule, or by `lavie select`."""
    export: ExportConfig = field(default_factory=ExportConfig)
    """How they are cut and packed."""
    report: ReportConfig = field(default_factory=ReportConfig)
    """What the report shows."""
