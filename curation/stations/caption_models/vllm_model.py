"""Engine 'vllm': vLLM in this process, on the GPUs that the worker was given.

Run for real with vLLM's CPU build 0.32.0 and a tiny Qwen2-VL (this module's tests, skipped where
the package vllm is absent); not on a GPU, and with no other version. It uses nothing but the
offline API that vLLM has documented since 0.11: `LLM.chat` with image_url parts and
`StructuredOutputsParams`. vLLM pins its own torch, so it is an optional extra and imported nowhere
else. Its engine runs in processes of its own, which end with this one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from itertools import islice
from typing import Any

from curation.errors import ModelUnavailable
from curation.stations.caption_models.answer import answer_schema
from curation.stations.caption_models.captioner import Question, Reply, Sampling, data_url, seed_of
from curation.stations.caption_models.checkpoint import model_folder
from curation.stations.caption_models.prompts import Prompt
from curation.stations.caption_models.settings import VllmConfig

_RUN = 512  # clips handed over at once: enough for full batches, few enough to hold as text
_GIVE_UP_AFTER = 50  # clips refused in a row: then it is not the clips
_MAX_DETAIL_CHARACTERS = 200  # vLLM's messages may repeat what it was given


class VllmCaptioner:
    """Answers many questions in one call; vLLM batches them itself."""

    def __init__(
        self, config: VllmConfig, prompt: Prompt, sampling: Sampling, *, frames_per_clip: int
    ) -> None:
        self.config = config
        self.prompt = prompt
        self.sampling = sampling
        self.frames_per_clip = frames_per_clip

    def check(self) -> None:
        """Look for the package and the model, and whether the model has a part that sees.

        vLLM itself has the last word in `setup`.
        """
        if find_spec("vllm") is None:
            raise ModelUnavailable(
                "the captions engine 'vllm' needs vLLM: `pip install 'lavie[vllm]'` on the "
                "machines with GPUs, or use the engine 'endpoint' with a server of its own"
            )
        folder = model_folder(self.config.model, self.config.revision)
        settings: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
        # Every vision-language model names its vision tower or its image token here.
        if not any("vision" in key or "image" in key for key in settings):
            raise self._no_images()

    def _no_images(self) -> ModelUnavailable:
        return ModelUnavailable(
            f"captions.vllm.model {self.config.model!r} cannot take images; choose one such as "
            f"Qwen/Qwen2.5-VL-7B-Instruct"
        )

    def setup(self) -> None:
        """Load the weights onto the GPUs.

        Raises:
            ModelUnavailable: the model takes no images.
        """
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")  # it would report to its makers
        from vllm import LLM

        self.llm: Any = LLM(
            model=str(model_folder(self.config.model, self.config.revision)),
            dtype=self.config.dtype,
            max_model_len=self.config.max_model_len,
            gpu_memory_utilization=self.config.gpu_memory_utilization,
            tensor_parallel_size=self.config.num_gpus,
            # Without "video" vLLM keeps memory for the longest video that the model could take.
            limit_mm_per_prompt={"image": self.frames_per_clip, "video": 0},
            trust_remote_code=False,
            seed=0,
        )
        if not self.llm.llm_engine.model_config.is_multimodal_model:
            raise self._no_images()
        self.refused_in_a_row = 0

    def __call__(self, questions: Iterable[Question]) -> Iterator[Reply]:
        """Answer in runs of `_RUN`, each in the order of its questions.

        Raises:
            ModelUnavailable: vLLM took none of `_GIVE_UP_AFTER` clips in a row.
        """
        waiting = iter(questions)
        while run := list(islice(waiting, _RUN)):
            yield from self._answers(run)

    def _answers(self, questions: Sequence[Question]) -> list[Reply]:
        """Replies of some clips; of those that vLLM does not take, why.

        vLLM refuses a whole call for one prompt that is too long. So a refused run is halved until
        the clip that it was for stands alone.
        """
        try:
            outputs = self._chat(questions)
        except _refusals() as error:
            if len(questions) > 1:
                half = len(questions) // 2
                return self._answers(questions[:half]) + self._answers(questions[half:])
            return [self._refused(questions[0], str(error)[:_MAX_DETAIL_CHARACTERS])]
        self.refused_in_a_row = 0
        # Outputs carry vLLM's own ids: their place is all that ties them to the clips.
        assert len(outputs) == len(questions), f"{len(outputs)} outputs, {len(questions)} questions"
        return [_reply(q.clip_id, output) for q, output in zip(questions, outputs, strict=True)]

    def _refused(self, question: Question, why: str) -> Reply:
        """The reply for a clip that vLLM does not take."""
        self.refused_in_a_row += 1
        if self.refused_in_a_row >= _GIVE_UP_AFTER:
            raise ModelUnavailable(f"vLLM took none of {_GIVE_UP_AFTER} clips in a row: {why}")
        return Reply(clip_id=question.clip_id, text=None, reason="rejected", detail=why)

    def _chat(self, questions: Sequence[Question]) -> list[Any]:
        """Outputs of vLLM, in the order of the questions."""
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        sampling = [
            SamplingParams(
                temperature=self.sampling.temperature,
                max_tokens=self.sampling.max_tokens,
                seed=seed_of(question.clip_id),
                structured_outputs=StructuredOutputsParams(json=answer_schema()),
            )
            for question in questions
        ]
        outputs: list[Any] = self.llm.chat(
            [self._conversation(question) for question in questions],
            sampling_params=sampling,
            use_tqdm=False,
        )
        return outputs

    def _conversation(self, question: Question) -> list[dict[str, Any]]:
        """System and user message of one clip, as OpenAI's API has them."""
        pictures = [
            {"type": "image_url", "image_url": {"url": data_url(frame)}}
            for frame in question.frames
        ]
        text = self.prompt.user_text(
            num_frames=len(question.frames), duration_s=question.duration_s
        )
        return [
            {"role": "system", "content": self.prompt.system},
            {"role": "user", "content": [*pictures, {"type": "text", "text": text}]},
        ]


def _refusals() -> tuple[type[Exception], ...]:
    """What vLLM raises for a prompt that it does not take: ValueError, later a class of its own."""
    try:
        from vllm.exceptions import VLLMClientError
    except ImportError:
        return (ValueError,)
    return (ValueError, VLLMClientError)


def _reply(clip_id: str, output: Any) -> Reply:
    """The one completion of a `RequestOutput`."""
    (completion,) = output.outputs
    return Reply(
        clip_id=clip_id,
        text=completion.text,
        is_whole=completion.finish_reason != "length",
        tokens_in=len(output.prompt_token_ids or ()),
        tokens_out=len(completion.token_ids),
    )
