"""What to type next: the commands that mend what a run, `lavie status` and `lavie verify` have found."""

from __future__ import annotations

import shlex

from curation.corpus.gap import Gap
from curation.corpus.manifest import CorpusInfo
from curation.corpus.store import Store


def curate_again(info: CorpusInfo) -> str:
    """The command that made a corpus, as it is on record."""
    typed = info.created_by
    return f"`{typed}`" if typed.startswith("lavie curate ") else "the same `lavie curate`"


def select_again(store: Store, name: str) -> str:
    """The command that makes a selection of this name anew."""
    return f"`lavie select {shlex.quote(store.root)} --name {name}` with its rules"


def export_again(store: Store, name: str) -> str:
    """The command that brings the shards of a selection up to it, or ends an export of it."""
    return f"`lavie export {shlex.quote(store.root)} --selection {name}`"


def report_again(store: Store, name: str) -> str:
    """The command that writes the report of a selection."""
    return f"`lavie report {shlex.quote(store.root)} --selection {name}`"


def encode_again(store: Store, name: str) -> str:
    """The command that makes the latents of a selection."""
    return f"`lavie encode {shlex.quote(store.root)} --selection {name}` with its settings"


def repair(store: Store) -> str:
    """The command that makes damaged files anew."""
    return f"`lavie verify {shlex.quote(store.root)} --repair`"


def take_in(store: Store, info: CorpusInfo, name: str, *, without: Gap, now: Gap | None) -> str:
    """The commands that take in the parts that a selection was made without.

    Args:
        store: the corpus.
        info: its contents.
        name: of the selection.
        without: the parts that it lacks.
        now: parts of the corpus that are not complete; None if that cannot be told.
    """
    select = select_again(store, name)
    if now is not None and not now.numbers & without.numbers:
        return select
    return f"{curate_again(info)}, which makes what is missing, then {select}"
