"""What was typed wrong, in one sentence that names the flag, the rule and the value."""

from __future__ import annotations

import difflib
import math
import re
import sys
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from itertools import zip_longest
from typing import Any, get_type_hints

from tyro._errors import (
    BadValue,
    InstantiationFailure,
    InvalidChoice,
    MissingArgs,
    MissingSubcommand,
    ParseErrorEvent,
    UnrecognizedArgs,
)
from tyro.conf import OmitArgPrefixes, Positional, UseAppendAction

from curation.errors import UsageError

_NOT_OF_THE_TYPE = {
    "a number": r"could not convert string to float: (.+)$",
    "a whole number": r"invalid literal for int\(\) with base 10: (.+)$",
}
"""What a flag takes -> how Python refuses a word that is not that."""


def check_command(arguments: Sequence[str], known: Iterable[str]) -> None:
    """Refuse a first word that is no command.

    Raises:
        UsageError: names those that there are.
    """
    names = list(known)
    if arguments and not arguments[0].startswith("-") and arguments[0] not in names:
        raise UsageError(
            f"there is no command {arguments[0]!r}{_perhaps(arguments[0], names)} (commands are "
            f"{', '.join(names)})"
        )


def refusal(event: ParseErrorEvent, arguments: Sequence[str], command: type | None) -> str | None:
    """Why tyro refuses what was typed; None where its own words must do.

    Args:
        event: as tyro tells it.
        arguments: as they were typed.
        command: the dataclass of the command that was asked for.
    """
    asked = "lavie" if command is None else f"lavie {arguments[0]}"
    if isinstance(event, InstantiationFailure):
        # tyro names the place in our tree of dataclasses; the flag is what was typed.
        given = event.argument
        if given is None or given.is_positional():
            flag = flag_of(event.message, arguments, checked(sys.exception()), command)
        else:
            flag = f"{given.lowered.name_or_flags[-1]}: "
        return f"{flag}{_plain(event.message)}"
    if isinstance(event, UnrecognizedArgs):
        return _unknown(asked, event.tokens, command)
    if isinstance(event, MissingArgs):
        if any(token.startswith("-") for token in event.unrecognized_tokens):
            return _unknown(asked, event.unrecognized_tokens, command)
        lacking = "; ".join(_told(each.arg) for each in event.missing_arguments)
        return f"{asked}: {lacking} is missing"
    if isinstance(event, InvalidChoice):
        choices = ", ".join(event.choices)
        perhaps = _perhaps(event.value, event.choices)
        return f"{_name(event.argument)}: it is one of {choices}, got {event.value!r}{perhaps}"
    if isinstance(event, BadValue):
        if event.offending_value is None:
            return f"{_name(event.argument)}: a value is due behind it"
        return f"{_name(event.argument)}: takes no value, got {event.offending_value!r}"
    if isinstance(event, MissingSubcommand):
        names = list(event.subcommand_spec.parser_from_name)
        got = f", got {event.found_token!r}" if event.found_token else ""
        perhaps = _perhaps(event.found_token or "", names)
        return f"{asked}: one of {', '.join(names)} is due{got}{perhaps}"
    return None


def _unknown(asked: str, tokens: Sequence[str], command: type | None) -> str:
    """Of the first flag that is none, or of the first word too many."""
    flag = next((token.partition("=")[0] for token in tokens if token.startswith("-")), None)
    if flag is None:
        return (
            f"{asked}: takes no further word, got {tokens[0]!r}; `{asked} --help` lists its flags"
        )
    flags = [] if command is None else list(_flags_of(command))
    return f"{flag}: no flag of {asked}{_perhaps(flag, flags)}; `{asked} --help` lists all"


def _perhaps(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.7)
    return f"; perhaps you meant {close[0]}" if close else ""


def _told(argument: Any) -> str:
    """An argument with the first sentence of its help."""
    told = argument.field.helptext
    about = " ".join(((told() if callable(told) else told) or "").split())
    about = about.partition(". ")[0].rstrip(".")
    return f"{_name(argument)} ({about})" if about else _name(argument)


def _name(argument: Any) -> str:
    name = str(argument.display_name())
    return name.upper() if argument.is_positional() else name


def _plain(message: str) -> str:
    """What Python and tyro say of a word that is not of a flag's type, as one sentence for a person."""
    errors = re.split(r"\n+(?:Got errors:\s*)?(?:- )?", message)  # of a union: one for each type
    for due, said in _NOT_OF_THE_TYPE.items():
        for error in errors:
            if found := re.search(said, error):
                return f"{due} is due, got {found[1]}"
    return message


