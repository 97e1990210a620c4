"""Lines of the log, of the driver and of its workers: readable ones, or one JSON object a line.

A worker keeps what it logs while a unit runs and hands it over with the unit's result; the driver tells it
again with stage, part and machine. So one stream has it all, in the order in which units ended.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

LogAs = Literal["warnings", "lines", "json"]

OURS = ("curation", "pipelines")
"""Loggers whose INFO lines are wanted."""
FACTS = "facts"
"""Attribute of a record: what its line is about, by name, such as {"stage": "decode", "part": 7}."""
MOST_LINES = 1000
"""Lines of one unit that are handed over; of more, the first ones and how many others there were."""


def _shown(text: str) -> str:
    from curation.sources import redacted  # imports pyarrow: not to show flags

    return redacted(text)


def facts(**named: Any) -> dict[str, dict[str, Any]]:
    """``extra`` of a call of a logger: what the line is about."""
    return {FACTS: named}


class JsonLines(logging.Formatter):
    """Records as JSON objects: time, level, logger, message, then what the line is about."""

    def format(self, record: logging.LogRecord) -> str:
        """One object in one line; addresses lose user names and queries."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": time,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _shown(record.getMessage()),
        }
        for name, value in getattr(record, FACTS, {}).items():
            line[name] = _shown(value) if isinstance(value, str) else value
        if record.exc_info:
            line["error"] = _shown(self.formatException(record.exc_info))
        return json.dumps(line, default=str)


class ReadableLines(logging.Formatter):
    """Records as people read them; addresses lose user names and queries."""

    def __init__(self) -> None:
        super().__init__("%(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """One record."""
        return _shown(super().format(record))


def log_as(kind: LogAs) -> None:
    """Write this process's log in one of the ways, to where it is written already (stderr)."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, ReadableLines | JsonLines):
            handler.setFormatter(JsonLines() if kind == "json" else ReadableLines())
    for name in OURS:
        logging.getLogger(name).setLevel(logging.WARNING if kind == "warnings" else logging.INFO)


def is_json() -> bool:
    """Whether this process writes its log as JSON."""
    return any(isinstance(h.formatter, JsonLines) for h in logging.getLogger().handlers)


def level() -> int:
    """From which level on lines of ours are wanted; handed to workers."""
    return logging.getLogger(OURS[0]).getEffectiveLevel()


@dataclass(frozen=True, slots=True)
class Line:
    """A line that a worker has logged; travels to the driver."""

    logger: str
    level: int
    created: float
    """Seconds since 1970, by the worker's clock."""
    message: str
    about: Mapping[str, Any] = field(default_factory=dict)


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[Line] = []
        self.num_more = 0

    def emit(self, record: logging.LogRecord) -> None:
        if len(self.lines) == MOST_LINES:
            self.num_more += 1
            return
        about = getattr(record, FACTS, {})
        message = _shown(record.getMessage())
        self.lines.append(Line(record.name, record.levelno, record.created, message, about))


@contextmanager
def kept(level: int) -> Iterator[list[Line]]:
    """Keep what is logged by ours while the context lasts, from a level on."""
    handler, loggers = _Kept(), [logging.getLogger(name) for name in OURS]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(level)
        logger.addHandler(handler)
    try:
        yield handler.lines
    finally:
        for logger, was in zip(loggers, before, strict=True):
            logger.setLevel(was)
            logger.removeHandler(handler)
        if handler.num_more:
            what = f"{handler.num_more} more lines of this unit"
            handler.lines.append(Line(__name__, logging.WARNING, handler.lines[-1].created, what))


def tell_again(line: Line, **about: Any) -> None:
    """Log a line of a worker in this process.

    Args:
        line: what it has logged.
        about: where: stage, part, machine.
    """
    record = logging.LogRecord(line.logger, line.level, "", 0, line.message, None, None)
    record.created = line.created
    setattr(record, FACTS, {**about, **line.about})
    logger = logging.getLogger(line.logger)
    if logger.isEnabledFor(line.level):
        logger.handle(record)
