"""A source's bytes as a local file, only if they are those that were curated."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from curation.errors import BadSource


@contextmanager
def same_source(uri: str, sha256: str) -> Iterator[Path]:
    """Fetch a source and compare its digest.

    Raises:
        BadSource: 'changed', or why it could not be fetched.
    """
    path = Path(uri)
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise BadSource("not_found", uri) from error
    except OSError as error:
        raise BadSource("unreadable", str(error)) from error
    if found != sha256:
        raise BadSource("changed", f"sha256 is {found}, {sha256} was curated")
    yield path
