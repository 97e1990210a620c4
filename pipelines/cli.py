"""The `lavie` command."""

from __future__ import annotations

import ast
import errno
import importlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import make_dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any, Union

import tyro
from rich.console import Console
from tyro._errors import ParseErrorEvent, on_parse_error

from curation.errors import LavieError, UsageError
from pipelines.logs import ReadableLines, is_json
from pipelines.mistyped import (
    check_command,
    check_numbers,
    check_once,
    checked,
    flag_of,
    refusal,
)

DESCRIPTION = "LaVie: curate a text-video corpus, train the cascade, sample videos."
STAGES = ("base", "interpolation", "super-resolution")
EXIT_ERROR = 1  # something the user must see to
EXIT_USAGE = 2  # wrong arguments, as everywhere
EXIT_INTERRUPTED = 130  # Ctrl-C: 128 and the signal's number, as a shell counts
EXIT_TERMINATED = 143  # SIGTERM


class Terminated(KeyboardInterrupt):
    """SIGTERM: what ends on Ctrl-C ends in the same way, with another exit code."""


def spelled(arguments: Sequence[str]) -> list[str]:
    """The arguments with recipes spelled as they are called: `select --like open_sora` is open-sora."""
    dashed = list(arguments)
    if dashed[:1] != ["select"]:
        return dashed
    for place, argument in enumerate(dashed):
        if (place and dashed[place - 1] == "--like") or argument.startswith("--like="):
            dashed[place] = argument.replace("_", "-")
    return dashed


def _typed_value(flag: str, arguments: Sequence[str]) -> str | None:
    """The value of a flag that the defaults of other flags depend on; the last one counts, as in tyro."""
    found = None
    for argument, following in zip_longest(arguments, arguments[1:]):
        if argument == flag:
            found = following
        elif argument.startswith(f"{flag}="):
            found = argument.removeprefix(f"{flag}=")
    return found


def _preset_on_record(words: Sequence[str]) -> str | None:
    """The preset that the corpus among some words was curated with; None if it cannot be told.

    What is wrong with a corpus that cannot be read is for the command to say.
    """
    from curation.corpus.manifest import read_corpus
    from curation.corpus.store import Store

    for word in words:
        if not word.startswith("-") and ("://" in word or Path(word).is_dir()):
            try:
                return read_corpus(Store(word)).preset or None
            except (LavieError, OSError, ValueError):
                continue
    return None


def _with_preset(command: str, arguments: Sequence[str]) -> Any:
    """curate, select, export or report, with the defaults of the preset and recipe that were typed."""
    from curation.select.rule_presets import PRESETS as RECIPES
    from pipelines.commands.curation import Curate
    from pipelines.commands.selection import Export, Report, Select
    from pipelines.presets import PRESETS, PresetName

    preset, like = _typed_value("--preset", arguments), _typed_value("--like", arguments)
    if preset is None and command != "curate":
        preset = _preset_on_record(arguments[1:])
    # tyro refuses a wrong name, with the choices.
    name: PresetName = next((known for known in PRESETS if known == preset), "embedded")
    config, missing = PRESETS[name](), tyro.MISSING
    if command == "curate":
        return Curate(
            sources=missing,
            out=missing,
            preset=name,
            config=config,
            dedup=config.select.dedup,
            balance=config.select.balance,
            buckets=config.select.buckets,
            splits=config.select.splits,
            clusters=config.select.clusters,
        )
    if command == "export":
        return Export(corpus=missing, preset=name, config=config.export)
    if command == "report":
        return Report(corpus=missing, preset=name, config=config.report)
    recipe = next((known for known in RECIPES if known == like), None)
    selection = RECIPES[recipe]() if recipe else config.select
    return Select(
        corpus=missing,
        preset=name,
        dedup=selection.dedup,
        balance=selection.balance,
        buckets=selection.buckets,
        splits=selection.splits,
        clusters=selection.clusters,
    )


