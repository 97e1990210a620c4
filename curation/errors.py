"""What can go wrong, as a tree.

::

    LavieError
    +-- BadSource            one source cannot be used; becomes a row with `reason`, never stops a run
    +-- MachineFault         a worker's own machine cannot do the work; another try, elsewhere if possible
    +-- StoreUnavailable     an object store answers nobody for minutes; stops a run
    +-- MissingWeights       a model file is absent or has other bytes; stops a run before any work
    +-- ModelUnavailable     a model cannot be asked (no pictures, no key, server gone); stops a run
    +-- CorpusError          the corpus on disk is not what the command needs
    |   +-- MissingColumn    a station or rule needs a column that no layer of this corpus holds
    |   +-- MissingPart      a file that should have been committed is not there
    |   +-- TornPart         a committed file is unreadable or its rows do not line up
    |   +-- CorpusBusy       another run is writing this corpus
    |   +-- RemovalUnfinished  a removal was interrupted; nothing is added before it has ended
    |   +-- TrainingDataError  the shards cannot feed the run that was asked for
    |   +-- NothingThere     no corpus, no selection of the name that was typed; a UsageError as well
    +-- NotFinite            a network makes infinities or no numbers; nothing of it is written
    +-- NothingToDo          no source could be read, or no clip was selected
    +-- UsageError           what the user typed cannot be: a flag, a rule, a source; exit code 2

Wrong arguments of a function are `ValueError`; where the text of a user is parsed, `typed` makes a
`UsageError` of it. Bad data is a value (a reason in a row); a bad run is one of these.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager


class LavieError(Exception):
    """Base of every error that this project raises on purpose; its text is meant for the user."""


class BadSource(LavieError):
    """One source cannot be used.

    Args:
        reason: the short word of `REJECT_REASONS` that goes into the row.
        detail: what was seen, for a person.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class MachineFault(LavieError):
    """A worker's own machine cannot do the work: disk full, folder not mounted, out of memory.

    Never the fate of a source: the unit of work is given to another worker, on another machine
    where there is one.
    """

    node: str = ""
    """Ray's id of the machine, filled in by the worker."""


class StoreUnavailable(LavieError):
    """An object store gave errors to every request for minutes; no source is to blame."""


class MissingWeights(LavieError):
    """A model file that a chosen station needs is absent or has other bytes than expected."""


class ModelUnavailable(LavieError):
    """A model that was chosen cannot be asked: no pictures taken, key or package missing, server down.

    Found before any work; or in mid-run, where going on would only make failed rows.
    """


class CorpusError(LavieError):
    """The corpus on disk is not what the command needs."""


class MissingColumn(CorpusError):
    """A station or rule needs a column that no layer of this corpus holds."""


class MissingPart(CorpusError):
    """A file that should have been committed is not there."""


class TornPart(CorpusError):
    """A committed file is unreadable, or its rows do not line up with its neighbours'."""


class CorpusBusy(CorpusError):
    """Another run is writing this corpus."""


class RemovalUnfinished(CorpusError):
    """A removal was begun and has not ended; nothing is added to the corpus before."""


class TrainingDataError(CorpusError):
    """The shards cannot feed the training run that was asked for, or no longer do."""


class NotFinite(LavieError):
    """A network makes infinities or no numbers at all; the message says where, and the cause if known."""


class NothingToDo(LavieError):
    """No source could be read, or no clip was selected."""


class UsageError(LavieError):
    """What the user typed cannot be; one sentence that names the flag, the rule and the value seen."""


class NothingThere(CorpusError, UsageError):
    """There is no corpus, or no selection in it, of the name that was typed."""


@contextmanager
def typed(what: str) -> Iterator[None]:
    """Make a `UsageError` of the `ValueError` or `MissingColumn` that a check of the user's words raises.

    For the few lines that parse what was typed, never around work: the `ValueError` of a bug must
    stay one.

    Args:
        what: where it was typed, such as "--rule"; it begins the sentence.
    """
    try:
        yield
    except (ValueError, MissingColumn) as error:
        raise UsageError(f"{what}: {error}") from error


LASTING: dict[str, str] = {
    "bad_row": "the row of a source list cannot be read",
    "removed": "it was taken out of the corpus at somebody's wish",
    "superseded": "the row of a source list could not be used, and its list was corrected since",
    "bad_address": "the row of a source list names no file or object that may be fetched",
    "not_regular": "a link out of the source folder, a FIFO, a device or a folder",
    "empty": "the file holds no byte",
    "too_large": "more bytes than the limit",
    "unknown_format": "the first bytes are of no format on the list",
    "playlist": "a playlist or script that names other files",
    "no_video": "no video stream (audio only, subtitles, cover art)",
    "undecodable": "the decoder gives no frame",
    "truncated": "cut off so that nothing can be read: a picture, or a film without its index",
    "dolby_vision": "Dolby Vision whose base layer is no picture without its metadata (profile 5)",
    "encrypted": "its pictures are encrypted (common encryption in MP4), and there is no key",
    "colours": "its pictures are coded in colours that nothing here converts (YCgCo, ICtCp and the like)",
    "stereo_3d": "two views in one picture, for two eyes, as its stream or container says",
    "too_many_pixels": "a frame is larger than the limit",
    "too_long": "longer than the limit",
    "gone": "its web server says that it is gone for good (410), or may not be given by law (451)",
}
"""Reasons that lie in a source, or in what is said of it for good: another try under the same settings
ends the same."""

PASSING: dict[str, str] = {
    "not_found": "the file is gone, or not there yet",
    "unreadable": "the store gave an error on every try, or it or the web server does not let this user "
    "read it",
    "unreachable": "its web server did not answer, or only with errors, or sent too slowly",
    "opted_out": "its web server says that it may not be used so (robots.txt, noai, TDM-Reservation)",
    "private_address": "its web server is inside a private network, and --web.private-hosts does not "
    "name it",
    "too_slow": "the decoder did not end within its time limit",
    "decoder_died": "the decoder was ended by a signal or by its memory limit",
    "changed": "the bytes are not those that were listed",
    "quarantined": "a worker died or failed over it every time; the rest of its part went on",
}
"""Reasons that lie in the world around a source: `lavie curate --retry-failed` tries it again."""

REJECT_REASONS: dict[str, str] = LASTING | PASSING
"""Why a source was rejected: the word in the row -> what it means."""

ROOM_IS_DUE = "; free some space there (scratch lies where TMPDIR says)"
"""What to do about a full disk, behind what names it."""
_MACHINE_ERRNOS = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS),  # scratch: full, over quota, turned read-only
    *(errno.EMFILE, errno.ENFILE),  # descriptors of the process, of the machine
    *(errno.ENOMEM, errno.EAGAIN),  # memory or processes: fork says EAGAIN
}


def machine_fault(error: BaseException) -> MachineFault | None:
    """What `error` says of the machine it was raised on; None if it says nothing of it.

    Args:
        error: as raised by the operating system (`OSError`), or `MemoryError`.
    """
    if isinstance(error, MachineFault):
        return error
    if isinstance(error, MemoryError):
        return MachineFault("out of memory")
    if isinstance(error, OSError) and error.errno in _MACHINE_ERRNOS:
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return MachineFault(f"{error}{ROOM_IS_DUE}" if is_full else str(error))
    return None
