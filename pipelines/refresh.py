"""Finished shards follow the layers: samples whose texts have changed get today's .json and .txt.

Lists that come later give licences and captions to sources that were exported already, and captions that
failed are asked again. Just the tars that hold such a sample are written anew, media byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console

from curation.corpus import layout
from curation.corpus.generations import delete_replaced, read_plans, replaced_names
from curation.corpus.manifest import CorpusInfo
from curation.corpus.removal import Change, sha256_of
from curation.corpus.selection import selected_parts
from curation.corpus.store import Store
from curation.export import FactsOfToday, facts_of_parts, finish_shards, with_facts_of_today
from curation.export.outdated import read_record, write_record


def refresh_shards(
    store: Store, info: CorpusInfo, selection: str, *, console: Console
) -> dict[str, Any] | None:
    """Bring finished shards up to what the layers say of their clips.

    Where nothing has changed since it was last looked at, a few small files are read; of new parts the
    clips are compared with the index, and no tar is touched.

    Returns:
        The new manifest; None if every sample tells what is so.
    """
    selected = selected_parts(store, info, selection)
    parts = facts_of_parts(store, info, selected)
    known = read_record(store, selection)
    changed = [part for part in selected if part not in parts or parts[part] != known.get(part)]
    today = FactsOfToday.read(store, info, selection, changed)
    manifest = None
    if outdated := today.outdated_shards():
        done = list(with_facts_of_today(store, selection, today, outdated))
        manifest = finish_anew(store, selection)
        console.print(
            f"texts have changed since they were exported: {len(done):,} shards were written anew, as "
            f"generation {manifest['generations'][-1]['generation']}, with today's .json and .txt of "
            f"{sum(shard.num_renewed for shard in done):,} clips; all media, and all other tars, "
            f"are the same bytes",
            highlight=False,
            soft_wrap=True,
        )
    write_record(store, selection, parts)
    return manifest


def finish_anew(store: Store, selection: str) -> dict[str, Any]:
    """Bring index and manifest up to all shards, and take away what new ones have replaced."""
    list(drop_latents(store, selection))
    manifest = finish_shards(store, selection)
    delete_replaced(store, selection)
    return manifest


def drop_latents(store: Store, selection: str) -> Iterator[Change]:
    """Latents of shards that are no more go whole; `lavie encode` makes those of the new ones."""
    gone = {layout.shard(*named) for named in replaced_names(read_plans(store, selection))}
    for layer in store.folders(f"encoded/{selection}") if gone else ():
        folder = layout.encoded(selection, layer)
        files = store.files(folder, recursive=True)
        stems = {name: name.removeprefix(f"{folder}/").partition(".")[0] for name in files}
        if not gone & set(stems.values()):
            continue
        for name in files:
            if stems[name] in gone or stems[name] in ("index", "manifest"):
                before = sha256_of(store, name)
                store.delete(name)
                yield Change(file=name, num_removed=0, sha256_before=before, sha256_after=None)