def _train(arguments: Sequence[str]) -> Any:
    """`lavie train` with the defaults of its stage and preset."""
    from pipelines.commands.training import Train
    from training.presets import PRESETS as RUNS
    from training.presets import PresetName as RunName

    stage = next((word for word in arguments[1:] if word in STAGES), "base")
    name: RunName = next(
        (known for known in RUNS if known == _typed_value("--preset", arguments)), "paper"
    )
    config = RUNS[name](stage.replace("-", "_"))  # type: ignore[arg-type]
    return Train(network=tyro.MISSING, out=tyro.MISSING, preset=name, config=config)


def _sample(arguments: Sequence[str]) -> Any:
    """`lavie sample` with the size, length and pace that the weights' base network was trained on."""
    from pipelines.commands.sampling import Cascade, Sample

    config, where = Cascade(), _typed_value("--weights", arguments)
    if where is not None and Path(where).is_dir():
        from inference.weights import base_samples  # imports torch

        with suppress(FileNotFoundError, ValueError):  # which the command will name
            config = config.at(base_samples(Path(where)))
    return Sample(out=tyro.MISSING, config=config)


COMMANDS = {
    "curate": ("curation", "Curate"),
    "select": ("selection", "Select"),
    "export": ("selection", "Export"),
    "report": ("selection", "Report"),
    "search": ("search", "Search"),
    "train": ("training", "Train"),
    "encode": ("encoding", "Encode"),
    "sample": ("sampling", "Sample"),
    "evaluate": ("evaluation", "Evaluate"),
    "studio": ("studio", "Studio"),
    "status": ("upkeep", "Status"),
    "verify": ("upkeep", "Verify"),
    "remove": ("removal", "Remove"),
    "submit": ("submission", "Submit"),
    "weights": ("weights", "Weights"),
    "doctor": ("doctor", "Doctor"),
}
"""Command -> its file in `pipelines/commands` and its class there."""


def _first_sentence(file: str, name: str) -> str:
    """First line of the docstring of a command's class, read without importing what it imports."""
    source = (Path(__file__).parent / "commands" / f"{file}.py").read_text(encoding="utf-8")
    classes = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    docs = next(ast.get_docstring(node) for node in classes if node.name == name)
    return (docs or "").splitlines()[0]


def _in_brief(command: str) -> Any:
    """A command that is not asked for: its name and sentence, since its settings import much."""
    brief = make_dataclass(command, ())
    brief.__doc__ = _first_sentence(*COMMANDS[command])
    return Annotated[brief, tyro.conf.subcommand(command)]


def _class_of(command: str) -> Any:
    file, name = COMMANDS[command]
    return getattr(importlib.import_module(f"pipelines.commands.{file}"), name)


def _asked_for(arguments: Sequence[str]) -> Any:
    """The dataclass of the command that is asked for; None where none is."""
    if list(arguments[:2]) == ["train", "autoencoder"]:
        from pipelines.commands.autoencoder import TrainAutoencoder

        return TrainAutoencoder
    return _class_of(arguments[0]) if arguments and arguments[0] in COMMANDS else None


def _in_full(command: str, arguments: Sequence[str]) -> Any:
    """A command with all its flags, their defaults filled from a preset."""
    if command == "train" and "autoencoder" in arguments[1:2]:
        return Annotated[_asked_for(arguments), tyro.conf.subcommand(command)]
    if command == "train":
        default = _train(arguments)
    elif command == "sample":
        default = _sample(arguments)
    elif COMMANDS[command][0] in ("curation", "selection"):
        default = _with_preset(command, arguments)
    else:
        return Annotated[_class_of(command), tyro.conf.subcommand(command)]
    return Annotated[type(default), tyro.conf.subcommand(command, default=default)]


def _commands(arguments: Sequence[str]) -> Any:
    """The subcommands as a type for tyro: in full the one that is asked for, or all for completion."""
    completes = any(argument.startswith("--tyro-") for argument in arguments)
    choices = [
        _in_full(command, arguments)
        if completes or command in arguments[:1]
        else _in_brief(command)
        for command in COMMANDS
    ]
    return Union[tuple(choices)]  # noqa: UP007 - made at run time


