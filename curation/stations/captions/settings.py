"""Settings of the station, and what of them names the layer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from curation.stations.caption_models.prompts import check_name
from curation.stations.caption_models.settings import EndpointConfig, TransformersConfig, VllmConfig

Engine = Literal["timed", "given", "tags", "transformers", "endpoint", "vllm"]
GivenColumn = Literal["given_caption", "title", "description"]
ENGINES = ("timed", "given", "tags", "transformers", "endpoint", "vllm")
MODEL_ENGINES = ("transformers", "endpoint", "vllm")


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionWeights:
    """How often each text of a clip is drawn in training; scaled to 1 over those that it has."""

    short: float = 0.5
    """The short caption; 0.5, 0.25, 0.25 are Stable Video Diffusion's (2311.15127, appendix C)."""
    long: float = 0.25
    """The paragraph."""
    given: float = 0.25
    """What the source list gives, beside a model's caption; 0 to leave it out."""

    def __post_init__(self) -> None:
        if self.short <= 0 or self.long < 0 or self.given < 0:
            raise ValueError(
                "captions.weights must not be negative, and short must be over 0, got "
                f"{self.short}, {self.long}, {self.given}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionsConfig:
    """Settings of the station."""

    engines: tuple[Engine, ...] = ("given",)
    """Asked in this order; the first sentence wins. A model engine may only come last."""
    given_columns: tuple[GivenColumn, ...] = ("given_caption", "description", "title")
    """Columns of the source list that count as captions, in order of precedence: what was written
    as a caption, then what describes, then what only names. All clips of a source get the same."""
    timed: str = ""
    """File of captions for stretches of films, that `timed` reads; on every machine."""
    num_tags: int = 3
    """Most tags in a sentence of `tags`."""
    min_tag_score: float = 0.1
    """Probability from which a tag is put into a sentence, 0..1."""
    prompt: str = "clip-json@1"
    """What a model is told: a prompt of `curation/captioners/prompts`, or the path of such a
    file."""
    frames_per_clip: int = 8
    """Keyframes shown to a model, evenly over the clip; the decoding pass keeps 8 at most."""
    max_tokens: int = 512
    """Most tokens of a model's answer; the JSON of prompt 1 takes about 250."""
    temperature: float = 0.0
    """0 takes the likeliest token each time; over 0 the seed is made of the clip's id."""
    weights: CaptionWeights = field(default_factory=CaptionWeights)
    """How often each of up to three texts is drawn."""
    transformers: TransformersConfig = field(default_factory=TransformersConfig)
    """A model in the worker's process."""
    endpoint: EndpointConfig = field(default_factory=EndpointConfig)
    """A model behind an address."""
    vllm: VllmConfig = field(default_factory=VllmConfig)
    """A model in the worker's process, under vLLM."""

    def __post_init__(self) -> None:
        if not self.engines or set(self.engines) - set(ENGINES):
            raise ValueError(
                f"captions.engines must be out of {', '.join(ENGINES)}, got {self.engines}"
            )
        if set(self.engines[:-1]) & set(MODEL_ENGINES):
            raise ValueError(
                "captions.engines may have a model only at the end: a clip on which it fails is a "
                f"row that says so, not another engine's; got {self.engines}"
            )
        if "endpoint" in self.engines and not (self.endpoint.base_url and self.endpoint.model):
            raise ValueError("captions.endpoint needs base_url and model, got an empty one")
        if ("timed" in self.engines) != bool(self.timed):
            raise ValueError(
                "captions.timed must name a file where captions.engines has 'timed', and only there, got "
                f"{self.timed!r} with {', '.join(self.engines)}"
            )
        check_name(self.prompt)
        allowed = {"given_caption", "title", "description"}
        if set(self.given_columns) - allowed:
            raise ValueError(
                f"captions.given_columns must be out of {', '.join(sorted(allowed))}, "
                f"got {self.given_columns}"
            )
        if self.num_tags < 1:
            raise ValueError(f"captions.num_tags must be at least 1, got {self.num_tags}")
        if not 0 <= self.min_tag_score <= 1:
            raise ValueError(f"captions.min_tag_score must lie in 0..1, got {self.min_tag_score}")
        if self.frames_per_clip < 1 or self.max_tokens < 1 or self.temperature < 0:
            raise ValueError(
                "captions.frames_per_clip and max_tokens must be at least 1 and temperature at "
                f"least 0, got {self.frames_per_clip}, {self.max_tokens}, {self.temperature}"
            )

    @property
    def model_engine(self) -> str | None:
        """The engine that asks a model, if one is chosen."""
        return self.engines[-1] if self.engines[-1] in MODEL_ENGINES else None

    @property
    def taken_columns(self) -> tuple[GivenColumn, ...]:
        """Columns of the source list that are read: as captions, or beside a model's."""
        beside = self.model_engine is not None and self.weights.given > 0
        return self.given_columns if "given" in self.engines or beside else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionsIdentity:
    """What determines the captions, and so names the layer: not how fast they come or whence."""

    engines: tuple[str, ...]
    """As set."""
    given_columns: tuple[str, ...]
    """As set; empty where no text is taken from the source list."""
    tags: tuple[float, ...]
    """Most tags and their least score; empty where tags are not asked."""
    model: str = ""
    """Name of the model; the digests of its files are the layer's weights."""
    prompt: str = ""
    """Name, version and digest."""
    asked: tuple[str, ...] = ()
    """How the model is asked: frames, limit of tokens, temperature, number format and the like."""
    weights: tuple[float, ...] = ()
    """Of short, long and given."""
