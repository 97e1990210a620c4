"""Shards and latents without their manifest: what their files say of themselves and of each other."""

from __future__ import annotations

import json
from collections.abc import Container, Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from curation.corpus.generations import read_plan
from curation.corpus.manifest import canonical_json
from curation.corpus.parts import LAYER_METADATA
from curation.corpus.shards import file_fault
from curation.corpus.store import Store
from curation.errors import TornPart


def faults_of_unfinished(
    store: Store, folder: str, *, known: Container[str] = ()
) -> Iterator[tuple[str, str | None]]:
    """Compare tars with what their rows say of them, and test the checksums in Parquet files and plans.

    Tars without rows are what a killed run was at, and are passed by: the next export writes them anew.

    Args:
        store: the corpus.
        folder: of the shards of a selection, or of one layer of its latents.
        known: files under it that a manifest speaks of.

    Yields:
        The name of each file, and what is wrong with it; None where it is whole.
    """
    for name in store.files(folder, recursive=True):
        file = name.rpartition("/")[2]
        if name.removeprefix(f"{folder}/") in known:
            continue
        if file.endswith(".parquet"):
            yield from _faults_of_rows(store, name)
        elif file.startswith("plan") and file.endswith(".json"):
            yield name, _plan_fault(store, name, is_of_shards=folder.startswith("shards/"))


def _faults_of_rows(store: Store, name: str) -> Iterator[tuple[str, str | None]]:
    try:
        rows = pq.read_table(
            pa.BufferReader(store.read(name)), page_checksum_verification=True, use_threads=False
        )
        made = json.loads((rows.schema.metadata or {}).get(LAYER_METADATA, b"{}"))
    except (pa.ArrowException, OSError, ValueError) as error:
        yield name, f"not a whole Parquet file ({error})"
        return
    yield name, None
    if made.get("tar") is not None:
        tar = f"{name.removesuffix('.parquet')}.tar"
        fault = file_fault(store, tar, made["tar"])
        yield tar, fault and fault.replace("the manifest", "its .parquet")


def _plan_fault(store: Store, name: str, *, is_of_shards: bool) -> str | None:
    if is_of_shards:
        try:
            read_plan(store, name)
        except TornPart as error:
            return str(error).partition(f"{name}: ")[2]
        return None
    data = store.read(name)
    try:
        is_whole = canonical_json(json.loads(data)) == data
    except ValueError as error:
        return f"not JSON ({error})"
    return None if is_whole else "its bytes are not those that were written"
