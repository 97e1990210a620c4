"""What captioning costs beside the model: `python benchmarks/captions.py [--model FOLDER]`.

1. Clips per second against a server that answers after a fixed time, beside the ideal of that time:
   requests in flight / latency.
2. Overhead: CPU-seconds of the station (packed keyframes in, rows out) over those of the bare model
   calls (processor and `generate` on the same batches, pictures unpacked before).
Without --model a Qwen2-VL of random weights is built on the spot.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from curation.stations.caption_models.captioner import Question, spread
from curation.stations.caption_models.settings import EndpointConfig, TransformersConfig
from curation.stations.captions import Captions, CaptionsConfig
from curation.weights.torchvision_shim import ensure_torchvision

FRAMES = 8
FIELDS = ("short", "long", "subject", "action", "setting", "style", "camera", "text_on_screen")
SPECIAL = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n"
)


def keyframes(num_clips: int, *, width: int = 683, height: int = 384) -> list[list[bytes]]:
    """JPEGs of the size that the decoding pass writes, all different."""
    generator = np.random.default_rng(0)
    clips = []
    for _ in range(num_clips):
        coarse = generator.integers(0, 256, (24, 42, 3), dtype=np.uint8)
        base = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        frames = []
        for shift in range(FRAMES):
            out = io.BytesIO()
            base.transform(
                (width, height), Image.Transform.AFFINE, (1, 0, 4 * shift, 0, 1, 0)
            ).save(out, "JPEG", quality=85)
            frames.append(out.getvalue())
        clips.append(frames)
    return clips


def table(clips: list[list[bytes]]) -> pa.Table:
    """What the station is given."""
    nothing = pa.nulls(len(clips), pa.string())
    return pa.table(
        {
            "clip_id": [f"clip-{i}" for i in range(len(clips))],
            "given_caption": nothing,
            "given_captions": pa.nulls(len(clips), pa.list_(pa.string())),
            "description": nothing,
            "title": nothing,
            "keyframes": pa.array(clips, pa.list_(pa.binary())),
            "duration_s": pa.array([5.0] * len(clips), pa.float32()),
        }
    )


def random_qwen2_vl(folder: Path) -> None:
    """A Qwen2-VL of random weights: four layers of 512, with prompts as long as real ones."""
    ensure_torchvision()
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import (
        PreTrainedTokenizerFast,
        Qwen2VLConfig,
        Qwen2VLForConditionalGeneration,
        Qwen2VLProcessor,
    )
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *SPECIAL]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=800, special_tokens=tokens, initial_alphabet=alphabet)
    bpe.train_from_iterator([Path(__file__).read_text()], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL),
    )
    number = {token: fast.convert_tokens_to_ids(token) for token in tokens}
    limits = {"min_pixels": 28 * 28, "max_pixels": 28 * 28 * 64}
    processor = Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(**limits),
        tokenizer=fast,
        video_processor=Qwen2VLVideoProcessor(**limits),
        chat_template=TEMPLATE,
    )
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": len(fast),
            "hidden_size": 512,
            "intermediate_size": 2048,
            "num_hidden_layers": 4,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
            "rope_parameters": {
                "rope_type": "default",
                "mrope_section": [8, 12, 12],
                "rope_theta": 1e6,
            },
            "eos_token_id": number["<|im_end|>"],
            "pad_token_id": number["<|endoftext|>"],
        },
        vision_config={"depth": 4, "embed_dim": 256, "hidden_size": 512, "num_heads": 4},
        image_token_id=number["<|image_pad|>"],
        video_token_id=number["<|video_pad|>"],
        vision_start_token_id=number["<|vision_start|>"],
        vision_end_token_id=number["<|vision_end|>"],
    )
    torch.manual_seed(0)
    Qwen2VLForConditionalGeneration(config).save_pretrained(folder)
    processor.save_pretrained(folder)


def overhead(model: str, *, num_clips: int, max_tokens: int, repeats: int) -> str:
    """Station over bare model calls, in turns within one run; medians."""
    import torch

    config = CaptionsConfig(
        engines=("transformers",),
        transformers=TransformersConfig(
            model=model, dtype="float32", device="auto", batch_size=4, num_threads=1
        ),
        max_tokens=max_tokens,
    )
    station = Captions(config)
    station.setup()
    packed = keyframes(num_clips)
    clips = table(packed)
    engine = station.captioner
    import curation.stations.caption_models.transformers_model as module

    unpack = module.open_keyframe
    questions = [
        Question(clip_id=str(i), frames=spread(frames, FRAMES), duration_s=5.0)
        for i, frames in enumerate(packed)
    ]
    pictures = {frame: unpack(frame) for frames in packed for frame in frames}

    def bare() -> None:
        module.open_keyframe = pictures.__getitem__  # unpacked beforehand
        for start in range(0, num_clips, 4):
            batch = questions[start : start + 4]
            inputs = engine.inputs(batch).to(engine.device, torch.float32)
            engine.generate(inputs, batch)
        module.open_keyframe = unpack

    seconds: dict[str, list[float]] = {"bare": [], "station": []}
    bare()
    for _ in range(repeats):
        for name, call in (("bare", bare), ("station", lambda: station(clips))):
            begin = time.process_time()
            call()
            seconds[name].append(time.process_time() - begin)
    alone, whole = (statistics.median(seconds[name]) for name in ("bare", "station"))
    return (
        f"| {Path(model).name}, {num_clips} clips of {FRAMES} frames, {max_tokens} tokens | "
        f"{1000 * alone / num_clips:.0f} | {1000 * whole / num_clips:.0f} | "
        f"{100 * (whole / alone - 1):.1f} % |"
    )


def serve(latency_s: float, port: multiprocessing.Queue[int]) -> None:
    """Answer every request after a fixed time; a process of its own."""
    answer = json.dumps(dict.fromkeys(FIELDS, "a fox runs through the snow"))
    body = json.dumps(
        {
            "choices": [{"message": {"content": answer}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 2700, "completion_tokens": 250},
        }
    ).encode()
    reply = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                await asyncio.sleep(latency_s)
                writer.write(reply)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def main() -> None:
        server = await asyncio.start_server(one, "127.0.0.1", 0, limit=2**24)
        port.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


def endpoint(latency_s: float, rounds: int) -> list[str]:
    """Clips per second at 1, 8 and 64 requests in flight."""
    context = multiprocessing.get_context("spawn")
    port = context.Queue()
    server = context.Process(target=serve, args=(latency_s, port), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{port.get()}/v1"
    few = keyframes(16)
    rows = []
    for concurrency in (1, 8, 64):
        count = rounds * concurrency
        settings = EndpointConfig(base_url=url, model="m", key_env="", concurrency=concurrency)
        station = Captions(CaptionsConfig(engines=("endpoint",), endpoint=settings))
        station.setup()
        clips = table([few[i % 16] for i in range(count)])
        begin, cpu = time.monotonic(), time.process_time()
        statuses = station(clips)["caption_status"].to_pylist()
        wall, cpu = time.monotonic() - begin, time.process_time() - cpu
        assert statuses == ["ok"] * count
        ideal = concurrency / latency_s
        rows.append(
            f"| {concurrency} | {count / wall:.2f} | {ideal:.2f} "
            f"| {100 * count / wall / ideal:.0f} % | {1000 * cpu / count:.1f} |"
        )
    server.terminate()
    return rows


def main() -> None:
    """Print two tables, ready for docs/performance.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="", help="model folder; a random Qwen2-VL without it")
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--latency-s", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=8, help="answers in a row per connection")
    parser.add_argument("--skip-model", action="store_true", help="only the first table")
    arguments = parser.parse_args()
    print("| requests in flight | clips/s | ideal | share | client CPU-ms a clip |")
    print("| --- | --- | --- | --- | --- |")
    print("\n".join(endpoint(arguments.latency_s, arguments.rounds)))
    if arguments.skip_model:
        return
    with tempfile.TemporaryDirectory() as folder:
        model = arguments.model or str(Path(folder) / "random-qwen2-vl")
        if not arguments.model:
            random_qwen2_vl(Path(model))
        row = overhead(
            model,
            num_clips=arguments.clips,
            max_tokens=arguments.max_tokens,
            repeats=arguments.repeats,
        )
    print("\n| model | bare, CPU-ms a clip | station, CPU-ms a clip | overhead |")
    print("| --- | --- | --- | --- |")
    print(row)


if __name__ == "__main__":
    main()
