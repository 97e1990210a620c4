"""The help of every flag is the docstring under its field: there, and readable by itself."""

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import subprocess
import sys
import textwrap
import typing
from collections.abc import Iterator

import pytest

import pipelines.commands

LEANS_ON_ANOTHER = ("of ", "likewise", "the same ", "as above", "see above", "ditto")
"""How a sentence begins that only makes sense below another one, which --help does not promise."""


def commands() -> Iterator[type]:
    """Every command's settings: the dataclasses of `pipelines.commands` that can be run."""
    for module in pkgutil.iter_modules(pipelines.commands.__path__):
        held = vars(importlib.import_module(f"pipelines.commands.{module.name}"))
        for kind in held.values():
            own = getattr(kind, "__module__", "").startswith(pipelines.commands.__name__)
            if own and dataclasses.is_dataclass(kind) and hasattr(kind, "run"):
                yield kind


def inside(hint: object) -> Iterator[type]:
    """Dataclasses named anywhere in a type hint."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        yield hint
    for part in typing.get_args(hint):
        yield from inside(part)


def settings() -> list[type]:
    """All dataclasses that a command's flags are made of, each once."""
    found: dict[type, None] = {}
    waiting = list(commands())
    while waiting:
        kind = waiting.pop()
        if kind not in found:
            found[kind] = None
            for hint in typing.get_type_hints(kind, include_extras=True).values():
                waiting += inside(hint)
    return sorted(found, key=lambda kind: (kind.__module__, kind.__qualname__))


def docs(kind: type) -> dict[str, str]:
    """Field -> docstring under it, inherited ones included."""
    found: dict[str, str] = {}
    for owner in reversed(kind.__mro__):
        if not dataclasses.is_dataclass(owner):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, after in zip(body.body, body.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(after, ast.Expr):
                text = ast.literal_eval(after.value)
                found[ast.unparse(field.target)] = text
    return found


@pytest.mark.parametrize("kind", settings(), ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_every_flag_says_by_itself_what_its_value_is(kind: type) -> None:
    texts = docs(kind)
    for field in dataclasses.fields(kind):
        text = " ".join(texts.get(field.name, "").split())
        place = f"{kind.__module__}.{kind.__name__}.{field.name}"
        assert text, f"{place} needs a docstring under it: what the value is, its unit, its range"
        opening = text.lower()
        assert not opening.startswith(LEANS_ON_ANOTHER), (
            f"the help of {place} begins {text[:30]!r}: name what it is of, since --help is read alone"
        )
        assert "likewise" not in opening, f"the help of {place} leans on a neighbour: {text!r}"
        assert text.endswith((".", "!")), f"the help of {place} is a sentence, got {text!r}"


def test_settings_are_found_through_nested_and_optional_ones() -> None:
    names = {kind.__name__ for kind in settings()}
    assert {"Train", "Phase", "OptimConfig", "Cascade", "Tiling", "View", "DecodeConfig"} <= names


def test_flags_are_shown_without_what_only_running_needs():
    shown = """
import sys
from pipelines.cli import COMMANDS, parse
for command in COMMANDS:
    try:
        parse([command, "--help"])
    except SystemExit:
        pass
print(sorted({"av", "cv2", "diffusers", "duckdb", "ray", "torch", "transformers"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", shown], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.splitlines()[-1] == "[]"
