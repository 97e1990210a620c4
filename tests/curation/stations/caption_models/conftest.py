"""Clips, a model that has learnt three colours, and an HTTP server on loopback, good or bad."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from curation.stations.caption_models.prompts import load_prompt

FIELDS = ("short", "long", "subject", "action", "setting", "style", "camera", "text_on_screen")
COLOURS = ("red", "green", "blue")
PROMPT = "clip-json@1"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}IMAGE{% elif c['type'] == 'video' %}VIDEO"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ENDS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
VISION = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]


@dataclass
class Act:
    """What the server does with one request."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    """Before the first byte."""
    close_after: int | None = None
    """Bytes of the body after which the connection is broken."""
    drip_s: float = 0.0
    """Between single bytes of the body."""


def answer_of(pictures: list[str]) -> dict[str, str]:
    """The caption is a function of the frames: their digest."""
    digest = hashlib.sha256("".join(pictures).encode()).hexdigest()[:16]
    words = {name: f"{name} of {digest}" for name in FIELDS}
    return words | {"short": f"a clip with the frames {digest}", "text_on_screen": ""}


def completion(text: str, *, finish: str = "stop", **more: Any) -> bytes:
    """A chat completion around some text, as vLLM sends it."""
    message = {"role": "assistant", "content": text, "refusal": None}
    return json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "choices": [{"index": 0, "message": message, "finish_reason": finish}],
            "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100},
            "system_fingerprint": "fp_test",
            **more,
        }
    ).encode()


def pictures_of(body: dict[str, Any]) -> list[str]:
    """Data addresses of a request's pictures."""
    content = body["messages"][-1]["content"]
    return [part["image_url"]["url"] for part in content if part["type"] == "image_url"]


def good(body: dict[str, Any], nth: int) -> Act:
    """Answer as asked."""
    return Act(completion(json.dumps(answer_of(pictures_of(body)))))


Behaviour = Callable[[dict[str, Any], int], Act]


class ChatServer:
    """Listens on loopback in a thread of its own; `behave` decides each answer."""

    def __init__(self) -> None:
        self.behave: Behaviour = good
        self.requests: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._ready.wait(10)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)

        async def main() -> None:
            self._stop = asyncio.Event()
            server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**24)
            self.port = server.sockets[0].getsockname()[1]
            self._ready.set()
            await self._stop.wait()
            server.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        self._loop.run_until_complete(main())

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:])}
        data = await reader.readexactly(int(headers.get("content-length", "0")))
        body = json.loads(data)
        self.requests.append((headers, body))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            act = self.behave(body, len(self.requests))
            await asyncio.sleep(act.delay_s)
        finally:
            self.in_flight -= 1
        lines = [f"HTTP/1.1 {act.status} X", f"Content-Length: {len(act.body)}"]
        lines += [f"{name}: {value}" for name, value in act.headers.items()]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        if act.drip_s:
            for byte in act.body:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(act.drip_s)
            return True
        writer.write(act.body[: act.close_after])
        await writer.drain()
        return act.close_after is None


@pytest.fixture
def server() -> Iterator[ChatServer]:
    """A fresh server that answers well until told otherwise."""
    running = ChatServer()
    yield running
    running.close()


@pytest.fixture(scope="session")
def tools() -> Any:
    """What test files of this folder share: nothing below tests/ can be imported."""

    class Tools:
        pass

    for thing in (Act, ChatServer, answer_of, completion, pictures_of, good, clips_table, picture):
        setattr(Tools, thing.__name__, staticmethod(thing))
    for thing in (answer, conversation, tokenizer):
        setattr(Tools, thing.__name__, staticmethod(thing))
    Tools.CHATML = CHATML
    return Tools


def picture(colour: str = "grey", size: tuple[int, int] = (64, 48)) -> bytes:
    """A JPEG of one colour with a little noise."""
    pixels = np.asarray(Image.new("RGB", size, colour), np.int16)
    noise = np.random.default_rng(0).integers(-8, 9, pixels.shape)
    out = io.BytesIO()
    Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8)).save(out, "JPEG", quality=90)
    return out.getvalue()


def clips_table(keyframes: list[list[bytes] | None], **columns: list[Any]) -> pa.Table:
    """What the station is given: one row a clip, ids made of the row's number."""
    count = len(keyframes)
    given: dict[str, Any] = {
        "clip_id": pa.array([f"clip-{i:05d}" for i in range(count)], pa.string()),
        "given_caption": pa.nulls(count, pa.string()),
        "given_captions": pa.nulls(count, pa.list_(pa.string())),
        "description": pa.nulls(count, pa.string()),
        "title": pa.nulls(count, pa.string()),
        "keyframes": pa.array(keyframes, pa.list_(pa.binary())),
        "duration_s": pa.array([4.0] * count, pa.float32()),
    }
    return pa.table(given | {name: pa.array(values) for name, values in columns.items()})


