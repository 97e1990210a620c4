"""One source off a web server: robots.txt, redirects, retries, resume, limits."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO
from urllib.parse import urljoin, urlsplit

import httpcore2

from curation.errors import BadSource, MachineFault, machine_fault
from curation.sources.web.addresses import DEFAULT_PORTS, web_address
from curation.sources.web.answers import CONNECTION_ERRORS, Answer, NoAnswer, fault_of
from curation.sources.web.connections import (
    Clock,
    PinnedConnections,
    Resolve,
    UnknownHost,
    resolved,
)
from curation.sources.web.copies import Copy
from curation.sources.web.opt_outs import MAX_ROBOTS_BYTES, ROBOTS, Robots, opt_outs
from curation.sources.web.settings import WebConfig
from curation.sources.web.turns import HostTurns, Turns

MAX_REDIRECTS = 5
CONNECT_S, ANSWER_S = 10.0, 30.0
"""Seconds for a connection, and for the whole head of an answer; also for silence in its body."""
KEEP_TURN_S = 15.0
MAX_WAIT_S = 5.0
"""The longest that is slept before asking again for a turn, so that a pause that ends early is seen."""
ROBOTS_AGE_S = 24 * 3600.0
"""A robots.txt is asked for again after a day (RFC 9309)."""
MAX_ROBOTS = 1000
PROGRESS_BYTES = 1_000_000
"""A try that brings less does not count as progress: a server could go on so for ever."""


class OptedOut(BadSource):
    """A source whose server says that it may not be used.

    Args:
        signals: what it says.
        where: the address that was asked, without its query.
    """

    def __init__(self, signals: set[str], where: str) -> None:
        self.opt_out = in_words(signals)
        super().__init__("opted_out", f"{self.opt_out} at {where}")


def in_words(signals: set[str]) -> str:
    """Opt-outs as one text of the column `opt_out`; 'none' for none."""
    return "+".join(sorted(signals)) or "none"


@dataclass(frozen=True, slots=True)
class FromWeb:
    """What a web server said beside the bytes of a source."""

    served_from: str
    """The address that gave the bytes, after redirects, without its query."""
    opt_out: str
    """What was said against its use, joined by '+'; 'none' where nothing was."""


@dataclass(slots=True)
class _Asked:
    """One source on its way here."""

    uri: str
    copy: Copy
    ends: float
    """When its time is over, on the monotonic clock; waiting for turns does not count."""
    patience_ends: float = 0.0
    """When its server's time is over that gives no answer; nor does it here."""
    signals: set[str] = field(default_factory=set)


