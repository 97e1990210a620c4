"""Named runs.

`embedded` needs no model hub: every model file comes with a package of the Python index. `vimeo25m` is
what LaVie's corpus asks for, with today's models. `tiny` is what the tests run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from curation.decode.decoding_pass import DecodeConfig
from curation.export import ExportConfig
from curation.select import rule_presets
from curation.select.caption_rules import ALIGNED, ENGLISH, with_caption_gate
from curation.stations.aesthetics import AestheticsConfig
from curation.stations.alignment import AlignmentConfig
from curation.stations.captions import CaptionsConfig
from curation.stations.embeddings import EmbeddingsConfig
from curation.stations.taxonomy import TaxonomyConfig
from pipelines.curation_config import CurationConfig, RiverConfig, station_names

PresetName = Literal["embedded", "vimeo25m", "tiny"]


def vimeo25m() -> CurationConfig:
    """What LaVie describes (arXiv 2309.15103, section 5.1), with CLIP ViT-L/14 and LAION's v2 head.

    Captions are those that the source list gives; clips without one fail the caption rule. For a model's,
    set `--captions.engines given endpoint` (or transformers, vllm) and the model: docs/captions.md.
    """
    river = RiverConfig(
        sources_per_part=64,  # hours of video a part: a worker killed loses minutes
        embeddings=EmbeddingsConfig(engine="open_clip"),
        aesthetics=AestheticsConfig(head="v2_l14"),
        taxonomy=TaxonomyConfig(engine="clip"),
        captions=CaptionsConfig(engines=("given",)),
    )
    select = with_caption_gate(rule_presets.paper(), ENGLISH, ALIGNED)
    return CurationConfig(river=river, select=select)


def embedded() -> CurationConfig:
    """Models that packages ship: no CLIP, so no aesthetic score, and captions are made of tags."""
    needs_clip = {"aesthetics"}
    river = RiverConfig(
        stations=tuple(name for name in station_names() if name not in needs_clip),
        sources_per_part=1,  # a handful of films on a laptop: every film its own part
        decode=DecodeConfig(threads=2),
        embeddings=EmbeddingsConfig(engine="efficientnet_lite0"),
        taxonomy=TaxonomyConfig(engine="imagenet"),
        captions=CaptionsConfig(engines=("given", "tags"), min_tag_score=0.05),
        alignment=AlignmentConfig(engine="tags"),
    )
    return CurationConfig(
        river=river,
        select=rule_presets.embedded(),
        export=ExportConfig(max_clips_per_shard=32),
    )


def tiny() -> CurationConfig:
    """No model at all: decoding, given captions, their text. What the tests run."""
    config = embedded()
    river = replace(
        config.river,
        stations=("captions", "caption_text"),
        decode=DecodeConfig(threads=1),
        captions=CaptionsConfig(engines=("given",)),
    )
    return replace(config, river=river, select=rule_presets.everything())


PRESETS: dict[PresetName, Callable[[], CurationConfig]] = {
    "embedded": embedded,
    "vimeo25m": vimeo25m,
    "tiny": tiny,
}
