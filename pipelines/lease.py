"""The lease on a corpus that lies on an object store, held by conditional puts.

It is one object beside corpus.json. It is put only if there is none (`If-None-Match: *`), and put
again, by the holder that renews it or by the next one after it ran out, only over the very bytes that were
read (`If-Match`): of two that try at once the store lets one through. Age is counted by the store's clock
alone. pyarrow's S3 filesystem cannot put conditionally, so this one object goes through boto3, which
takes credentials and endpoint from the same places.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from curation.corpus import layout
from curation.corpus.manifest import canonical_json
from curation.corpus.store import Store
from curation.errors import CorpusBusy, StoreUnavailable
from pipelines.locking import DURATION_S, Holder

logger = logging.getLogger(__name__)

RENEWALS = 4
"""How often it is renewed in that time: three requests may fail."""
_REFUSED = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")
_ABSENT = ("NoSuchKey", "404")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Content:
    """What the lease's object holds."""

    holder: dict[str, Any]
    token: str
    """Different for every run."""
    duration_s: float
    """How long it holds after it was put."""
    renewed: int = 0
    """How often; makes the bytes, and so the ETag, of every put different."""
    released: bool = False
    """Whether its run has ended."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """The object as it was read."""

    content: _Content
    etag: str
    age_s: float

    @property
    def is_free(self) -> bool:
        return self.content.released or self.age_s > self.content.duration_s


class _S3Object:
    """One object, read with its age and put on condition."""

    def __init__(self, uri: str, name: str) -> None:
        parts = urlsplit(uri)
        options = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        self._place = {
            "Bucket": parts.hostname or "",
            "Key": "/".join(piece for piece in (parts.path.strip("/"), name) if piece),
        }
        endpoint = options.get("endpoint_override") or ""
        if endpoint and "://" not in endpoint:
            endpoint = f"{options.get('scheme', 'https')}://{endpoint}"
        endpoint = (
            endpoint
            or os.environ.get("AWS_ENDPOINT_URL_S3", "")
            or os.environ.get("AWS_ENDPOINT_URL", "")
        )
        self._client = boto3.client(
            "s3",
            endpoint_url=endpoint or None,
            region_name=options.get("region"),
            aws_access_key_id=unquote(parts.username) if parts.username else None,
            aws_secret_access_key=unquote(parts.password) if parts.password else None,
            config=Config(
                connect_timeout=10,
                read_timeout=10,
                retries={"mode": "standard", "max_attempts": 4},
                s3={"addressing_style": "path" if endpoint else "auto"},
            ),
        )

    def get(self) -> _Seen | None:
        """The object, or None if there is none."""
        try:
            answer = self._client.get_object(**self._place)
        except ClientError as error:
            if error.response["Error"]["Code"] in _ABSENT:
                return None
            raise
        now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
        content = _Content(**json.loads(answer["Body"].read()))
        age_s = (now - answer["LastModified"]).total_seconds()
        return _Seen(content, answer["ETag"], age_s)

    def put(self, content: _Content, *, over: str | None) -> str | None:
        """Put the object if it is still what it was; returns its ETag, or None if it is not.

        Args:
            content: what to put.
            over: ETag of what must be there; None if nothing may be.
        """
        condition = {"IfNoneMatch": "*"} if over is None else {"IfMatch": over}
        try:
            answer = self._client.put_object(
                **self._place, **condition, Body=canonical_json(asdict(content))
            )
        except ClientError as error:
            if error.response["Error"]["Code"] not in (*_REFUSED, *_ABSENT):
                raise
        else:
            return str(answer["ETag"])
        # A put whose answer was lost is sent again by the client, and refused because it is there.
        seen = self.get()
        return seen.etag if seen is not None and seen.content == content else None


def holder_of(store: Store) -> Holder | None:
    """Who holds the lease on a corpus now.

    Raises:
        StoreUnavailable: if the store does not answer.
    """
    try:
        seen = _S3Object(store.root, layout.LEASE).get()
    except (ClientError, BotoCoreError) as error:
        raise StoreUnavailable(f"{store.root}: the lease cannot be read ({error})") from error
    return None if seen is None or seen.is_free else Holder(**seen.content.holder)


class Lease:
    """The right to write one corpus, renewed by a thread until it is released or lost.

    Args:
        store: the corpus, on S3 or what speaks like it.
        duration_s: how long the lease outlives its last renewal.
    """

    def __init__(self, store: Store, *, duration_s: float = DURATION_S) -> None:
        self._root = store.root
        self._object = _S3Object(store.root, layout.LEASE)
        self._content = _Content(
            holder=asdict(Holder.me()), token=uuid.uuid4().hex, duration_s=duration_s
        )
        self._etag = ""
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._lost = ""

    def check(self) -> None:
        """Raise `CorpusBusy` if the lease was lost; before every write."""
        if self._lost:
            raise CorpusBusy(self._lost)

    @property
    def is_lost(self) -> bool:
        """Whether another run may be writing."""
        return bool(self._lost)

    def take(self) -> None:
        """Take the lease, and renew it from now on.

        Raises:
            CorpusBusy: if another run holds it.
            StoreUnavailable: if the store does not answer.
        """
        begin = time.monotonic()
        try:
            seen = self._object.get()
            if seen is not None and not seen.is_free:
                raise CorpusBusy(self._refusal(seen))
            etag = self._object.put(self._content, over=seen.etag if seen else None)
            if etag is None:
                seen = self._object.get()
                raise CorpusBusy(
                    self._refusal(seen)
                    if seen
                    else f"{self._root} was taken by another run just now"
                )
            self._etag = etag
            if self._object.put(self._content, over=None) not in (None, etag):
                logger.warning(
                    "%s: this store puts over objects that it was told not to touch: it cannot keep "
                    "a second writer out, see to it that there is none",
                    self._root,
                )
        except (ClientError, BotoCoreError) as error:
            raise StoreUnavailable(f"{self._root}: no lease could be taken ({error})") from error
        self._thread = threading.Thread(
            target=self._renew, args=(begin,), name="lavie-lease", daemon=True
        )
        self._thread.start()

    def _refusal(self, seen: _Seen) -> str:
        left_s = max(0.0, seen.content.duration_s - seen.age_s)
        return (
            f"{self._root} is being written by {Holder(**seen.content.holder)}; "
            f"if that run is dead, its lease runs out in {left_s:.0f} s"
        )

    def _renew(self, renewed: float) -> None:
        """Renew until the end; `renewed` is when the last put was begun, by this machine's clock."""
        duration_s = self._content.duration_s
        while not self._ended.wait(duration_s / RENEWALS):
            begin = time.monotonic()
            try:
                etag = self._put(replace(self._content, renewed=self._content.renewed + 1))
            except (ClientError, BotoCoreError) as error:
                logger.warning("%s: the lease could not be renewed: %s", self._root, error)
                if time.monotonic() - renewed > duration_s * (1 - 1 / RENEWALS):
                    self._lose("could not be renewed in time, and another run may have begun")
                    return
                continue
            if etag is None:
                self._lose("was taken by another run, since this one did not renew it in time")
                return
            renewed = begin

    def _put(self, content: _Content) -> str | None:
        etag = self._object.put(content, over=self._etag)
        if etag is not None:
            self._etag, self._content = etag, content
        return etag

    def _lose(self, why: str) -> None:
        self._lost = f"the lease on {self._root} {why}; this run stops. Run the same command again"
        logger.error("%s", self._lost)
        # Whatever the main thread waits for: it stops now and not when it next writes.
        main = threading.main_thread().ident
        if main is not None:
            signal.pthread_kill(main, signal.SIGINT)

    def release(self) -> None:
        """Give the lease back, unless it was lost."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        if not self._lost and self._etag:
            try:
                self._put(replace(self._content, released=True))
            except (ClientError, BotoCoreError) as error:
                logger.warning("%s: the lease was not given back: %s", self._root, error)


@contextmanager
def leased(store: Store, *, duration_s: float = DURATION_S) -> Iterator[Store]:
    """Hold the lease on an object store; yields the store, which refuses to write once it is lost.

    Raises:
        CorpusBusy: if another run holds the lease, or this one has lost it.
    """
    lease = Lease(store, duration_s=duration_s)
    lease.take()
    try:
        yield Store(store.root, guard=lease.check)
    except KeyboardInterrupt:
        lease.check()
        raise
    finally:
        lease.release()
    lease.check()