def answer(colour):
    """What the tiny model learns to say of a picture in one colour."""
    words = dict.fromkeys(("action", "setting", "style", "camera", "text_on_screen"), "")
    short = f"a {colour} wall stands still in the light"
    return json.dumps(
        {"short": short, "long": f"A {colour} wall, lit.", "subject": f"{colour} wall"} | words
    )


def tokenizer(special):
    """Byte-level BPE trained on the spot; prompt and answers become few tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    prompt = load_prompt(PROMPT)
    texts = [prompt.system, prompt.user_text(num_frames=2, duration_s=4.0), "system\n", "user\n"]
    for part in answer("|").split("|"):
        texts += [part] * 5
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=3000,
        special_tokens=[*ENDS, *special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=400,
    )
    bpe.train_from_iterator(texts + ["red", "green", "blue", "assistant\n"] * 3, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=special,
    )


def conversation(pictures):
    prompt = load_prompt(PROMPT)
    text = prompt.user_text(num_frames=len(pictures), duration_s=4.0)
    shown = [{"type": "image", "image": each} for each in pictures]
    return [
        {"role": "system", "content": [{"type": "text", "text": prompt.system}]},
        {"role": "user", "content": [*shown, {"type": "text", "text": text}]},
    ]


def qwen2_vl():
    """A Qwen2-VL of 0.2 M parameters with its processor."""
    from curation.weights.torchvision_shim import ensure_torchvision

    ensure_torchvision()
    import torch
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration, Qwen2VLProcessor
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

    torch.set_num_threads(1)
    torch.manual_seed(0)
    tokens = tokenizer(VISION)
    number = {token: tokens.convert_tokens_to_ids(token) for token in [*ENDS, *VISION]}
    patches = {"patch_size": 14, "merge_size": 2, "temporal_patch_size": 2, "min_pixels": 28 * 28}
    template = CHATML.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")
    processor = Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(max_pixels=28 * 28, **patches),
        tokenizer=tokens,
        video_processor=Qwen2VLVideoProcessor(max_pixels=28 * 28 * 2, **patches),
        chat_template=template.replace("VIDEO", "<|vision_start|><|video_pad|><|vision_end|>"),
    )
    rope = {"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 10000.0}
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": len(tokens),
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "rope_parameters": rope,
            "bos_token_id": number["<|endoftext|>"],
            "eos_token_id": number["<|im_end|>"],
            "pad_token_id": number["<|endoftext|>"],
        },
        vision_config={
            "depth": 1,
            "embed_dim": 32,
            "hidden_size": 64,
            "num_heads": 2,
            "mlp_ratio": 2,
            "patch_size": 14,
        },
        image_token_id=number["<|image_pad|>"],
        video_token_id=number["<|video_pad|>"],
        vision_start_token_id=number["<|vision_start|>"],
        vision_end_token_id=number["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    return Qwen2VLForConditionalGeneration(config), processor


def teach(model, processor):
    """Gradient steps until the model says of each colour what `answer` does."""
    import torch

    from curation.stations.keyframe_images import open_keyframe

    processor.tokenizer.padding_side = "left"
    tokens = processor.tokenizer
    batches = []
    for count in (1, 2, 3):
        shown = [[open_keyframe(picture(c))] * count for c in COLOURS]
        prompts = [
            processor.apply_chat_template(conversation(each), add_generation_prompt=True)
            for each in shown
        ]
        said = [answer(colour) + "<|im_end|>" for colour in COLOURS]
        texts = [p + s for p, s in zip(prompts, said, strict=True)]
        inputs = processor(text=texts, images=shown, padding=True, return_tensors="pt")
        labels = inputs["input_ids"].clone()
        for row, text in enumerate(said):
            labels[row, : -len(tokens.encode(text))] = -100
        batches.append((dict(inputs), labels))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    right_in_a_row = 0
    for step in range(600):
        inputs, labels = batches[step % 3]
        out = model(**inputs, labels=labels)
        optimizer.zero_grad()
        out.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        wanted = labels[:, 1:]
        is_right = (out.logits[:, :-1].argmax(-1) == wanted) | (wanted == -100)
        right_in_a_row = right_in_a_row + 1 if is_right.all() else 0
        if right_in_a_row == 9:
            break
    model.eval()


@pytest.fixture(scope="session")
def taught(tmp_path_factory):
    """Folder of a Qwen2-VL that has learnt three colours, as `save_pretrained` writes it."""
    folder = tmp_path_factory.mktemp("models") / "tiny-qwen2-vl"
    model, processor = qwen2_vl()
    teach(model, processor)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
