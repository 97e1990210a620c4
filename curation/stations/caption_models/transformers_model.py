"""Engine 'transformers': an image-text-to-text model in this process.

Letters: B clips of a batch, L tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from curation.errors import ModelUnavailable
from curation.stations.caption_models.captioner import Question, Reply, Sampling, seed_of
from curation.stations.caption_models.checkpoint import model_folder
from curation.stations.caption_models.prompts import Prompt
from curation.stations.caption_models.settings import TransformersConfig
from curation.stations.keyframe_images import open_keyframe
from curation.weights.torchvision_shim import ensure_torchvision


class TransformersCaptioner:
    """Answers questions a batch of clips at a time, in their order."""

    def __init__(self, config: TransformersConfig, prompt: Prompt, sampling: Sampling) -> None:
        self.config = config
        self.prompt = prompt
        self.sampling = sampling

    def check(self) -> None:
        """Read the model's configuration and processor, not its weights."""
        folder = model_folder(self.config.model, self.config.revision)
        ensure_torchvision()
        from transformers import AutoConfig
        from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

        try:
            model_config = AutoConfig.from_pretrained(str(folder), local_files_only=True)
        except ValueError as error:
            raise ModelUnavailable(
                f"captions.transformers.model {self.config.model!r} is of a kind that this "
                f"transformers does not know: {error}"
            ) from error
        if type(model_config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
            raise ModelUnavailable(
                f"captions.transformers.model {self.config.model!r} cannot take images: "
                f"{model_config.model_type!r} is no image-text-to-text model; choose one such as "
                f"Qwen/Qwen2.5-VL-7B-Instruct or HuggingFaceTB/SmolVLM2-2.2B-Instruct"
            )
        self._processor()

    def _processor(self) -> Any:
        """The model's own preprocessing, checked for what the chosen message needs."""
        folder = model_folder(self.config.model, self.config.revision)
        ensure_torchvision()
        from transformers import AutoProcessor

        try:
            processor: Any = AutoProcessor.from_pretrained(str(folder), local_files_only=True)
        except ImportError as error:  # SmolVLM's wants num2words, for one
            raise ModelUnavailable(f"{self.config.model!r}: {error}") from error
        kind = "image_processor" if self.config.message == "images" else "video_processor"
        lacks = [
            name
            for name in (kind, "tokenizer", "chat_template")
            if getattr(processor, name, None) is None
        ]
        if lacks:
            raise ModelUnavailable(
                f"captions.transformers.model {self.config.model!r} has no "
                f"{' and no '.join(lacks)}, so it cannot be shown {self.config.message} in a "
                "message; choose another model, or message 'images' where it knows no video"
            )
        processor.tokenizer.padding_side = "left"  # answers are written to the right of the prompts
        return processor

    def setup(self) -> None:
        """Load processor and weights."""
        self.processor = self._processor()
        import torch
        from transformers import AutoModelForImageTextToText

        torch.set_num_threads(self.config.num_threads)
        wanted = self.config.device
        has_gpu = torch.cuda.is_available()
        if wanted == "cuda" and not has_gpu:
            raise ModelUnavailable("captions.transformers.device is 'cuda', and there is no GPU")
        self.device = "cuda" if has_gpu and wanted != "cpu" else "cpu"
        self.model: Any = AutoModelForImageTextToText.from_pretrained(
            model_folder(self.config.model, self.config.revision),
            dtype=getattr(torch, self.config.dtype),
            local_files_only=True,
            use_safetensors=True,
        )
        self.model.eval().to(self.device)
        ends = self.model.generation_config.eos_token_id
        ends = self.processor.tokenizer.eos_token_id if ends is None else ends
        self.end_ids = set(ends if isinstance(ends, list) else [ends])

    def __call__(self, questions: Iterable[Question]) -> Iterator[Reply]:
        """Answer batch by batch; the last one may be smaller."""
        waiting = iter(questions)
        while batch := list(islice(waiting, self.config.batch_size)):
            yield from self._batch(batch)

    def inputs(self, questions: Sequence[Question]) -> Any:
        """What the model is given for some clips: `input_ids` ``[B, L]``, pictures, and so on."""
        conversations = [self._conversation(question) for question in questions]
        options: dict[str, Any] = {"padding": True}
        if self.config.message == "video":
            options["do_sample_frames"] = False  # the frames are samples already
        return self.processor.apply_chat_template(
            conversations,
            tokenize=True,
            add_generation_prompt=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs=options,
        )

    def _conversation(self, question: Question) -> list[dict[str, Any]]:
        """System and user message of one clip."""
        pictures = [open_keyframe(frame) for frame in question.frames]
        shown: list[dict[str, Any]]
        if self.config.message == "images":
            shown = [{"type": "image", "image": picture} for picture in pictures]
        else:
            # Video processors pair frames; a still is shown as a film of two equal ones.
            shown = [{"type": "video", "video": pictures if len(pictures) > 1 else pictures * 2}]
        text = self.prompt.user_text(
            num_frames=len(question.frames), duration_s=question.duration_s
        )
        return [
            {"role": "system", "content": [{"type": "text", "text": self.prompt.system}]},
            {"role": "user", "content": [*shown, {"type": "text", "text": text}]},
        ]

    def generate(self, inputs: Any, questions: Sequence[Question]) -> Any:
        """Token ids ``[B, L]`` that the model wrote after the prompts."""
        import torch

        options: dict[str, Any] = {
            "do_sample": False,
            "temperature": None,
            "top_p": None,
            "top_k": None,
        }
        if self.sampling.temperature > 0:
            torch.manual_seed(seed_of(" ".join(question.clip_id for question in questions)))
            options = {"do_sample": True, "temperature": self.sampling.temperature}
        with torch.inference_mode():
            written = self.model.generate(
                **inputs, max_new_tokens=self.sampling.max_tokens, **options
            )
        return written[:, inputs["input_ids"].shape[1] :]

    def _batch(self, questions: Sequence[Question]) -> Iterator[Reply]:
        """Answer some clips at once."""
        import torch

        try:
            inputs = self.inputs(questions).to(self.device, getattr(torch, self.config.dtype))
            written_BL = self.generate(inputs, questions).tolist()
        except torch.OutOfMemoryError as error:
            raise ModelUnavailable(
                f"the GPU has too little memory for {len(questions)} clips at once: set "
                f"captions.transformers.batch_size under {self.config.batch_size}, or fewer "
                f"captions.frames_per_clip; finished parts are kept"
            ) from error
        tokens_in_B = inputs["attention_mask"].sum(dim=1).tolist()
        for question, ids, tokens_in in zip(questions, written_BL, tokens_in_B, strict=True):
            end = next((i for i, token in enumerate(ids) if token in self.end_ids), None)
            kept = ids if end is None else ids[:end]
            yield Reply(
                clip_id=question.clip_id,
                text=self.processor.tokenizer.decode(kept, skip_special_tokens=True),
                is_whole=end is not None,
                tokens_in=tokens_in,
                tokens_out=len(ids) if end is None else end + 1,
            )
