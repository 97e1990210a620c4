"""Engine 'vllm': vLLM in this process, on the GPUs that the worker was given.

Written against vLLM's documented offline API (`LLM.chat` with image_url parts,
`StructuredOutputsParams`, vLLM >= 0.11). vLLM needs a GPU and pins its own torch, so it is an
optional extra, imported nowhere else, and not run by this project's tests.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from itertools import islice
from typing import Any

from curation.captioners.answer import answer_schema
from curation.captioners.captioner import Question, Reply, Sampling, data_url, seed_of
from curation.captioners.checkpoint import model_folder
from curation.captioners.config import VllmConfig
from curation.captioners.prompts import Prompt
from curation.errors import ModelUnavailable
from curation.torchvision_shim import ensure_torchvision

_RUN = 512  # clips handed over at once: enough for full batches, few enough to hold as text


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
        """Look for the package and the model; whether it takes images, vLLM tells in `setup`."""
        if find_spec("vllm") is None:
            raise ModelUnavailable(
                "the captions engine 'vllm' needs vLLM: `pip install 'lavie[vllm]'` on the "
                "machines with GPUs, or use the engine 'endpoint' with a server of its own"
            )
        model_folder(self.config.model, self.config.revision)

    def setup(self) -> None:
        """Load the weights onto the GPUs."""
        ensure_torchvision()
        from vllm import LLM

        self.llm: Any = LLM(
            model=str(model_folder(self.config.model, self.config.revision)),
            dtype=self.config.dtype,
            max_model_len=self.config.max_model_len,
            gpu_memory_utilization=self.config.gpu_memory_utilization,
            tensor_parallel_size=self.config.num_gpus,
            limit_mm_per_prompt={"image": self.frames_per_clip},
            trust_remote_code=False,
            seed=0,
        )

    def __call__(self, questions: Iterable[Question]) -> Iterator[Reply]:
        """Answer in runs of `_RUN`; `LLM.chat` gives outputs in the order of the conversations."""
        waiting = iter(questions)
        while run := list(islice(waiting, _RUN)):
            yield from self._answer(run)

    def _answer(self, questions: Sequence[Question]) -> Iterator[Reply]:
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
        outputs = self.llm.chat(
            [self._conversation(question) for question in questions],
            sampling_params=sampling,
            use_tqdm=False,
        )
        for question, output in zip(questions, outputs, strict=True):
            (completion,) = output.outputs
            yield Reply(
                clip_id=question.clip_id,
                text=completion.text,
                is_whole=completion.finish_reason != "length",
                tokens_in=len(output.prompt_token_ids or ()),
                tokens_out=len(completion.token_ids),
            )

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
