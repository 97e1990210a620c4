"""What a run reads: its sources listed, with what was left out said aloud."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import pyarrow as pa
from rich.console import Console
from tyro.conf import arg

from curation.sources import LeftOut, list_sources


@dataclass(frozen=True, slots=True, kw_only=True)
class ListingConfig:
    """Which of the named sources a run takes."""

    limit: Annotated[int | None, arg(metavar="N")] = None
    """Take the first so many sources in the order of their addresses: a trial run. A later run without it
    goes on with the others."""
    follow_links: bool = False
    """Follow symbolic links in folders, to files and to folders, while they stay under the given folders."""
    link_roots: tuple[str, ...] = ()
    """Further folders that such links may lead into."""

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit must be at least 1, got {self.limit}")
        if self.link_roots and not self.follow_links:
            raise ValueError("link_roots has no effect without follow_links")


def listed(specs: Sequence[str], config: ListingConfig, console: Console) -> pa.Table:
    """The sources of a run, in order; prints what lay among them and was left out."""
    left_out = LeftOut()
    sources = list_sources(
        specs,
        follow_links=config.follow_links,
        link_roots=config.link_roots,
        left_out=left_out,
    )
    if left_out.counts:
        console.print(
            f"not sources: {left_out.counts.total():,} entries of folders", highlight=False
        )
    for line in left_out.lines():
        console.print(f"  {line}", soft_wrap=True, highlight=False, markup=False)
    if config.limit is not None and config.limit < len(sources):
        console.print(f"--limit: the first {config.limit:,} of {len(sources):,} sources")
        sources = sources.slice(0, config.limit).combine_chunks()
    return sources
