"""docs/footage.md says what the code does: its lists are the code's."""

import re
from pathlib import Path

import pytest

from curation.corpus.schema import LAYERS
from curation.errors import LASTING, PASSING
from curation.media.containers import DEMUXERS
from curation.media.probe import DECODERS
from curation.sources.uris import IMAGE_SUFFIXES, VIDEO_SUFFIXES

PAGE = Path(__file__).parents[3] / "docs" / "footage.md"


def section(title: str) -> str:
    """Text of a section up to the next; of the page's beginning for no title."""
    parts = re.split(r"^## (.+)$", PAGE.read_text(), flags=re.MULTILINE)
    return dict(zip(["", *parts[1::2]], parts[0::2], strict=True))[title]


def words(text: str) -> list[str]:
    """What stands in lines that hold only quoted words."""
    lines = re.findall(r"^(?:`[^`]+` ?)+$", text, re.MULTILINE)
    return [word for line in lines for word in re.findall(r"`([^`]+)`", line)]


def rows(text: str) -> list[list[str]]:
    """Cells of tables, without their headings."""
    lines = re.findall(r"^\| (.+) \|$", text, re.MULTILINE)
    cells = [line.split(" | ") for line in lines]
    ruler = [place for place, each in enumerate(cells) if set("".join(each)) == {"-"}]
    return [each for place, each in enumerate(cells) if not {place, place + 1} & set(ruler)]


def test_names_and_codecs_are_those_of_the_code():
    assert sorted(words(section(""))) == sorted(VIDEO_SUFFIXES | IMAGE_SUFFIXES)
    assert sorted(words(section("Codecs"))) == sorted(DECODERS)


def test_containers_are_those_that_the_first_bytes_can_be():
    named = [row[0].strip("`") for row in rows(section("Containers"))]
    assert sorted(named) == sorted(DEMUXERS)


def test_every_reason_stands_with_its_meaning():
    listed = {row[0].strip("`"): row[1] for row in rows(section("Why a source is rejected"))}
    assert listed == LASTING | PASSING


@pytest.mark.parametrize("row", rows(section("Oddities")), ids=lambda row: row[0])
def test_columns_that_tell_of_an_oddity_are_in_the_corpus(row):
    columns = {column.name for layer in LAYERS.values() for column in layer.columns}
    named = re.findall(r"`([^`]+)`", row[2])
    assert named or row[2] == "none"
    assert set(named) <= columns
