"""The station; see the package's docstring."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from curation.corpus.schema import layer_schema
from curation.stations.caption_models.answer import AnswerError, parse_answer
from curation.stations.caption_models.captioner import (
    Captioner,
    Question,
    Reply,
    Sampling,
    in_order,
    spread,
)
from curation.stations.caption_models.checkpoint import model_digest, model_files
from curation.stations.caption_models.prompts import Prompt, load_prompt
from curation.stations.captions.cost import counted
from curation.stations.captions.rows import (
    Caption,
    given_caption,
    model_caption,
    tags_caption,
    timed_caption,
)
from curation.stations.captions.settings import CaptionsConfig, CaptionsIdentity
from curation.stations.captions.timed import TimedCaptions
from curation.stations.station import Resources, Station
from curation.weights.catalog import Weight, find, weight_at


class Captions(Station[CaptionsConfig]):
    """Adds `caption`, its companions, and where they came from."""

    name = "captions"
    version = 1
    config_class = CaptionsConfig

    def __init__(self, config: CaptionsConfig | None = None) -> None:
        super().__init__(config)
        self._counts: dict[str, int] = {}

    @property
    def settings(self) -> CaptionsIdentity:
        """What names the layer: a changed address, batch size or timeout makes no caption anew."""
        config, engine = self.config, self.config.model_engine
        plain = CaptionsIdentity(
            engines=config.engines,
            given_columns=config.taken_columns,
            tags=(config.num_tags, config.min_tag_score) if "tags" in config.engines else (),
            weights=(config.weights.short, config.weights.long)
            if "timed" in config.engines
            else (),
        )
        if engine is None:
            return plain
        ways = {
            "transformers": (config.transformers.message, config.transformers.dtype),
            "vllm": (config.vllm.dtype,),
            "endpoint": (config.endpoint.answer_format,),
        }
        asked = (config.frames_per_clip, config.max_tokens, config.temperature, *ways[engine])
        weights = config.weights
        return CaptionsIdentity(
            engines=plain.engines,
            given_columns=plain.given_columns,
            tags=plain.tags,
            model=self._model,
            prompt=load_prompt(config.prompt).label,
            asked=tuple(str(value) for value in asked),
            weights=(weights.short, weights.long, weights.given),
        )

    @property
    def _model(self) -> str:
        engine = self.config.model_engine
        return str(getattr(self.config, engine).model) if engine else ""

    @property
    def resources(self) -> Resources:
        """What one worker takes."""
        engine, config = self.config.model_engine, self.config
        if engine == "transformers":
            return Resources(
                cpus=config.transformers.num_threads,
                gpus=config.transformers.gpu_share,
                memory_bytes=config.transformers.memory_bytes,
            )
        if engine == "vllm":
            return Resources(gpus=config.vllm.num_gpus, memory_bytes=16 * 1024**3)
        return Resources()

    @property
    def needs(self) -> Sequence[str]:
        """Columns of the chosen engines."""
        needs: list[str] = list(self.config.taken_columns)
        if "given_caption" in needs:
            needs.append("given_captions")
        if "timed" in self.config.engines:
            needs += ["source_sha256", "start_s", "end_s"]
        if "tags" in self.config.engines:
            needs += ["media", "tags", "tag_scores"]
        if self.config.model_engine:
            needs += ["keyframes", "duration_s"]
        return needs

    def weights(self) -> Sequence[Weight]:
        """The file of timed captions, and those of a model in this process."""
        return [*self._timed_file(), *self._model_files()]

    def _timed_file(self) -> list[Weight]:
        return [weight_at(self.config.timed)] if self.config.timed else []

    def _model_files(self) -> Sequence[Weight]:
        engine = self.config.model_engine
        if engine in ("transformers", "vllm"):
            chosen = getattr(self.config, engine)
            return model_files(chosen.model, chosen.revision)
        return []

    def check(self) -> None:
        """Find out before any work whether the model can be asked.

        Raises:
            LavieError: it cannot; says what to do.
        """
        self._read_timed()
        captioner = self._captioner(load_prompt(self.config.prompt))
        if captioner is not None:
            captioner.check()

    def setup(self) -> None:
        """Load the model, or whatever is needed to ask it."""
        self.prompt = load_prompt(self.config.prompt)
        self.captioner = self._captioner(self.prompt)
        self.digest = model_digest(self._model_files()) if self._model_files() else None
        self.timed = self._read_timed()
        if self.captioner is not None:
            self.captioner.setup()

    def _read_timed(self) -> TimedCaptions | None:
        return TimedCaptions(find(file)) if (file := next(iter(self._timed_file()), None)) else None

    def _captioner(self, prompt: Prompt) -> Captioner | None:
        """The chosen model engine; the others are not even imported."""
        config = self.config
        sampling = Sampling(max_tokens=config.max_tokens, temperature=config.temperature)
        if config.model_engine == "transformers":
            from curation.stations.caption_models.transformers_model import TransformersCaptioner

            return TransformersCaptioner(config.transformers, prompt, sampling)
        if config.model_engine == "endpoint":
            from curation.stations.caption_models.endpoint import EndpointCaptioner

            return EndpointCaptioner(config.endpoint, prompt, sampling)
        if config.model_engine == "vllm":
            from curation.stations.caption_models.vllm_model import VllmCaptioner

            return VllmCaptioner(
                config.vllm, prompt, sampling, frames_per_clip=config.frames_per_clip
            )
        return None

    def __call__(self, clips: pa.Table) -> pa.Table:
        """Caption every clip."""
        light = clips.select([name for name in self.needs if name != "keyframes"])
        rows = light.to_pylist()
        captions = [self._caption(row) for row in rows]
        if self.captioner is not None:
            self._ask_model(self.captioner, clips, rows, captions)
        schema = layer_schema(self.name)
        arrays = [
            pa.array([getattr(caption, column.name) for caption in captions], column.type)
            for column in list(schema)[1:]
        ]
        return pa.Table.from_arrays([clips["clip_id"], *arrays], schema=schema)

    def _caption(self, row: Mapping[str, Any]) -> Caption:
        """The first plain engine's answer that is a sentence, else the last one's reason."""
        answer = Caption(caption_status="no_keyframes")
        for engine in self.config.engines:
            if engine == "timed":
                assert self.timed is not None, "setup() comes first"
                place = (row["source_sha256"], row["start_s"], row["end_s"])
                answer = timed_caption(self.timed.of(*place), self.config.weights)
            elif engine == "given":
                answer = given_caption(row, self.config.given_columns)
            elif engine == "tags":
                answer = tags_caption(row, self.config)
            if answer.caption is not None:
                break
        return answer

    def _ask_model(
        self,
        captioner: Captioner,
        clips: pa.Table,
        rows: Sequence[Mapping[str, Any]],
        captions: list[Caption],
    ) -> None:
        """Put a model's caption, or why there is none, in place of those still missing.

        Clips of equal bytes have equal ids: they are asked about once.
        """
        begin_s = time.monotonic()
        clip_ids = clips["clip_id"].to_pylist()
        frames = clips["keyframes"]
        lacking = [i for i, caption in enumerate(captions) if caption.caption is None]
        asked = [i for i in lacking if frames[i].is_valid and len(frames[i])]
        for i in set(lacking) - set(asked):
            captions[i] = Caption(caption_status="no_keyframes")
        first: dict[str, int] = {}
        for i in asked:
            first.setdefault(clip_ids[i], i)

        def questions() -> Iterator[Question]:
            for clip_id, i in first.items():
                yield Question(
                    clip_id=clip_id,
                    frames=spread(frames[i].as_py(), self.config.frames_per_clip),
                    duration_s=rows[i]["duration_s"],
                )

        replies = in_order(list(first), captioner(questions()))
        reply_of = dict(zip(first, replies, strict=True))
        for i in asked:
            captions[i] = self._from_reply(reply_of[clip_ids[i]], rows[i])
        num_failed = sum(captions[i].caption_status == "failed" for i in first.values())
        wall_s = time.monotonic() - begin_s
        self._counts = counted(self.config, replies, num_failed=num_failed, wall_s=wall_s)

    def _from_reply(self, reply: Reply, row: Mapping[str, Any]) -> Caption:
        """The row of one reply: the checked answer, or the reason why there is none."""
        caption = Caption(
            caption_status="failed", caption_reason=reply.reason, caption_detail=reply.detail
        )
        if reply.text is not None:
            try:
                answer = parse_answer(reply.text)
            except AnswerError as error:
                reason = error.reason if reply.is_whole else "cut_short"
                caption = caption._replace(caption_reason=reason, caption_detail=error.detail)
            else:
                given = given_caption(row, self.config.taken_columns).caption
                caption = model_caption(answer, given=given, weights=self.config.weights)
        return caption._replace(
            caption_engine=self.config.model_engine,
            caption_model=self._model,
            caption_model_digest=self.digest or reply.model_digest,
            caption_prompt=self.prompt.label,
            caption_tokens_in=reply.tokens_in,
            caption_tokens_out=reply.tokens_out,
        )

    def counters(self) -> Mapping[str, int]:
        """What the last call took, to be summed over parts; see `cost_line`."""
        return self._counts
