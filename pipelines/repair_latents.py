"""Damaged latents are taken away, so that `lavie encode` makes them again: only it has the models."""

from __future__ import annotations

from collections.abc import Sequence

from curation.corpus.manifest import canonical_json
from curation.corpus.store import Store
from curation.errors import TornPart
from pipelines.findings import Fault
from pipelines.verify import PLAN
from pipelines.verify_notes import MANIFEST, read_sealed_manifest


def repair_latents(store: Store, folder: str, faults: Sequence[Fault]) -> list[str]:
    """Repair what needs no model; take the rest away, the manifest first, and say what makes it.

    Args:
        store: the corpus.
        folder: of one layer of latents.
        faults: of its files.

    Returns:
        What is left to do, a sentence each.
    """
    names = {fault.name for fault in faults}
    plan = f"{folder}/{PLAN}"
    if plan in names:
        try:
            manifest = read_sealed_manifest(store, f"{folder}/{MANIFEST}")
        except (TornPart, FileNotFoundError):
            return [
                f"{plan}: plan and manifest are damaged or gone both; delete the folder and encode again"
            ]
        store.write(plan, canonical_json(manifest["plan"]))
        names.discard(plan)
    if not names:
        return []
    store.delete(f"{folder}/{MANIFEST}")
    for name in sorted(names):
        shard = name.removesuffix(".parquet").removesuffix(".index")
        store.delete(name)
        store.delete(f"{shard}.index.parquet")  # says that the shard is done
    return [
        (
            f"{folder}: what was damaged is taken away; run `lavie encode` with the settings of {plan} and "
            "the same --companions, which makes just that anew"
        )
    ]
