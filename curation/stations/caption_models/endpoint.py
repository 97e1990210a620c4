"""Engine 'endpoint': any server that speaks OpenAI's chat completions.

A bounded number of requests is in flight; each belongs to one task that holds its clip's id from
the question to the reply. No redirect is followed, so the key goes to no other address. Whatever
the server sends is text of a stranger: bounded in length and time, and searched for the key.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
from collections.abc import Iterable
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import httpx2
from pydantic import SecretStr
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt

from curation.errors import ModelUnavailable
from curation.stations.caption_models.answer import AnswerError, parse_answer
from curation.stations.caption_models.captioner import Question, Reply, Sampling
from curation.stations.caption_models.chat import (
    DeclinedError,
    Tally,
    error_text,
    message,
    request_body,
)
from curation.stations.caption_models.prompts import Prompt
from curation.stations.caption_models.retries import (
    PASSING_STATUS,
    PassingError,
    Pause,
    retry_after_s,
    wait_as_asked,
)
from curation.stations.caption_models.settings import EndpointConfig

_STOPS_RUN = frozenset({401, 402, 403, 404})
"""Answers that every clip would get: key, payment, permission, address."""
_UNANSWERED = frozenset({"unreachable", "timeout", "rate_limited", "server_error", "bad_reply"})
_MAX_DETAIL_CHARACTERS = 300
_PROBE_PX = 64  # more than two of Qwen's 28-pixel patches


class EndpointCaptioner:
    """Answers questions over HTTP, many at a time."""

    def __init__(self, config: EndpointConfig, prompt: Prompt, sampling: Sampling) -> None:
        self.config = config
        self.prompt = prompt
        self.sampling = sampling
        self._num_unanswered = 0

    def check(self) -> None:
        """Ask about one picture: tells of key, address, model, pictures and answer format."""
        self.setup()
        question = Question(clip_id="check", frames=(_probe_picture(),), duration_s=0.0)
        quick = replace(self.config, max_attempts=3, max_answer_attempts=1, give_up_after=1)
        prober = EndpointCaptioner(quick, self.prompt, replace(self.sampling, max_tokens=16))
        prober.setup()
        (reply,) = prober([question])
        if reply.reason in ("rejected", "bad_reply"):
            raise ModelUnavailable(
                f"{self._who} did not take a message with a picture: {reply.detail}. If the "
                f"model cannot see, choose one that can; if the server does not know "
                f"response_format, set captions.endpoint.answer_format to 'json_object' or 'text'"
            )

    @property
    def _who(self) -> str:
        return f"captions.endpoint {self.config.base_url} (model {self.config.model!r})"

    def setup(self) -> None:
        """Read the key.

        Raises:
            ModelUnavailable: it is not there, or would travel in the clear.
        """
        name = self.config.key_env
        self._key = SecretStr(os.environ.get(name, "").strip() if name else "")
        key = self._key.get_secret_value()
        if name and not key:
            raise ModelUnavailable(
                f"the environment variable {name} is not set: put the key for "
                f"{self.config.base_url} into it, or set captions.endpoint.key_env to '' if the "
                f"server wants none"
            )
        if not (key.isascii() and key.isprintable() and " " not in key):
            raise ModelUnavailable(f"the key in {name} holds characters that no HTTP header can")
        if key and not self.config.allow_plain_http and _is_in_the_clear(self.config.base_url):
            raise ModelUnavailable(
                f"the key in {name} would travel unencrypted to {self.config.base_url}: use https, "
                f"or set captions.endpoint.allow_plain_http if the network is your own"
            )

    def __call__(self, questions: Iterable[Question]) -> list[Reply]:
        """Answer all, in the order in which answers come.

        Raises:
            ModelUnavailable: key, address or payment are refused, or nothing answers any more.
        """
        try:
            return asyncio.run(self._answer_all(questions))
        except BaseExceptionGroup as group:
            fatal = group.subgroup(ModelUnavailable)
            if fatal is None:
                raise
            raise _first(fatal) from None

    async def _answer_all(self, questions: Iterable[Question]) -> list[Reply]:
        waiting = iter(questions)
        replies: list[Reply] = []
        pause = Pause(self.config.max_wait_s)
        most = self.config.concurrency

        async def work(client: httpx2.AsyncClient) -> None:
            for question in waiting:  # shared: each takes the next one that nobody has
                reply = await self._answer(client, pause, question)
                self._notice(reply)
                replies.append(reply)

        async with (
            httpx2.AsyncClient(
                base_url=self.config.base_url.rstrip("/") + "/",
                headers=self._headers(),
                timeout=httpx2.Timeout(
                    self.config.timeout_s, connect=self.config.connect_timeout_s, pool=None
                ),
                limits=httpx2.Limits(max_connections=most, max_keepalive_connections=most),
                follow_redirects=False,
            ) as client,
            asyncio.TaskGroup() as group,
        ):
            for _ in range(most):
                group.create_task(work(client))
        return replies

    def _headers(self) -> dict[str, str]:
        key = self._key.get_secret_value()
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        return headers | ({"Authorization": f"Bearer {key}"} if key else {})

    def _notice(self, reply: Reply) -> None:
        """Stop the run when the server is gone, rather than write the rest off clip by clip."""
        self._num_unanswered = self._num_unanswered + 1 if reply.reason in _UNANSWERED else 0
        if self._num_unanswered >= self.config.give_up_after:
            raise ModelUnavailable(
                f"{self._who} gave no answer to {self._num_unanswered} clips in a row "
                f"({reply.reason}: {reply.detail}): start it, or correct "
                f"captions.endpoint.base_url, and run the same command again; finished parts are "
                f"kept"
            )

    async def _answer(self, client: httpx2.AsyncClient, pause: Pause, question: Question) -> Reply:
        """One clip, within its deadline."""
        tally = Tally()
        seen = PassingError("timeout", f"no answer within {self.config.deadline_s:g} s")
        try:
            async with asyncio.timeout(self.config.deadline_s):
                return await self._ask_until_right(client, pause, question, tally)
        except TimeoutError:
            error: PassingError | DeclinedError = seen
        except (PassingError, DeclinedError) as stopped:
            error = stopped
        return Reply(
            clip_id=question.clip_id,
            text=None,
            tokens_in=tally.tokens_in,
            tokens_out=tally.tokens_out,
            reason=error.reason,
            detail=self._safe(error.detail),
        )

    async def _ask_until_right(
        self, client: httpx2.AsyncClient, pause: Pause, question: Question, tally: Tally
    ) -> Reply:
        """Ask until the answer is the JSON that was asked for, or the tries are used up."""
        body = request_body(self.config, self.prompt, self.sampling, question)
        for attempt in range(self.config.max_answer_attempts):
            completion = await self._completion(client, pause, body)
            text, is_whole = message(completion, tally)
            is_last = attempt == self.config.max_answer_attempts - 1
            if is_last or not is_whole or self._is_right(text):
                break
        if self._repeats_key(text):
            raise DeclinedError("bad_schema", "the answer repeats the key")
        return Reply(
            clip_id=question.clip_id,
            text=text,
            is_whole=is_whole,
            tokens_in=tally.tokens_in,
            tokens_out=tally.tokens_out,
            model_digest=self._fingerprint(completion),
        )

    def _is_right(self, text: str) -> bool:
        try:
            parse_answer(text)
        except AnswerError:
            return False
        return True

    def _repeats_key(self, text: str) -> bool:
        """Whether the key stands in the answer, also where JSON would spell it with escapes."""
        key = self._key.get_secret_value()
        if not key:
            return False
        try:
            words = "".join(str(value) for value in json.loads(text).values())
        except (ValueError, AttributeError, RecursionError):
            words = ""
        return key in text or key in words

    def _fingerprint(self, completion: dict[str, Any]) -> str | None:
        """What the server calls the state of its model; null where it says nothing."""
        stated = completion.get("system_fingerprint")
        return self._safe(stated)[:80] if isinstance(stated, str) and stated else None

    async def _completion(
        self, client: httpx2.AsyncClient, pause: Pause, body: bytes
    ) -> dict[str, Any]:
        """One chat completion, asked for again as long as faults may pass."""
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(PassingError),
            stop=stop_after_attempt(self.config.max_attempts),
            wait=wait_as_asked(backoff_s=self.config.backoff_s, max_wait_s=self.config.max_wait_s),
            reraise=True,
        )
        async for attempt in retrying:
            with attempt:
                await pause.over()
                return await self._ask_once(client, pause, body)
        raise AssertionError("tenacity re-raises")

    async def _ask_once(
        self, client: httpx2.AsyncClient, pause: Pause, body: bytes
    ) -> dict[str, Any]:
        try:
            async with (
                asyncio.timeout(self.config.timeout_s),
                client.stream("POST", "chat/completions", content=body) as response,
            ):
                data = await self._read(response)
        except (TimeoutError, httpx2.TimeoutException) as error:
            raise PassingError(
                "timeout", f"no answer within {self.config.timeout_s:g} s"
            ) from error
        except httpx2.TransportError as error:
            raise PassingError("unreachable", f"{type(error).__name__}: {error}") from error
        if response.status_code != httpx2.codes.OK:
            self._refused(response, data, pause)
        try:
            completion = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise PassingError("bad_reply", f"no JSON: {error}") from error
        if not isinstance(completion, dict):
            raise PassingError("bad_reply", "JSON, but no object")
        return completion

    async def _read(self, response: httpx2.Response) -> bytes:
        """The body, if it is no longer than it may be."""
        data = bytearray()
        async for chunk in response.aiter_bytes():
            data += chunk
            if len(data) > self.config.max_reply_bytes:
                raise DeclinedError("bad_reply", f"more than {self.config.max_reply_bytes} bytes")
        return bytes(data)

    def _refused(self, response: httpx2.Response, data: bytes, pause: Pause) -> None:
        """Tell what passes from what fails this clip and from what fails the run; always raises."""
        status, said = response.status_code, self._safe(error_text(data))
        if status in _STOPS_RUN or "insufficient_quota" in said:
            raise ModelUnavailable(
                f"{self._who} answered {status} ({said}): "
                + {
                    401: f"the key in {self.config.key_env or 'no variable'} is not accepted",
                    403: f"the key in {self.config.key_env or 'no variable'} may not do this",
                    404: "no such address or model; see captions.endpoint.base_url and .model",
                }.get(status, "the account is used up; finished parts are kept")
            )
        if status in PASSING_STATUS:
            asked_s = retry_after_s(response.headers.get("Retry-After"))
            if asked_s is not None:
                pause.ask(asked_s)
            reason = "rate_limited" if status == httpx2.codes.TOO_MANY_REQUESTS else "server_error"
            raise PassingError(reason, f"{status}: {said}", asked_s)
        raise DeclinedError("rejected", f"{status}: {said}")

    def _safe(self, text: str) -> str:
        """Words of the server without the key, on one line, not too many."""
        key = self._key.get_secret_value()
        without = text.replace(key, "[key]") if key else text
        return " ".join(without.split())[:_MAX_DETAIL_CHARACTERS]


def _is_in_the_clear(url: str) -> bool:
    """Whether what is sent there leaves this machine unencrypted."""
    parts = urlsplit(url)
    if parts.scheme == "https":
        return False
    try:
        return not ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return parts.hostname != "localhost"


def _probe_picture() -> bytes:
    """A small grey JPEG."""
    import io

    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", (_PROBE_PX, _PROBE_PX), "grey").save(out, "JPEG")
    return out.getvalue()


def _first(error: BaseException) -> BaseException:
    """The first of nested groups of errors."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
