"""Settings of the engines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

AnswerFormat = Literal["json_schema", "json_object", "text"]
Dtype = Literal["float32", "bfloat16", "float16"]


def _at_least(where: str, least: float, **values: float) -> None:
    for name, value in values.items():
        if not value >= least:
            raise ValueError(f"{where}.{name} must be at least {least:g}, got {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformersConfig:
    """Engine 'transformers': an image-text-to-text model in this process.

    Known to fit: Qwen2-VL, Qwen2.5-VL, Qwen3-VL, SmolVLM2, LLaVA and its kin; any model whose
    configuration `AutoModelForImageTextToText` knows and whose processor has a chat template.
    """

    model: str = "Qwen/Qwen2.5-VL-7B-Instruct"
    """Repository on the Hugging Face hub (already downloaded), or the path of a model folder
    (beginning with '/', './' or '../')."""
    revision: str = "main"
    """Branch, tag or commit of the repository; unused for a folder."""
    message: Literal["images", "video"] = "images"
    """How the frames are shown: as a row of pictures, or as a video. Models trained on video (Qwen,
    SmolVLM2) spend fewer tokens on 'video'; LLaVA takes 'images' only."""
    dtype: Dtype = "bfloat16"
    """Number format of the weights; 'float16' is for GPUs."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """'auto' takes the GPU that the worker was given, else the CPU."""
    batch_size: int = 8
    """Clips answered at once. Not part of the layer's name: it changes the speed, and of a caption
    no more than rounding does."""
    num_threads: int = 1
    """Processor threads of one worker."""
    gpu_share: float = 1.0
    """Share of a GPU that a worker takes, where there is one."""
    memory_bytes: int = 24 * 1024**3
    """Resident memory that one worker stays under: on a CPU, the weights and half as much again."""
    usd_per_hour: float = 0.0
    """Price of one worker's machine share, for the cost that a run prints; 0 for unknown."""

    def __post_init__(self) -> None:
        where = "captions.transformers"
        if not self.model:
            raise ValueError(f"{where}.model must name a model, got ''")
        if self.message not in ("images", "video"):
            raise ValueError(f"{where}.message must be 'images' or 'video', got {self.message!r}")
        if self.dtype not in ("float32", "bfloat16", "float16"):
            raise ValueError(
                f"{where}.dtype must be float32, bfloat16 or float16, got {self.dtype!r}"
            )
        if self.device not in ("auto", "cpu", "cuda"):
            raise ValueError(f"{where}.device must be 'auto', 'cpu' or 'cuda', got {self.device!r}")
        _at_least(where, 1, batch_size=self.batch_size, num_threads=self.num_threads)
        _at_least(where, 0, gpu_share=self.gpu_share, usd_per_hour=self.usd_per_hour)


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmConfig:
    """Engine 'vllm': vLLM in this process, for which `pip install 'lavie[vllm]'` is needed."""

    model: str = "Qwen/Qwen2.5-VL-7B-Instruct"
    """Repository on the Hugging Face hub (already downloaded), or the path of a model folder."""
    revision: str = "main"
    """Branch, tag or commit of the repository; unused for a folder."""
    dtype: Dtype = "bfloat16"
    """Number format of the weights."""
    max_model_len: int = 16_384
    """Tokens of prompt, pictures and answer together; 8 frames of 683x384 are about 2,700 in
    Qwen2.5-VL (one a 28x28 patch)."""
    gpu_memory_utilization: float = 0.9
    """Share of the GPU's memory that vLLM takes for weights and cache."""
    num_gpus: int = 1
    """GPUs of one worker (tensor parallel)."""
    usd_per_hour: float = 0.0
    """Price of one worker's machine share, for the cost that a run prints; 0 for unknown."""

    def __post_init__(self) -> None:
        where = "captions.vllm"
        if not self.model:
            raise ValueError(f"{where}.model must name a model, got ''")
        if self.dtype not in ("float32", "bfloat16", "float16"):
            raise ValueError(
                f"{where}.dtype must be float32, bfloat16 or float16, got {self.dtype!r}"
            )
        if not 0 < self.gpu_memory_utilization <= 1:
            raise ValueError(
                f"{where}.gpu_memory_utilization must lie in 0..1, "
                f"got {self.gpu_memory_utilization}"
            )
        _at_least(where, 1, max_model_len=self.max_model_len, num_gpus=self.num_gpus)
        _at_least(where, 0, usd_per_hour=self.usd_per_hour)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointConfig:
    """Engine 'endpoint': any server that speaks OpenAI's chat completions."""

    base_url: str = ""
    """Address up to and with the version, such as 'http://gpu-7:8000/v1'; no key in it."""
    model: str = ""
    """Name by which the server knows the model."""
    key_env: str = "LAVIE_ENDPOINT_KEY"
    """Environment variable that holds the key, on every machine of the cluster; '' where the server
    wants none. The key itself is never written anywhere."""
    allow_plain_http: bool = False
    """Send the key over http to another machine, where whoever listens can read it."""
    answer_format: AnswerFormat = "json_schema"
    """What the server is asked to hold the model to: 'json_schema' (vLLM, SGLang, OpenAI),
    'json_object' (older servers), or 'text' (nothing but the prompt)."""
    token_limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"  # noqa: S105
    """What the server calls the limit of an answer; OpenAI's reasoning models know only the
    second."""
    concurrency: int = 32
    """Requests in flight for one worker; the cluster's is this times the workers."""
    timeout_s: float = 120.0
    """For one request, from sending to the last byte."""
    connect_timeout_s: float = 10.0
    """For one connection."""
    deadline_s: float = 600.0
    """For one clip, all tries and waits together; then it is a row with reason 'timeout'."""
    max_attempts: int = 6
    """Tries for one clip: after a broken connection, 408, 429 or 5xx."""
    max_answer_attempts: int = 2
    """Times that a clip is asked about again in all when the answer is not the JSON asked for."""
    backoff_s: float = 1.0
    """Longest first wait; the n-th is random in 0..backoff_s * 2^n, at most `max_wait_s`."""
    max_wait_s: float = 60.0
    """Longest wait between two tries, also when the server's Retry-After asks for more."""
    give_up_after: int = 50
    """Clips in a row without any answer after which the run stops: the server is gone."""
    max_reply_bytes: int = 1024**2
    """Longest answer that is read."""
    usd_per_million_tokens_in: float = 0.0
    """Price of prompt tokens, for the cost that a run prints; 0 for unknown."""
    usd_per_million_tokens_out: float = 0.0
    """Price of written tokens."""

    def __post_init__(self) -> None:
        where = "captions.endpoint"
        if self.base_url:
            _check_base_url(f"{where}.base_url", self.base_url)
        if self.answer_format not in ("json_schema", "json_object", "text"):
            raise ValueError(
                f"{where}.answer_format must be 'json_schema', 'json_object' or 'text', "
                f"got {self.answer_format!r}"
            )
        for name in ("concurrency", "max_attempts", "max_answer_attempts", "give_up_after"):
            _at_least(where, 1, **{name: getattr(self, name)})
        for name in ("timeout_s", "connect_timeout_s", "deadline_s", "max_wait_s", "backoff_s"):
            _at_least(where, 0.001, **{name: getattr(self, name)})
        for name in ("usd_per_million_tokens_in", "usd_per_million_tokens_out"):
            _at_least(where, 0, **{name: getattr(self, name)})
        _at_least(where, 1024, max_reply_bytes=self.max_reply_bytes)


def _check_base_url(name: str, url: str) -> None:
    """Refuse what is no plain address; the message never repeats it, for it may hold a key."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{name} must be an http or https address, got one of {parts.scheme!r}")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError(
            f"{name} must hold no user, password, query or fragment: "
            "the key comes from the environment"
        )
