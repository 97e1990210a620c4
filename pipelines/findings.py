"""What `lavie verify` has found: files that are damaged or gone, and what is not finished."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """What a damaged file belongs to; how it is repaired follows from it."""

    CORPUS = "corpus"
    RECORD = "record"
    SOURCES = "sources"
    LAYER = "layer"
    SELECTION = "selection"
    SHARDS = "shards"
    ENCODED = "encoded"
    REPORT = "report"
    NOTE = "note"
    """Spares work or says what is to be done; made of what lies there, so that it may be deleted."""
    REMOVED = "removed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One file that is not as it was written."""

    kind: Kind
    """What it belongs to."""
    folder: str
    """The folder of parts, of a selection, of its shards, or of one layer of latents."""
    name: str
    """Path of the file in the corpus."""
    what: str
    """What is wrong with it."""
    part: int | None = None
    """Number of the part, if the file is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """A folder without the file that is written last, or with parts that are not there or on no record."""

    kind: Kind
    """What it is; RECORD where it lacks only that."""
    folder: str
    """The folder."""
    what: str
    """What it lacks, and what to do."""


@dataclass(slots=True)
class Findings:
    """What a corpus looks like when all of it is read."""

    faults: list[Fault] = field(default_factory=list)
    """Files that are damaged or gone."""
    unfinished: list[Unfinished] = field(default_factory=list)
    """What a run has still to end, or has lost what said that it had ended."""
    notes: list[str] = field(default_factory=list)
    """What is whole and waits for a command, a sentence each."""
    num_files: int = 0
    """Files that were read."""
