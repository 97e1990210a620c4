"""ARCHITECTURE.md names every module but stations once, with a phrase, and none that is not there."""

import re
from collections import Counter
from pathlib import Path

from curation.corpus.schema import LAYERS

ROOT = Path(__file__).parents[1]
PACKAGES = ("curation", "pipelines", "training", "inference")


def named_modules() -> Counter[str]:
    """Paths that the tree of the page names: a line that begins with a folder, then its files."""
    tree = re.search(r"## The tree\n+```\n(.*?)```", (ROOT / "ARCHITECTURE.md").read_text(), re.S)
    assert tree is not None, "ARCHITECTURE.md has a fenced block under '## The tree'"
    folder, named = "", Counter[str]()
    for line in tree.group(1).splitlines():
        if begins := re.match(r"[a-z_]+/(?:[a-z_]+/)*", line):
            folder = begins.group()
        elif folder.split("/")[0] in PACKAGES:
            named.update(f"{folder}{file}" for file in re.findall(r"\b\w+\.py\b", line))
    return named


def is_station(path: Path) -> bool:
    """Whether docs/corpus.md says what the file is for: stations are named as their layers."""
    return path.parent == ROOT / "curation/stations" and path.stem in LAYERS


def test_the_tree_names_every_module_once_and_none_that_is_not_there() -> None:
    there = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if path.name != "__init__.py" and not is_station(path)
    }
    named = named_modules()
    advice = (
        "under '## The tree' of ARCHITECTURE.md: below its folder's line, 'name.py what it does;'"
    )
    assert not there - set(named), f"name {sorted(there - set(named))} {advice}"
    assert not set(named) - there, f"take {sorted(set(named) - there)} out, no such file, {advice}"
    twice = [name for name, times in named.items() if times > 1]
    assert not twice, f"name {twice} once only, {advice}"
