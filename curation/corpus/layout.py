"""Where each file of a corpus lies. The only place that spells these paths.

::

    corpus.json  removed.json
    sources/part-00000.parquet  committed/all.json       so beside the parts of layers and selections
    sources/known-1f0c....parquet      all of these sources, as long as their parts stay as they are
    layers/scenes@1-1f0c.../part-00000.parquet
    again/part-00000.json       while rows of the part are being made anew
    suspects/part-00000.json    while it is sought which of its sources ends the worker
    selections/<selection>/part-00000.parquet  rules.json  funnel.json
    clusters/embeddings@1-77ab...-1000-0.parquet       centres, the same for all selections
    shards/<selection>/plan.json  plan-00002.json  <bucket>/000000.tar  <bucket>/000000.parquet
    shards/<selection>/index.parquet  manifest.json
    encoded/<selection>/latents@1-9d2e.../plan.json  dropped.parquet  index.parquet  manifest.json
    encoded/<selection>/latents@1-9d2e.../<bucket>/000000.parquet  000000.index.parquet
    reports/<selection>/index.html             statistics.json
"""

from __future__ import annotations

import re

CORPUS = "corpus.json"
REMOVED = "removed.json"
LOCK = ".lock"
LEASE = ".lease.json"
SOURCES = "sources"
"""Folder of the list of sources."""
LAYERS = "layers"
"""Folder of the layers' folders."""
AGAIN = "again"
"""Folder of the notes on rows that are to be made anew (`pipelines.again`)."""
SUSPECTS = "suspects"
"""Folder of what is known of sources whose worker died (`pipelines.suspects`)."""
COMMITTED = "committed"
"""Folder of the record of committed parts, beside the parts (`curation.corpus.ledger`)."""


_PART = re.compile(r"part-(\d{5,})\.(?:parquet|json)")


def part_file(part: int) -> str:
    """File name of one part, the same in every layer."""
    return f"part-{part:05d}.parquet"


def part_number(name: str) -> int | None:
    """The part that a file holds, by its name; None if it is no part."""
    match = _PART.fullmatch(name.rpartition("/")[2])
    return int(match[1]) if match else None


def again(part: int) -> str:
    """What of one part is to be made anew, row by row."""
    return f"{AGAIN}/part-{part:05d}.json"


def suspects(part: int) -> str:
    """Which sources of one part ended its worker."""
    return f"{SUSPECTS}/part-{part:05d}.json"


def sources(part: int) -> str:
    """The list of sources that belong to one part."""
    return f"{SOURCES}/{part_file(part)}"


def known_sources(sha256: str) -> str:
    """All sources in one file, which bears its own digest in its name."""
    return f"{SOURCES}/known-{sha256}.parquet"


def is_known_sources(name: str) -> bool:
    """Whether this is such a file."""
    return name.startswith(f"{SOURCES}/known-") and name.endswith(".parquet")


def layer(layer_id: str, part: int) -> str:
    """What one station added to the clips of one part; ``layer_id`` as made by `layer_id`."""
    return f"{layer_folder(layer_id)}/{part_file(part)}"


def layer_folder(layer_id: str) -> str:
    """Folder of one layer's parts."""
    return f"{LAYERS}/{layer_id}"


def layer_id(name: str, *, version: int, digest: str) -> str:
    """Name of a layer's folder: another version or setting gives another folder."""
    return f"{name}@{version}-{digest}"


def check_selection_name(name: str) -> None:
    """Refuse with a `ValueError` what cannot be the name of a selection's folders."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise ValueError(
            "the name of a selection must be letters, digits, '.', '_' or '-', begin with a letter "
            f"or digit and have at most 100 of them, got {name!r}"
        )


def selection(name: str) -> str:
    """Folder of one selection."""
    return f"selections/{name}"


def centres(layer_id: str, num: int, seed: int) -> str:
    """The centres of so many clusters of a layer of embeddings."""
    return f"clusters/{layer_id}-{num}-{seed}.parquet"


def shards(name: str) -> str:
    """Folder of one selection's shards."""
    return f"shards/{name}"


def shard(bucket: str, number: int) -> str:
    """One shard, relative to its selection's shards and without extension.

    Beside the `.tar` lies a `.parquet` with its rows of the index. It is written after the tar and
    says that the shard is done; a tar without it is what a killed run left.
    """
    return f"{bucket}/{number:06d}"


def shard_plan(name: str, generation: int = 1) -> str:
    """What one generation of a selection's shards is made from, written before its first shard."""
    number = "" if generation == 1 else f"-{generation:05d}"
    return f"{shards(name)}/plan{number}.json"


def shard_index(name: str) -> str:
    """Where every clip of a selection lies in its shards; a row a clip that was selected once."""
    return f"{shards(name)}/index.parquet"


def shard_manifest(name: str) -> str:
    """Digest and length of every plan, every shard and the index, of all generations; written last."""
    return f"{shards(name)}/manifest.json"


def shard_facts(name: str) -> str:
    """Which state of each part the samples of a selection are known to tell of."""
    return f"{shards(name)}/facts.json"


def encoded(selection: str, layer: str) -> str:
    """Folder of a selection's latents and text states; ``layer`` as made by `layer_id`."""
    return f"encoded/{selection}/{layer}"


def report(name: str) -> str:
    """Folder of one selection's report."""
    return f"reports/{name}"


def report_statistics(name: str) -> str:
    """Every number of one selection's report, and the digests of its other files; written last."""
    return f"{report(name)}/statistics.json"
