"""What a curation run is made of."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Annotated, Any

from tyro.conf import Suppress, arg

from curation.decode.decoding_pass import DecodeConfig
from curation.export import ExportConfig
from curation.report import ReportConfig
from curation.select import SelectConfig
from curation.stations.aesthetics import Aesthetics, AestheticsConfig
from curation.stations.alignment import Alignment, AlignmentConfig
from curation.stations.caption_text import CaptionText, CaptionTextConfig
from curation.stations.captions import Captions, CaptionsConfig
from curation.stations.embeddings import Embeddings, EmbeddingsConfig
from curation.stations.logos import Logos, LogosConfig
from curation.stations.overlay_text import OverlayText, OverlayTextConfig
from curation.stations.safety import Safety, SafetyConfig
from curation.stations.station import Station
from curation.stations.taxonomy import Taxonomy, TaxonomyConfig


def station_names() -> tuple[str, ...]:
    """Keyframe stations, in the order of the river."""
    return tuple(station.name for station in STATIONS)


@dataclass(frozen=True, slots=True, kw_only=True)
class RiverConfig:
    """The stations of a run and their settings; a field of a station that is not on has no effect.

    A field whose metadata names a station puts it into the river: this list is the only one, and its order
    is the order in which a clip meets them.
    """

    stations: tuple[str, ...] = field(default_factory=station_names)
    """Keyframe stations to run; each needs those whose columns it reads."""
    sources_per_part: int = 64
    """Sources in a part: what one worker does at a time, and loses when it is killed."""
    bytes_per_part: int = 1_000_000_000
    """The most bytes of the sources in a part, where they are known; a larger source is a part alone."""
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    """The decoding pass: scenes, motion, picture, keyframes."""
    embeddings: EmbeddingsConfig = field(
        default_factory=EmbeddingsConfig, metadata={"station": Embeddings}
    )
    """Keyframes as vectors."""
    aesthetics: AestheticsConfig = field(
        default_factory=AestheticsConfig, metadata={"station": Aesthetics}
    )
    """LAION's aesthetic heads over the vectors."""
    overlay_text: OverlayTextConfig = field(
        default_factory=OverlayTextConfig, metadata={"station": OverlayText}
    )
    """Text in the picture: laid over it, or part of the scene."""
    logos: LogosConfig = field(default_factory=LogosConfig, metadata={"station": Logos})
    """Logos and watermarks."""
    safety: SafetyConfig = field(default_factory=SafetyConfig, metadata={"station": Safety})
    """Explicit content."""
    taxonomy: TaxonomyConfig = field(default_factory=TaxonomyConfig, metadata={"station": Taxonomy})
    """Category and tags."""
    captions: CaptionsConfig = field(default_factory=CaptionsConfig, metadata={"station": Captions})
    """A sentence for each clip."""
    caption_text: CaptionTextConfig = field(
        default_factory=CaptionTextConfig, metadata={"station": CaptionText}
    )
    """Words, language, repetition of the sentence, and what models write when they fail."""
    alignment: AlignmentConfig = field(
        default_factory=AlignmentConfig, metadata={"station": Alignment}
    )
    """How well the sentence fits the keyframes."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.stations if name not in station_names()]
        if unknown:
            raise ValueError(
                f"stations must be among {', '.join(station_names())}, got {', '.join(unknown)}"
            )
        for name in ("sources_per_part", "bytes_per_part"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


STATIONS: tuple[type[Station[Any]], ...] = tuple(
    setting.metadata["station"] for setting in fields(RiverConfig) if "station" in setting.metadata
)
"""Every keyframe station, in the order of the river."""


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
