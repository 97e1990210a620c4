"""The head of a web server's answer: what it means for a source."""

from __future__ import annotations

import email.utils
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpcore2

from curation.errors import BadSource, machine_fault
from curation.sources.web.connections import UnknownHost

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_COMES_BACK = frozenset({408, 425, 429})
"""With all of 5xx: answers that say nothing of the source, and may be others in a while."""
_GONE = frozenset({410, 451})


class NoAnswer(Exception):
    """A server gave none, or one that says nothing of the source.

    Args:
        seen: for a person, without queries of addresses.
        retry_after_s: how long it asks to be left alone; 0 if it does not say.
        is_final: whether another try in this run is in vain.
    """

    def __init__(self, seen: str, *, retry_after_s: float = 0.0, is_final: bool = False) -> None:
        super().__init__(seen)
        self.seen = seen
        self.retry_after_s = retry_after_s
        self.is_final = is_final

    def told(self, tries: int) -> str:
        """What happened, for a row."""
        asks = f"; it asks to be left alone for {self.retry_after_s:.0f} s"
        return f"{self.seen}, {tries} tries{asks if self.retry_after_s else ''}"


CONNECTION_ERRORS = (
    httpcore2.NetworkError,
    httpcore2.TimeoutException,
    httpcore2.ProtocolError,
)


def fault_of(error: Exception) -> Exception:
    """What an error of a connection is: no answer, this machine's fault, or that of what was asked for."""
    # httpcore2 hands the cause over as the argument, and cuts it off from the chain.
    cause = next((each for each in error.args if isinstance(each, BaseException)), None)
    if cause is not None and (fault := machine_fault(cause)):
        return fault
    if isinstance(cause, ssl.SSLCertVerificationError):
        return BadSource("unreadable", f"its certificate: {cause.verify_message}")
    if isinstance(error, UnknownHost):
        return NoAnswer(str(error), is_final=error.is_final)
    if isinstance(error, httpcore2.LocalProtocolError):
        return BadSource("unreadable", f"it cannot be asked for: {error}")
    if isinstance(error, httpcore2.ConnectTimeout):
        return NoAnswer("no connection in time")
    if isinstance(error, httpcore2.ConnectError):
        return NoAnswer(f"no connection ({error})")
    if isinstance(error, httpcore2.TimeoutException):
        return NoAnswer("it sends too slowly")
    return NoAnswer(f"the connection broke ({error or type(error).__name__})")


@dataclass(frozen=True, slots=True)
class Answer:
    """The head of an answer, and its body while it is open."""

    status: int
    headers: tuple[tuple[str, str], ...]
    """Names in lower case, and values."""
    response: httpcore2.Response

    @classmethod
    def of(cls, response: httpcore2.Response) -> Answer:
        """Read what a response says."""
        headers = tuple(
            (name.decode("latin-1").lower(), value.decode("latin-1"))
            for name, value in response.headers
        )
        return cls(response.status, headers, response)

    def header(self, name: str) -> str | None:
        """The first value of a header; None without one."""
        return next((value.strip() for known, value in self.headers if known == name), None)

    @property
    def location(self) -> str | None:
        """Where it redirects to; None if it does not."""
        return self.header("location") if self.status in _REDIRECTS else None

    @property
    def length(self) -> int | None:
        """Bytes of the body as it says; None if it does not."""
        text = self.header("content-length")
        return int(text) if text is not None and text.isascii() and text.isdigit() else None

    def blocks(self) -> Iterator[bytes]:
        """The body, as it comes."""
        yield from self.response.iter_stream()

    def check_comes_back(self) -> None:
        """Tell an answer about the server from one about what was asked for.

        Raises:
            NoAnswer: it is about the server.
        """
        if self.status >= 500 or self.status in _COMES_BACK:
            retry_after_s = _seconds(self.header("retry-after"))
            raise NoAnswer(f"HTTP status {self.status}", retry_after_s=retry_after_s)

    def check_holds_a_source(self) -> None:
        """Check that the body is (a piece of) what was asked for.

        Raises:
            BadSource: it is not: 'not_found', 'gone' or 'unreadable'.
            NoAnswer: the server says nothing of it.
        """
        self.check_comes_back()
        if self.status in _GONE:
            raise BadSource("gone", f"HTTP status {self.status}")
        if self.status == 404:
            raise BadSource("not_found", "HTTP status 404")
        if self.status not in (200, 206):
            raise BadSource("unreadable", f"HTTP status {self.status}")
        encoding = (self.header("content-encoding") or "identity").lower()
        if encoding != "identity":
            raise BadSource(
                "unreadable", f"it was sent as {encoding[:20]!r}, which was not asked for"
            )


def _seconds(retry_after: str | None) -> float:
    """Seconds that a Retry-After header means: a number, or a date; 0 for neither."""
    if retry_after is None:
        return 0.0
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after[:9])
    try:
        date = email.utils.parsedate_to_datetime(retry_after)
    except ValueError:
        return 0.0
    return max(0.0, date.timestamp() - time.time())


def content_range(text: str | None) -> tuple[int, int | None] | None:
    """First byte and whole length of ``bytes 7-99/100``; None if it says something else."""
    unit, _, rest = (text or "").partition(" ")
    span, _, total = rest.partition("/")
    first = span.partition("-")[0]
    if unit.lower() != "bytes" or not first.isdigit():
        return None
    return int(first), int(total) if total.isdigit() else None


def validator(answer: Answer) -> str | None:
    """What tells one version of a file from another, byte for byte: a strong ETag, else a date.

    A date is weak within one second (RFC 9110, 8.8.2.2), so it counts only with a later ``Date``.
    """
    etag = answer.header("etag")
    if etag and not etag.startswith("W/"):
        return etag
    modified, sent = (_date(answer.header(name)) for name in ("last-modified", "date"))
    if etag or modified is None or sent is None or sent - modified < 1.0:
        return None
    return answer.header("last-modified")


def _date(text: str | None) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(text).timestamp() if text else None
    except ValueError:
        return None
