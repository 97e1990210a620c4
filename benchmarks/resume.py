"""How soon a finished corpus of many parts says that there is nothing to do.

::

    python benchmarks/resume.py --scratch DIR --parts 100000
    python benchmarks/resume.py --scratch DIR --parts 100000 --latency-s 0.03

A corpus is made of one film, then multiplied: every part has a sources file of its own and the layers of
the film, recorded as a run records them. `measure`, the first step of `lavie curate`, is then given the
same list again, with a text for every source. With ``--latency-s`` every request of the store waits: one
for a read or a put, one for a thousand files of a listing.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from curation.corpus import layout
from curation.corpus.ledger import Commit, Ledger, record_of
from curation.corpus.manifest import read_corpus
from curation.corpus.parts import read_table, to_parquet
from curation.corpus.store import FileFacts, Store
from pipelines.curate import HowToRun, configure, measure
from pipelines.presets import tiny

LINKS = 10_000  # names of one file: file systems allow few tens of thousands
KEYS_A_LISTING = 1000  # of object stores


@dataclass(frozen=True, slots=True)
class SlowStore(Store):
    """A folder that answers as late as an object store, and counts what it was asked."""

    latency_s: float = 0.0

    def _wait(self, requests: int = 1) -> None:
        REQUESTS.append(requests)
        time.sleep(self.latency_s * requests)

    def _read_once(self, name: str) -> bytes:
        self._wait()
        return Store._read_once(self, name)

    @property
    def is_local(self) -> bool:
        """As the store's, later."""
        return False  # readers then ask as they ask an object store

    def read_range(self, name: str, *, offset: int, size_bytes: int) -> bytes:
        """As the store's, later."""
        self._wait()
        return Store.read_range(self, name, offset=offset, size_bytes=size_bytes)

    def size_bytes(self, name: str) -> int:
        """As the store's, later."""
        self._wait()
        return Store.size_bytes(self, name)

    def exists(self, name: str) -> bool:
        """As the store's, later."""
        self._wait()
        return Store.exists(self, name)

    def write(self, name: str, data: bytes | pa.Buffer) -> None:
        """As the store's, later."""
        self._wait()
        Path(self.path(name)).parent.mkdir(parents=True, exist_ok=True)
        Store.write(self, name, data)

    def listing(self, folder: str = "", *, recursive: bool = False) -> dict[str, FileFacts]:
        """As the store's, later."""
        found = Store.listing(self, folder, recursive=recursive)
        self._wait(1 + len(found) // KEYS_A_LISTING)
        return found


REQUESTS: list[int] = []


def make(scratch: Path, num_parts: int) -> None:
    """A finished corpus of so many parts, and the list of its sources."""
    import av
    import numpy as np

    film = scratch / "film.mp4"
    with av.open(str(film), "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for shade in range(40):
            picture = np.full((48, 64, 3), shade, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())
    store = Store(str(scratch / "corpus"))
    info, _ = measure([str(film)], store, tiny().river)
    only = read_table(store, layout.sources(0)).to_pylist()[0]
    store.delete(layout.sources(0))
    uris = [f"{film}.{number:07d}" for number in range(num_parts)]
    lines = [f'"{uri}","a film, number {number}"\n' for number, uri in enumerate(uris)]
    (scratch / "list.csv").write_text("uri,title\n" + "".join(lines))
    ledger, folder = Ledger(store), Path(store.path(layout.SOURCES))
    schema = read_listed(scratch).schema
    for part, row in enumerate(read_listed(scratch).to_pylist()):
        table = pa.Table.from_pylist([only | row], schema=schema)
        data = to_parquet(table)
        (folder / layout.part_file(part)).write_bytes(data)
        record = record_of(layout.SOURCES, data, table)
        ledger.record([Commit(folder=layout.SOURCES, part=part, record=record)])
    for layer in info.layers.values():
        _multiply(store, ledger, layout.layer_folder(layer), num_parts)
    ledger.compact()
    shutil.copyfile(store.path(layout.CORPUS), scratch / "corpus.json.one")
    replaced = read_corpus(store)
    type(replaced)(num_parts=num_parts, layers=replaced.layers, settings=replaced.settings).write(
        store
    )


def read_listed(scratch: Path) -> pa.Table:
    """The list as `lavie curate` reads it."""
    from curation.sources import list_sources

    return list_sources([str(scratch / "list.csv")])


def _multiply(store: Store, ledger: Ledger, folder: str, num_parts: int) -> None:
    place = Path(store.path(folder))
    record = ledger.records(folder)[0]
    original = place / layout.part_file(0)
    for part in range(1, num_parts):
        if part % LINKS == 0:
            shutil.copyfile(original, place / layout.part_file(part))
            original = place / layout.part_file(part)
        else:
            os.link(original, place / layout.part_file(part))
        ledger.record([Commit(folder=folder, part=part, record=record)])


def main() -> None:
    """Make the corpus unless it is there, and ask it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--parts", type=int, default=10_000)
    parser.add_argument("--latency-s", type=float, default=0.0)
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args()
    if not (args.scratch / "list.csv").exists():
        args.scratch.mkdir(parents=True, exist_ok=True)
        make(args.scratch, args.parts)
    root = str(args.scratch / "corpus")
    layers = configure(tiny().river).layers
    if read_corpus(Store(root)).layers != layers:
        parser.error(f"{root} is of another version of the program: give an empty folder")
    store: Any = SlowStore(root, latency_s=args.latency_s) if args.latency_s else Store(root)
    for which in ("first", "second"):
        REQUESTS.clear()
        profile = cProfile.Profile()
        begin, cpu = time.monotonic(), time.process_time()
        if args.profile:
            profile.enable()
        measure(
            [str(args.scratch / "list.csv")], store, tiny().river, how=HowToRun(command="resume")
        )
        profile.disable()
        took = f"{time.monotonic() - begin:.1f} s, {time.process_time() - cpu:.1f} CPU-s"
        sys.stdout.write(f"{which}: {took}, {sum(REQUESTS)} requests\n")
        sys.stdout.flush()
        if args.profile:
            pstats.Stats(profile).sort_stats("cumulative").print_stats(40)


if __name__ == "__main__":
    main()