def check_numbers(settings: Any, arguments: Sequence[str], command: type) -> None:
    """Refuse nan and inf in any flag: every range check lets a nan pass.

    Raises:
        UsageError: names the flag as it was typed.
    """
    for each in fields(settings):
        value = getattr(settings, each.name)
        if is_dataclass(value):
            check_numbers(value, arguments, command)
            continue
        for number in value if isinstance(value, tuple) else (value,):
            flag = flag_of(each.name, arguments, type(settings), command)
            if flag and isinstance(number, float) and not math.isfinite(number):
                raise UsageError(f"{flag}a finite number is due, got {number}")
            if is_dataclass(number):
                check_numbers(number, arguments, command)


def checked(error: BaseException | None) -> type | None:
    """The settings whose own check (`__post_init__`) raised an error, or what is behind it."""
    while error is not None:
        for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
            if frame.f_code.co_name == "__post_init__":
                return type(frame.f_locals["self"])
        error = error.__cause__ or error.__context__
    return None


def flag_of(
    message: str, arguments: Sequence[str], settings: type | None, command: type | None
) -> str:
    """'--decode.sample-fps: ' for a message with the setting's name; '' if none of those was typed.

    Several groups of flags may have a setting of this name (`--height`, `--tiling.height`): the one of the
    settings that were refused is meant, and of those the one whose value the message has.

    Args:
        message: what is wrong.
        arguments: as they were typed.
        settings: the dataclass that the setting is of.
        command: that of the command.
    """
    words = set(re.findall(r"[\w.-]+", message)) | set(re.findall(r"\w+", message))
    groups = {""}
    if settings is not None and command is not None:
        groups = {group for _, group, kind in _walk(command) if kind is settings} or {""}
    found: list[tuple[bool, bool, int, str]] = []
    for place, (argument, following) in enumerate(zip_longest(arguments, arguments[1:])):
        flag, _, value = argument.partition("=")
        *group, name = flag.removeprefix("--").replace("-", "_").split(".")
        if flag.startswith("--") and name in words:
            is_own = (group[-1] if group else "") in groups
            has_value = (value or following) in words
            found.append((not is_own, not has_value, place, flag))
    return f"{min(found)[-1]}: " if found else ""


def _walk(command: type) -> Iterator[tuple[str, str, type]]:
    """What stands before a flag, its last group alone, and the settings; of all settings of a command."""
    waiting: list[tuple[str, str, type]] = [("", "", command)]
    while waiting:
        prefix, group, kind = waiting.pop()
        yield prefix, group, kind
        for name, hint, marks in _hints(kind):
            if isinstance(hint, type) and is_dataclass(hint):
                is_bare = any(m is OmitArgPrefixes or getattr(m, "name", None) == "" for m in marks)
                inner = (prefix, group) if is_bare else (f"{prefix}{name}.", name)
                waiting.append((*inner, hint))


def _hints(kind: type) -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
    """Name, type and marks of the fields of some settings."""
    hints = get_type_hints(kind, include_extras=True)
    for each in fields(kind):
        hint = hints[each.name]
        yield each.name, getattr(hint, "__origin__", hint), getattr(hint, "__metadata__", ())


def _flags_of(command: type) -> Iterator[str]:
    """All flags of a command."""
    positional = Positional[int].__metadata__[0]  # type: ignore[attr-defined]
    for prefix, _, kind in _walk(command):
        for name, hint, marks in _hints(kind):
            if not (isinstance(hint, type) and is_dataclass(hint)) and positional not in marks:
                yield f"--{prefix}{name}".replace("_", "-")


def check_once(arguments: Sequence[str], command: type) -> None:
    """Refuse a flag that is given twice and takes one value: the last would win in silence.

    Raises:
        UsageError: names the flag.
    """
    marker = UseAppendAction[int].__metadata__[0]  # type: ignore[attr-defined]
    repeatable = {name for name, _, marks in _hints(command) if marker in marks}
    flags = Counter(
        argument.split("=")[0].removeprefix("--").replace("-", "_")
        for argument in arguments
        if argument.startswith("--") and len(argument) > 2
    )
    for flag, times in flags.items():
        if times > 1 and flag not in repeatable:
            raise UsageError(
                f"--{flag.replace('_', '-')} is given {times} times, and takes one value"
            )