class WebClient:
    """Asks web servers for sources, one at a time.

    What it knows (robots.txt, open connections, hosts that are down) stays in its process: it travels as
    its settings.

    Args:
        config: how servers are asked.
        turns: at hosts, of all that ask in the run; those of this process by default.
        resolve: looks the names of hosts up.
    """

    def __init__(
        self,
        config: WebConfig | None = None,
        turns: Turns | None = None,
        resolve: Resolve = resolved,
    ) -> None:
        self.config = config or WebConfig()
        self._turns = HostTurns() if turns is None else turns
        self._given_turns = turns
        self._resolve = resolve
        self._clock = Clock()
        self._holder = uuid.uuid4().hex
        self._robots: dict[str, tuple[Robots | None, float]] = {}
        self._down: set[str] = set()

    def __reduce__(self) -> tuple[type[WebClient], tuple[WebConfig, Turns | None]]:
        return WebClient, (self.config, self._given_turns)

    @functools.cached_property
    def _pool(self) -> httpcore2.ConnectionPool:
        return httpcore2.ConnectionPool(
            ssl_context=httpcore2.default_ssl_context(),
            max_connections=4,
            keepalive_expiry=5.0,
            network_backend=PinnedConnections(self.config, self._clock, self._resolve),
        )

    def fetch(self, uri: str, target: BinaryIO, *, max_bytes: int) -> tuple[str, FromWeb]:
        """Copy a source into an open file.

        Args:
            uri: as `web_address` spells it.
            target: open for writing.
            max_bytes: more are refused, whatever the server says of the length.

        Returns:
            The sha256 of its bytes, and what was said beside them.

        Raises:
            BadSource: 'not_found', 'gone', 'unreadable', 'unreachable', 'opted_out', 'private_address',
                'bad_address', 'empty' or 'too_large'.
            MachineFault: this machine cannot hold the copy.
        """
        uri, fault = web_address(uri)
        if fault is not None:
            raise BadSource("bad_address", fault)
        ends = time.monotonic() + self.config.timeout_s
        asked = _Asked(uri, Copy(target, max_bytes), ends)
        try:
            return self._with_retries(asked)
        except OSError as error:
            if fault_here := machine_fault(error):
                place = os.path.dirname(target.name)
                raise MachineFault(f"{fault_here}: copying a source to {place}") from error
            raise

    def _with_retries(self, asked: _Asked) -> tuple[str, FromWeb]:
        """Ask until there is the whole source, or the server's or the source's time is over."""
        host = urlsplit(asked.uri).netloc
        patience_s = 0.0 if host in self._down else self.config.patience_s
        asked.patience_ends, tries, had = time.monotonic() + patience_s, 0, 0
        while True:
            try:
                from_web = self._redirected(asked)
            except NoAnswer as fault:
                if asked.copy.received >= had + PROGRESS_BYTES:
                    had, tries = asked.copy.received, 0
                    asked.patience_ends = time.monotonic() + patience_s
                tries += 1
                pause_s = fault.retry_after_s or min(10.0, 2.0**tries) * random.uniform(0.5, 1)  # noqa: S311
                if fault.is_final or time.monotonic() + pause_s > min(
                    asked.patience_ends, asked.ends
                ):
                    self._down.add(host)
                    raise BadSource("unreachable", fault.told(tries)) from fault
                time.sleep(pause_s)
            else:
                self._down.discard(host)
                return asked.copy.sha256(), from_web

    def _redirected(self, asked: _Asked) -> FromWeb:
        """Ask once, and wherever the server says."""
        url = asked.uri
        for _ in range(MAX_REDIRECTS + 1):
            self._ask_robots(url, asked)
            with self._answer(url, asked.copy.range_headers(), asked) as answer:
                if answer.location is None:
                    self._take(answer, url, asked)
                    return FromWeb(_without_query(url), in_words(asked.signals))
                url = _next_address(url, answer.location)
        raise BadSource("unreadable", f"more than {MAX_REDIRECTS} redirects")

    @contextlib.contextmanager
    def _answer(
        self, url: str, headers: dict[str, str], asked: _Asked, delay_s: float | None = None
    ) -> Iterator[Answer]:
        """The head of an answer, in a turn at its host; its body is to be read while the context lasts.

        Raises:
            NoAnswer: there is none, or one that may be better another time.
        """
        place, pause_s = _place(url), 0.0
        self._take_turn(place, self._delay_s(url) if delay_s is None else delay_s, asked)
        asked_with = {
            "User-Agent": self.config.user_agent,
            "Accept": "*/*",
            "Accept-Encoding": "identity",
            **headers,
        }
        self._clock.ends = min(asked.ends, time.monotonic() + CONNECT_S + ANSWER_S)
        timeouts = {"connect": CONNECT_S, "read": ANSWER_S, "write": ANSWER_S, "pool": ANSWER_S}
        try:
            with self._pool.stream(
                "GET", url, headers=list(asked_with.items()), extensions={"timeout": timeouts}
            ) as response:
                yield Answer.of(response)
        except NoAnswer as fault:
            pause_s = fault.retry_after_s
            raise
        except (UnknownHost, *CONNECTION_ERRORS) as error:
            raise fault_of(error) from error
        finally:
            pause_s = min(pause_s, self.config.patience_s)
            self._turns.end(place, self._holder, pause_s=pause_s)

    def _take_turn(self, place: str, delay_s: float, asked: _Asked) -> None:
        """Wait for a turn; hosts that many ask for are nobody's fault."""
        begun, most = time.monotonic(), self.config.requests_per_host
        while wait_s := self._turns.wait_s(place, self._holder, delay_s=delay_s, most=most):
            time.sleep(min(wait_s, MAX_WAIT_S))
        waited_s = time.monotonic() - begun
        asked.ends += waited_s
        asked.patience_ends += waited_s

    def _take(self, answer: Answer, url: str, asked: _Asked) -> None:
        """The body of an answer, into the copy."""
        asked.signals |= opt_outs(answer.headers, self.config.robot)
        if asked.signals and self.config.honour_opt_outs:
            raise OptedOut(asked.signals, _without_query(url))
        asked.copy.begin(answer)
        begun = kept = time.monotonic()
        num_bytes = 0
        self._clock.ends = min(asked.ends, begun + ANSWER_S)
        for block in answer.blocks():
            asked.copy.add(block)
            num_bytes += len(block)
            due = begun + ANSWER_S + num_bytes / self.config.min_bytes_per_s
            self._clock.ends = min(asked.ends, due)
            if time.monotonic() - kept > KEEP_TURN_S:
                kept = time.monotonic()
                self._turns.keep(_place(url), self._holder)
        asked.copy.finish()

    def _ask_robots(self, url: str, asked: _Asked) -> None:
        """Read the host's robots.txt if it is not known, and note what it says of an address.

        Raises:
            NoAnswer: nobody can tell what it says: not to be taken for leave (RFC 9309, 2.3.1.4).
            OptedOut: it disallows the address.
        """
        origin = _origin(url)
        known, read_at = self._robots.get(origin, (None, float("-inf")))
        if time.monotonic() - read_at > ROBOTS_AGE_S:
            try:
                known = self._read_robots(origin, asked)
            except NoAnswer:
                if self.config.honour_opt_outs:
                    raise
                return
            if len(self._robots) >= MAX_ROBOTS:
                self._robots.pop(next(iter(self._robots)))
            self._robots[origin] = known, time.monotonic()
        if known is not None and not known.allows(url):
            asked.signals.add(ROBOTS)
            if self.config.honour_opt_outs:
                raise OptedOut(asked.signals, _without_query(url))

    def _read_robots(self, origin: str, asked: _Asked) -> Robots | None:
        """A host's robots.txt; None where it has none, which allows all."""
        url = f"{origin}/robots.txt"
        for _ in range(MAX_REDIRECTS + 1):
            with self._answer(url, {}, asked, delay_s=0.0) as answer:
                if answer.location is not None:
                    url = _next_address(url, answer.location)
                    continue
                answer.check_comes_back()
                if answer.status != 200:
                    return None
                data = b""
                for block in answer.blocks():
                    data += block
                    if len(data) >= MAX_ROBOTS_BYTES:
                        break
                return Robots.parse(data, self.config.robot)
        return None

    def _delay_s(self, url: str) -> float:
        robots, _ = self._robots.get(_origin(url), (None, 0.0))
        return max(self.config.delay_s, robots.delay_s if robots else 0.0)


def _next_address(url: str, location: str) -> str:
    """Where a redirect leads.

    Raises:
        BadSource: nowhere that may be asked.
    """
    try:
        joined = urljoin(url, location)
    except ValueError as error:
        raise BadSource("unreadable", "a redirect to no address") from error
    address, fault = web_address(joined, may_be_signed=True)
    if fault is not None:
        raise BadSource("unreadable", f"a redirect: {fault}")
    return address


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _place(url: str) -> str:
    """Host and port, by which turns are counted."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or DEFAULT_PORTS[parts.scheme]}"


def _without_query(url: str) -> str:
    return url.partition("?")[0]
