"""weights list, fetch, check, path: model files by name or group."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional, subcommand

from curation.errors import LavieError, MissingWeights
from curation.fetch import fetch
from curation.weights import GROUPS, WEIGHTS, Weight, find


def named(names: Iterable[str]) -> list[Weight]:
    """The files that some names or groups stand for, each once.

    Raises:
        LavieError: for a name that is neither, with the choices.
    """
    found: list[Weight] = []
    for name in names:
        if name not in GROUPS and name not in WEIGHTS:
            raise LavieError(
                f"no model file or group is called {name!r}; groups: {', '.join(GROUPS)}; "
                f"files: {', '.join(WEIGHTS)}"
            )
        found += GROUPS[name] if name in GROUPS else [WEIGHTS[name]]
    return list(dict.fromkeys(found))


def _state(weight: Weight) -> str:
    try:
        find(weight)
    except MissingWeights as error:
        return "wrong bytes" if "refused" in str(error) else "missing"
    return "found"


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsList:
    """Say which model files exist, for what, under which licence, and whether they are here."""

    def run(self) -> int:
        """Print a table."""
        table = Table()
        for header in ("file", "groups", "licence", "MB", "here"):
            table.add_column(header, justify="right" if header == "MB" else "left")
        for weight in WEIGHTS.values():
            groups = ", ".join(name for name, files in GROUPS.items() if weight in files)
            size = f"{weight.size_bytes / 1e6:,.1f}" if weight.size_bytes else "?"
            table.add_row(weight.name, groups, weight.licence, size, _state(weight))
        Console().print(table)
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsFetch:
    """Fetch model files into the cache, each checked by its sha256; those already here are left."""

    names: Positional[tuple[str, ...]]
    """Groups or files, as `lavie weights list` names them."""

    def run(self) -> int:
        """Fetch what is missing and print where everything lies."""
        console = Console()
        for weight in named(self.names):
            with console.status(f"fetching {weight.name}"):
                path = fetch(weight)
            console.print(f"{weight.name}: {path}", soft_wrap=True, highlight=False)
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsCheck:
    """Check the bytes of model files; 1 if one is missing or wrong."""

    names: Positional[tuple[str, ...]] = ()
    """Groups or files; all by default."""

    def run(self) -> int:
        """Print a line for each file."""
        console = Console()
        weights = named(self.names or tuple(WEIGHTS))
        states = [_state(weight) for weight in weights]
        for weight, state in zip(weights, states, strict=True):
            console.print(f"{weight.name}: {state}", highlight=False)
        return 0 if all(state == "found" for state in states) else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsPath:
    """Print the path of one file that is here, for use in other commands."""

    name: Positional[str]
    """A file, as `lavie weights list` names it."""

    def run(self) -> int:
        """Print the path alone."""
        (weight,) = named([self.name])
        Console().print(str(find(weight)), soft_wrap=True, highlight=False, markup=False)
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Model files: list, fetch, check, path."""

    action: (
        Annotated[WeightsList, subcommand("list")]
        | Annotated[WeightsFetch, subcommand("fetch")]
        | Annotated[WeightsCheck, subcommand("check")]
        | Annotated[WeightsPath, subcommand("path")]
    )
    """What to do."""

    def run(self) -> int:
        """Do it."""
        return self.action.run()
