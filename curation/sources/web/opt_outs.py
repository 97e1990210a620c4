"""What servers say against the use of what they hold: robots.txt, and headers of an answer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from protego import Protego

ROBOTS = "robots"
TDM = "tdm-reservation"
MAX_ROBOTS_BYTES = 500 * 1024
"""What is read of a robots.txt, as RFC 9309 asks for at the least."""
MAX_CRAWL_DELAY_S = 60.0
"""A robots.txt that asks for longer pauses gets these."""
_AI_WORDS = frozenset({"noai", "noimageai"})
_WITH_VALUE = frozenset(
    {"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"}
)


@dataclass(frozen=True, slots=True)
class Robots:
    """One host's robots.txt (RFC 9309), read for one robot."""

    rules: Protego
    robot: str

    @classmethod
    def parse(cls, data: bytes, robot: str) -> Robots:
        """Read the first `MAX_ROBOTS_BYTES` of a robots.txt, whatever stands in it."""
        return cls(Protego.parse(data[:MAX_ROBOTS_BYTES].decode("utf-8", "replace")), robot)

    def allows(self, url: str) -> bool:
        """Whether the robot may ask for an address."""
        return self.rules.can_fetch(url, self.robot)

    @property
    def delay_s(self) -> float:
        """Seconds between requests that it asks for; 0 if it does not say."""
        delay_s = self.rules.crawl_delay(self.robot) or 0.0
        return min(max(delay_s, 0.0), MAX_CRAWL_DELAY_S)


def opt_outs(headers: Iterable[tuple[str, str]], robot: str) -> set[str]:
    """What the headers of an answer say against its use: 'noai', 'noimageai', 'tdm-reservation'.

    Args:
        headers: names in lower case, and values.
        robot: of the ``X-Robots-Tag`` headers for one robot, only those for this one count.
    """
    found: set[str] = set()
    for name, value in headers:
        if name == TDM and value.strip() == "1":
            found.add(TDM)
        if name == "x-robots-tag":
            found |= _directives(value, robot) & _AI_WORDS
    return found


def _directives(value: str, robot: str) -> set[str]:
    """The words of one X-Robots-Tag that speak to a robot: 'noai, otherbot: noindex'."""
    found, speaks_to = set[str](), None
    for piece in value.lower().split(","):
        name, colon, rest = (text.strip() for text in piece.partition(":"))
        if colon and name not in _WITH_VALUE:
            speaks_to, name = name, rest
        if speaks_to in (None, "*", robot.lower()):
            found.add(name)
    return found
