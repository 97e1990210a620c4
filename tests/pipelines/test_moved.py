"""Films that were renamed or moved are cut and decoded from where they lie now."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from curation.corpus import layout
from curation.corpus.manifest import read_corpus
from curation.corpus.shards import read_index, read_manifest, read_sample
from curation.corpus.store import Store
from curation.errors import UsageError
from pipelines.cli import main
from pipelines.moved import moved_sources


@pytest.fixture
def films(make_video: Callable[..., Path], tmp_path: Path) -> Path:
    """A folder with two films, and one of them under a second name."""
    folder = tmp_path / "films"
    folder.mkdir()
    for name, look in (("a.mp4", "red"), ("z.mp4", "teal")):
        make_video(folder / name, [(look, 54)], size=(96, 64), options={"preset": "ultrafast"})
    shutil.copy(folder / "a.mp4", folder / "copy.mp4")
    return folder


def test_the_bytes_are_found_under_another_name_of_the_corpus_or_in_a_place_that_is_named(
    films, make_corpus, tmp_path
):
    store = Store(str(make_corpus(dict.fromkeys(("a.mp4", "copy.mp4", "z.mp4")), films)))
    info, new = read_corpus(store), tmp_path / "new"
    assert moved_sources(store, info) == {}
    new.mkdir()
    (films / "a.mp4").rename(new / "renamed.mp4")
    first = {str(films / "a.mp4"): str(films / "copy.mp4")}
    assert moved_sources(store, info) == first

    (films / "z.mp4").rename(new / "z.bin")
    z = (new / "z.bin").read_bytes()
    (new / "as-long.mp4").write_bytes(z[:-1] + bytes([z[-1] ^ 1]))
    assert moved_sources(store, info) == first
    here = {str(films / "z.mp4"): str(new / "z.bin")}
    assert moved_sources(store, info, [str(new)]) == first | here
    (films / "copy.mp4").write_bytes(b"another film")
    renamed = dict.fromkeys(
        (str(films / "a.mp4"), str(films / "copy.mp4")), str(new / "renamed.mp4")
    )
    assert moved_sources(store, info, [str(new)]) == renamed | here
    with pytest.raises(UsageError, match=r"--moved-to: '.*nowhere' does not exist"):
        moved_sources(store, info, [str(tmp_path / "nowhere")])


def uris_told(store: Store) -> set[str]:
    rows = read_index(store, "default").to_pylist()
    return {read_sample(store, "default", row).facts["uri"] for row in rows}


def test_repair_and_export_go_on_where_the_films_lie_now(films, make_corpus, tmp_path, capsys):
    store = Store(str(make_corpus(dict.fromkeys(("a.mp4", "z.mp4")), films)))
    info = read_corpus(store)
    main(["verify", store.root, "--repair"])  # the record of the parts
    keyframes = layout.layer(info.layers["keyframes"], 0)
    tars = [n for n in read_manifest(store, "default")["files"] if n.endswith(".tar")]
    names = [keyframes, *(f"shards/default/{name}" for name in tars)]
    before = {name: store.read(name) for name in names}
    uris = uris_told(store)
    moved = tmp_path / "elsewhere"
    films.rename(moved)
    (moved / "a.mp4").rename(moved / "b.mp4")
    for name in names:
        store.delete(name)
    capsys.readouterr()

    assert main(["verify", store.root, "--repair"]) == 1
    assert "--moved-to names a folder or list to look through" in capsys.readouterr().out
    assert main(["verify", store.root, "--repair", "--moved-to", str(moved)]) == 0
    assert {name: store.read(name) for name in names} == before

    shutil.rmtree(store.path("shards/default"))
    assert main(["export", store.root]) == 3
    said = capsys.readouterr().out
    assert (
        f"`lavie export {store.root} --selection default --retry-failed --moved-to PLACE`" in said
    )
    assert main(["export", store.root, "--retry-failed", "--moved-to", str(moved)]) == 0
    assert uris_told(store) == uris
    assert main(["verify", store.root, "--moved-to", str(moved)]) == 2
