"""A real HTTP server on loopback that speaks chat completions, well or badly, and clips."""

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

FIELDS = ("short", "long", "subject", "action", "setting", "style", "camera", "text_on_screen")


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
        "description": pa.nulls(count, pa.string()),
        "title": pa.nulls(count, pa.string()),
        "keyframes": pa.array(keyframes, pa.list_(pa.binary())),
        "duration_s": pa.array([4.0] * count, pa.float32()),
    }
    return pa.table(given | {name: pa.array(values) for name, values in columns.items()})