def parse(arguments: Sequence[str]) -> Any:
    """The command that the arguments ask for, with all its settings.

    Raises:
        UsageError: a setting outside its range, or what is no flag, no command, or no value of a flag.
    """
    check_command(arguments, COMMANDS)
    kind = _asked_for(arguments)

    def refuse(event: ParseErrorEvent) -> None:
        if (said := refusal(event, arguments, kind)) is not None:
            raise UsageError(said)

    try:
        with on_parse_error(refuse):
            command = tyro.cli(
                _commands(arguments),
                prog="lavie",
                description=DESCRIPTION,
                args=list(arguments),
                config=(tyro.conf.OmitSubcommandPrefixes,),
            )
    except ValueError as error:  # a setting outside its range, where tyro does not ask
        flag = flag_of(str(error), arguments, checked(error), kind)
        raise UsageError(f"{flag}{error}") from error
    check_numbers(command, arguments, type(command))
    return command


def _say(message: str) -> None:
    if is_json():
        logging.getLogger(__name__).error("%s", message)
        return
    console = Console(stderr=True)
    console.print("[red]error:[/red]", end=" ")
    console.print(message, soft_wrap=True, highlight=False, markup=False)


_OF_THE_MACHINE = {
    errno.ENOSPC: "free some space there, or choose another place, and run the same command again",
    errno.EDQUOT: "the quota is used up; free some space there and run the same command again",
    errno.EFBIG: "a limit on the size of files (ulimit -f) or the file system forbids it",
    errno.EACCES: "this user may not",
    errno.EPERM: "this user may not",
    errno.EROFS: "choose a place that can be written",
    errno.ENOTDIR: "a part of this path is a file and not a folder",
    errno.EISDIR: "this is a folder where a file is due",
    errno.EEXIST: "a file of this name is in the way",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EIO: "the disk or the mount has a fault",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENOMEM: "the machine has no memory left",
}
"""Faults of the machine or of its user's rights -> what to do; any other OSError is ours to explain."""


def _machine_fault(error: OSError) -> str | None:
    """One sentence about a fault of disk, rights or store; None where a traceback says more."""
    advice = _OF_THE_MACHINE.get(error.errno or 0)
    if advice is not None:
        place = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        what = error.strerror or os.strerror(error.errno or 0)
        return f"{place}{what}; {advice}"
    text = str(error)
    # pyarrow's stores give neither a number nor a class, only their client's words.
    return text if "AWS Error" in text or "google::cloud" in text else None


def _unwrapped(error: Exception) -> Exception:
    """The error itself: from a Ray worker it comes wrapped in the worker's traceback.

    Ray takes long to import; where it took part, it is imported.
    """
    exceptions = sys.modules.get("ray.exceptions")
    return error.cause if exceptions and isinstance(error, exceptions.RayTaskError) else error


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends what runs as Ctrl-C does, with all that is closed then; a second one ends it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    is_told = False

    def end(number: int, _: object) -> None:
        nonlocal is_told
        is_told = True
        signal.signal(number, signal.SIG_DFL)
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except KeyboardInterrupt as error:  # Ray makes a bare one of ours where it waits
        if is_told:
            raise Terminated from error
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = spelled(sys.argv[1:] if arguments is None else arguments)
    lines = logging.StreamHandler()
    lines.setFormatter(ReadableLines())
    logging.basicConfig(handlers=[lines], level=logging.WARNING)
    try:
        command = parse(arguments)
        own = arguments[: arguments.index("--")] if "--" in arguments else arguments
        check_once(own, type(command))
        with _terminable():
            return int(command.run())
    except Terminated:
        Console(stderr=True).print("terminated; run the same command again to go on")
        return EXIT_TERMINATED
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted; run the same command again to go on")
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # `lavie ... | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_ERROR
    except (LavieError, OSError) as error:
        cause = _unwrapped(error)
        message = _machine_fault(cause) if isinstance(cause, OSError) else str(cause)
        if message is None:
            raise
        _say(message)
        return EXIT_USAGE if isinstance(cause, UsageError) else EXIT_ERROR
