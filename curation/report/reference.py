"""What LaVie publishes about Vimeo25M and WebVid10M, as far as it can be read.

Source of all: arXiv 2309.15103, section 5.1 with figures 6 and 7. The figures' numbers come from
the text layer of the paper, which has lost the order of some bins: where value and bin cannot be
brought together again only the values are here, sorted, and never drawn as bars of bins.
"""

from __future__ import annotations

from dataclasses import dataclass

SOURCE = "LaVie, arXiv 2309.15103, section 5.1, figures 6 and 7"


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One published distribution over known bins."""

    corpus: str
    """'Vimeo25M' or 'WebVid10M'."""
    edges: tuple[float, ...]
    """Edges of the bins, in the figure's unit; infinite where open."""
    percents: tuple[float | None, ...]
    """Percent of clips in each bin as printed; None where not published."""
    note: str = ""
    """What is uncertain about it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scrambled:
    """Published values whose bins are not recoverable."""

    corpus: str
    """'Vimeo25M'."""
    percents: tuple[float, ...]
    """Percent of clips, from the largest to the smallest: not in the order of any bins."""
    bins: str
    """The bins that they are about, in words."""
    note: str
    """What can be said all the same."""


INF = float("inf")
_SIDE_PX = (0.0, 400.0, 600.0, 800.0, INF)
_SCORES = (0.0, 2.0, 4.0, 6.0, 8.0, 10.0)

AESTHETIC = (
    Published(
        corpus="Vimeo25M",
        edges=_SCORES,
        percents=(0.02, 1.56, 79.12, 16.89, 2.40),
        note="Vimeo25M: 1.56 % and 2.40 % may be swapped (the order of bins is lost in the paper's "
        "text); the text confirms 79.12 % at 4-6 and 16.89 % at 6-8, which it calls 'above 6'.",
    ),
    Published(corpus="WebVid10M", edges=_SCORES, percents=(0.23, 19.96, 72.58, 7.22, 0.01)),
)

HEIGHT_PX = (
    Published(corpus="Vimeo25M", edges=_SIDE_PX, percents=(0.18, 1.50, 59.93, 38.40)),
    Published(
        corpus="WebVid10M",
        edges=_SIDE_PX,
        percents=(99.99, None, None, None),
        note="WebVid10M: only the largest bin is printed; the others share the other 0.01 %.",
    ),
)

WIDTH_PX = (
    Published(
        corpus="Vimeo25M",
        edges=_SIDE_PX,
        percents=(0.02, 0.03, 0.24, 99.71),
        note="The bins of width are taken to be those of height.",
    ),
    Published(
        corpus="WebVid10M",
        edges=_SIDE_PX,
        percents=(None, 99.99, None, None),
        note="WebVid10M: only the largest bin is printed; the others share the other 0.01 %.",
    ),
)

DURATION_S = Scrambled(
    corpus="Vimeo25M",
    percents=(54.0, 21.0, 13.0, 6.0, 4.0, 2.0),
    bins="0-2, 2-4, 4-8, 8-14, 14-20 and over 20 s",
    note="which value belongs to which bin is not recoverable",
)

CAPTION_WORDS = Scrambled(
    corpus="Vimeo25M",
    percents=(41.0, 22.0, 21.0, 9.0, 7.0),
    bins="4-7, 7-9, 9-11, 11-13 and over 13 words",
    note="which value belongs to which bin is not recoverable (22 % follows from the sum); the "
    "text says that most captions have about 10 words, so 41 % is probably 9-11",
)

CATEGORIES = Scrambled(
    corpus="Vimeo25M",
    percents=(12.0, 12.0, 12.0, 11.0, 11.0, 11.0, 10.0, 10.0, 7.0, 4.0),
    bins="Ads and Commercials, Animation, Branded Content, Comedy, Documentary, Experimental, "
    "Music, Narrative, Sports, Travel",
    note="which value belongs to which category is not recoverable",
)
