"""Takedown: what is removed is in no file any more, the rest is as it was, and nothing comes back."""

from __future__ import annotations

import hashlib
import io
import shutil
import uuid
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from curation.corpus import layout
from curation.corpus.ledger import Ledger, PartState, commit_part
from curation.corpus.manifest import read_corpus
from curation.corpus.parts import read_clips, read_table, to_parquet
from curation.corpus.removal import Removed, blank_uri, read_removed
from curation.corpus.removal_proof import Traces, find_traces
from curation.corpus.selection import read_funnel
from curation.corpus.shards import read_index, read_manifest, read_sample, verify_shards
from curation.corpus.store import Store
from curation.errors import MissingPart, RemovalUnfinished, UsageError
from curation.report import ReportConfig, write_report
from curation.select.clusters import centres_of, centres_table, unit_length
from curation.sources import list_sources
from pipelines.cli import main
from pipelines.commands.removal import read_clip_ids, read_uris
from pipelines.corpus import deal_sources
from pipelines.curate import configure
from pipelines.findings import Kind
from pipelines.jobs import DecodeJob
from pipelines.presets import tiny
from pipelines.remove import remove
from pipelines.river import layer_ids
from pipelines.verify import verify

QUIET = Console(file=io.StringIO())


@pytest.fixture
def store(small_corpus: Path, tmp_path: Path) -> Store:
    """A corpus of its own, exported and with a report."""
    root = tmp_path / "corpus"
    shutil.copytree(small_corpus, root)
    store = Store(str(root))
    ledger = Ledger(store)
    info = read_corpus(store)
    for folder in store.folders("layers"):
        ledger.reconcile(layout.layer_folder(folder), info.num_parts)
    ledger.reconcile(layout.SOURCES, info.num_parts)
    write_report(store, info, "default", ReportConfig())
    return store


def uri_of(store: Store, name: str) -> str:
    for part in range(read_corpus(store).num_parts):
        for uri in read_table(store, layout.sources(part), ["uri"])["uri"].to_pylist():
            if uri.endswith(name):
                return uri
    raise AssertionError(name)


def clips_of(store: Store) -> dict[str, str]:
    """clip_id -> address of its source."""
    return clips_by_source(store, read_corpus(store).layers)


def clips_by_source(store: Store, layers: dict[str, str]) -> dict[str, str]:
    """The same for given layers."""
    found = {}
    for part in range(read_corpus(store).num_parts):
        table = read_clips(store, layers, part, ["uri"])
        found |= dict(zip(table["clip_id"].to_pylist(), table["uri"].to_pylist(), strict=True))
    return found


def samples(store: Store) -> dict[str, tuple[bytes, dict, str]]:
    """clip_id -> what its sample holds."""
    rows = read_index(store, "default").to_pylist()
    read = [(row["clip_id"], read_sample(store, "default", row)) for row in rows]
    return {clip_id: (one.media, one.facts, one.caption) for clip_id, one in read}


def all_traces(store: Store) -> list[str]:
    return list(find_traces(store, Traces.of(read_removed(store))))


def test_a_removed_source_is_in_no_file_and_the_others_are_as_they_were(store):
    uri, clips, before = uri_of(store, "wide-2.mp4"), clips_of(store), samples(store)
    gone = {clip_id for clip_id, source in clips.items() if source == uri}
    assert len(gone & set(before)) == 5
    index = read_index(store, "default").to_pylist()
    affected = {row["shard"] for row in index if row["clip_id"] in gone}
    old = {
        name: entry["sha256"]
        for name, entry in read_manifest(store, "default")["files"].items()
        if name.endswith(".tar") and name not in affected
    }
    clean = find_traces(store, Traces(frozenset({uri, *gone}), frozenset()))
    assert len(list(clean)) >= 5 + len(affected)  # sources, layers, selection, shards, report

    removal = remove(store, uris=[uri], clip_ids=[], console=QUIET)

    assert set(removal.clip_ids) == gone
    assert removal.is_done
    assert all_traces(store) == []
    assert set(clips_of(store)) == set(clips) - gone
    after = samples(store)
    assert after == {clip_id: sample for clip_id, sample in before.items() if clip_id not in gone}
    manifest = read_manifest(store, "default")
    kept = {name: entry["sha256"] for name, entry in manifest["files"].items() if name in old}
    assert kept == old
    assert not affected & set(manifest["files"])
    assert [entry["generation"] for entry in manifest["generations"]] == [1, 2]
    assert list(verify_shards(store, "default")) == []
    funnel = read_funnel(store, "default")
    assert funnel["kept"]["clips"] == len(after)
    assert funnel["sources"]["rejected"] == {"removed": 1}


def test_what_was_removed_from_which_file_is_on_record_with_both_digests(store):
    uri = uri_of(store, "picture-3.jpg")
    files = {name: store.read(name) for name in store.files(recursive=True)}
    removal = remove(store, uris=[uri], clip_ids=[], console=QUIET)

    def digest(data: bytes) -> str:
        return hashlib.sha256(data).hexdigest()

    last = {}
    for change in removal.changes:
        last.setdefault(change.file, change)
    for file, change in last.items():
        assert change.sha256_before == digest(files[file]), file
        new = change.file_after or file
        assert change.sha256_after is None or digest(store.read(new)) == change.sha256_after, file
    changed = {
        name for name, data in files.items() if not store.exists(name) or store.read(name) != data
    }
    expected = {name for name in changed if "committed" not in name and "/" in name}
    assert expected <= set(last)
    assert len([f for f in last if f.endswith(".tar")]) == 1


def test_the_record_of_committed_parts_follows(store):
    remove(store, uris=[uri_of(store, "tall-0.mp4")], clip_ids=[], console=QUIET)
    info = read_corpus(store)
    for layer_id in info.layers.values():
        states = Ledger(store).states(layout.layer_folder(layer_id), info.num_parts)
        assert set(states) == {PartState.DONE}


def test_a_clip_goes_alone_and_its_source_stays(store):
    clips, before = clips_of(store), samples(store)
    clip_id = next(iter(before))
    remove(store, uris=[], clip_ids=[clip_id], console=QUIET)
    assert all_traces(store) == []
    assert set(clips_of(store)) == set(clips) - {clip_id}
    assert set(samples(store)) == set(before) - {clip_id}
    info = read_corpus(store)
    probes = [
        read_table(store, layout.layer(info.layers["probe"], part), ["num_scenes"])
        for part in range(info.num_parts)
    ]
    assert sum(sum(p["num_scenes"].to_pylist()) for p in probes) == len(clips) - 1


def test_a_still_image_goes_by_the_id_of_its_clip(store):
    uri = uri_of(store, "picture-2.jpg")
    (gone,) = [clip_id for clip_id, source in clips_of(store).items() if source == uri]
    before = samples(store)
    remove(store, uris=[], clip_ids=[gone], console=QUIET)
    assert gone not in clips_of(store)
    assert samples(store).keys() == before.keys() - {gone}
    assert all_traces(store) == []


def test_sources_of_the_same_bytes_go_together(make_video, make_corpus, tmp_path):
    folder = tmp_path / "films"
    folder.mkdir()
    for name, look in (("a.mp4", "red"), ("z.mp4", "teal")):
        make_video(folder / name, [(look, 54)], size=(96, 64), options={"preset": "ultrafast"})
    shutil.copy(folder / "a.mp4", folder / "copy.mp4")
    store = Store(str(make_corpus(dict.fromkeys(("a.mp4", "copy.mp4", "z.mp4"), "words"), folder)))
    removal = remove(store, uris=[str(folder / "a.mp4")], clip_ids=[], console=QUIET)
    assert set(removal.uris) == {str(folder / "a.mp4"), str(folder / "copy.mp4")}
    assert all_traces(store) == []
    assert set(clips_of(store).values()) == {str(folder / "z.mp4")}


def test_nothing_that_was_removed_comes_back_under_its_name_or_another(
    store, small_media, tmp_path
):
    uri = uri_of(store, "wide-1.mp4")
    removal = remove(store, uris=[uri], clip_ids=[], console=QUIET)
    folder = tmp_path / "again"
    folder.mkdir()
    shutil.copy(uri, folder / "another-name.mp4")
    info = read_corpus(store)
    dealing = deal_sources(Ledger(store), list_sources([uri, str(folder)]), sources_per_part=4)
    assert dealing.num_parts == info.num_parts + 1
    assert dealing.num_not_listed == 15
    dealing.write(Ledger(store))
    added = read_table(store, layout.sources(info.num_parts), ["uri"])["uri"].to_pylist()
    assert added == [str(folder / "another-name.mp4")]
    from curation.decode.decoding_pass import DecodingPass

    job = DecodeJob(store, DecodingPass(tiny().river.decode), info.layers)
    job.setup()
    job.run(info.num_parts)
    job.close()
    probe = read_table(store, layout.layer(info.layers["probe"], info.num_parts))
    assert probe["source_reject"].to_pylist() == ["removed"]
    scenes = read_table(store, layout.layer(info.layers["scenes"], info.num_parts), ["clip_id"])
    assert scenes.num_rows == 0
    assert not set(removal.clip_ids) & set(clips_of(store))


def test_an_interrupted_removal_is_gone_on_with_and_blocks_additions(store, monkeypatch):
    uri = uri_of(store, "wide-0.mp4")
    before = samples(store)
    advance = Removed.advance

    class Killed(Exception):
        pass

    def dies_after(num_changes: int):
        left = [num_changes]

        def dying(self: Removed, changes, **more) -> Removed:
            for change in changes:
                self = advance(self, [change])
                left[0] -= 1
                if not left[0]:
                    raise Killed
            return advance(self, [], **more)

        return dying

    for number, num_changes in enumerate((1, 3, 3, 4, 2, 2)):
        monkeypatch.setattr(Removed, "advance", dies_after(num_changes))
        with pytest.raises(Killed):
            remove(store, uris=[uri] if number == 0 else [], clip_ids=[], console=QUIET)
        monkeypatch.setattr(Removed, "advance", advance)
        with pytest.raises(RemovalUnfinished, match="goes on with it"):
            deal_sources(Ledger(store), list_sources([uri]), sources_per_part=4)
    removal = remove(store, uris=[], clip_ids=[], console=QUIET)
    assert removal.is_done
    assert all_traces(store) == []
    after_it = samples(store)
    assert after_it == {c: s for c, s in before.items() if c not in set(removal.clip_ids)}
    assert list(verify_shards(store, "default")) == []


def test_an_interrupted_removal_is_said_by_every_command(store, monkeypatch, capsys):
    def killed(*_: object, **__: object) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patched:
        patched.setattr("pipelines.remove.scrub_part", killed)
        with pytest.raises(RuntimeError, match="killed"):
            remove(store, uris=[uri_of(store, "wide-0.mp4")], clip_ids=[], console=QUIET)
    before = {name: store.read(name) for name in store.files(recursive=True) if name != ".lock"}
    for command, code in {"status": 0, "verify": 1, "select": 1, "export": 1, "report": 1}.items():
        assert main([command, store.root]) == code, command
        said = "".join(capsys.readouterr())
        assert f"was interrupted: `lavie remove {store.root}` goes on with it" in said, command
    assert {
        name: store.read(name) for name in store.files(recursive=True) if name != ".lock"
    } == before
    assert main(["verify", store.root, "--repair"]) == 1
    assert "put it back" not in capsys.readouterr().out
    assert main(["remove", store.root]) == 0
    for command in ("status", "verify", "report"):
        assert main([command, store.root]) == 0, command
        assert "goes on with it" not in "".join(capsys.readouterr())


def test_the_command_removes_a_list_and_verify_proves_it(store, tmp_path, capsys):
    uri = uri_of(store, "tall-1.mp4")
    (tmp_path / "opt-out.txt").write_text(f"{uri}\n")
    asked = ["verify", store.root, "--removed", str(tmp_path / "opt-out.txt")]
    assert main(asked) == 1
    before = capsys.readouterr().out
    assert f"still holds '{uri}' in column 'uri'" in before
    assert "1 of the 2 were never removed" not in before
    assert main(["remove", store.root, "--sources", str(tmp_path / "opt-out.txt")]) == 0
    assert main(asked) == 0
    assert "nothing is left of" in capsys.readouterr().out
    assert main(["verify", store.root]) == 0
    assert main(["status", store.root]) == 0
    said = capsys.readouterr().out
    assert said.count("the selection's own") == 2  # shards and report
    assert "removed: 1 (for good)" in said
    assert main(["remove", store.root]) == 2
    assert "give --sources or --clips" in capsys.readouterr().err


def test_no_corpus_and_a_name_that_was_never_removed_are_no_proof(store, tmp_path, capsys):
    (tmp_path / "names.txt").write_text("never.mp4\n")
    assert main(["verify", str(tmp_path / "typo"), "--removed", str(tmp_path / "names.txt")]) == 2
    assert main(["verify", store.root, "--removed", str(tmp_path / "names.txt")]) == 1
    assert "1 of the 1 names were never removed" in capsys.readouterr().out


def test_names_as_they_were_typed_leave_the_commands_on_record(store):
    uri = uri_of(store, "wide-5.mp4")
    typed = f"lavie curate films/wide-5.mp4 ./wide-5.mp4 wide-4.mp4 x-wide-5.mp4 '{uri}' --out c"
    replace(read_corpus(store), created_by=typed).write(store)
    write_report(store, read_corpus(store), "default", ReportConfig())
    left = find_traces(store, Traces(frozenset({"/elsewhere/wide-5.mp4"}), frozenset()))
    assert any("the name of a source in the command" in line for line in left)
    remove(store, uris=[uri], clip_ids=[], console=QUIET)
    command = read_corpus(store).created_by
    assert command.count(blank_uri(uri)) == 3
    assert " wide-4.mp4 x-wide-5.mp4 " in command
    assert all_traces(store) == []
    assert "films/wide-5.mp4" not in store.read("reports/default/index.html").decode()


def test_a_takedown_ends_where_the_selection_is_not_of_the_corpus_as_it_is(store, caplog):
    """Layers of other settings have come since, of which one part failed."""
    info, uri = read_corpus(store), uri_of(store, "tall-1.mp4")
    shorter = tiny().river
    shorter = replace(shorter, decode=replace(shorter.decode, sample_fps=1.0))
    decoding = configure(replace(shorter, stations=())).decoding
    layers = layer_ids(decoding, [])
    job = DecodeJob(store, decoding, layers)
    job.setup()
    ledger = Ledger(store)
    for part in range(info.num_parts - 1):
        ledger.record(job.run(part).commits)
    job.close()
    ledger.flush()
    replace(info, layers=layers).write(store)
    before = read_funnel(store, "default")["clips"]["clips"]
    num_clips = list(clips_by_source(store, info.layers).values()).count(uri)
    remove(store, uris=[uri], clip_ids=[], console=QUIET)
    assert read_removed(store).unfinished is None
    assert read_funnel(store, "default")["clips"]["clips"] == before - num_clips
    assert "the report of" not in caplog.text
    assert report_names(store, "tall-0.mp4")
    assert not report_names(store, "tall-1.mp4")
    assert not list(find_traces(store, Traces.of(read_removed(store), named=frozenset({uri}))))
    found = verify(store)
    assert not found.faults
    assert {one.kind for one in found.unfinished} == {Kind.LAYER}  # the layers that have come


def report_names(store: Store, film: str) -> bool:
    return film in store.read("reports/default/index.html").decode()


def test_a_report_is_written_anew_where_parts_came_later_and_others_are_made_again(
    store, small_media, tmp_path, caplog
):
    """A source of the first part was read at a later try; no layer but the scenes has followed yet."""
    info, ledger = read_corpus(store), Ledger(store)
    folder = tmp_path / "later"
    folder.mkdir()
    shutil.copy(small_media / "wide-0.mp4", folder / "later.mp4")
    dealing = deal_sources(ledger, list_sources([str(folder)]), sources_per_part=4)
    dealing.write(ledger)
    replace(info, num_parts=dealing.num_parts).write(store)
    ledger.mark_again(layout.layer_folder(info.layers["captions"]), [0])
    scenes = read_table(store, layout.layer(info.layers["scenes"], 0))
    more = scenes.set_column(
        0, scenes.schema.field(0), pa.array([str(uuid.uuid4()) for _ in range(len(scenes))])
    )
    assert scenes.column_names[0] == "clip_id"
    folder_of_scenes = layout.layer_folder(info.layers["scenes"])
    whole = store.read(layout.layer(info.layers["scenes"], 0))
    commit_part(store, folder_of_scenes, 0, pa.concat_tables([scenes, more.slice(0, 1)]))
    uri, before = uri_of(store, "wide-2.mp4"), read_funnel(store, "default")["clips"]["clips"]

    remove(store, uris=[uri], clip_ids=[], console=QUIET)  # the other layers have not that clip

    assert read_funnel(store, "default")["clips"]["clips"] == before - 5
    assert "after `lavie select" in caplog.text
    assert f"`lavie report {store.root} --selection default` writes it" in caplog.text
    assert not store.files("reports/default")

    store.write(layout.layer(info.layers["scenes"], 0), whole)
    caplog.clear()
    with pytest.raises(MissingPart):
        write_report(store, read_corpus(store), "default", ReportConfig())
    store.write("reports/default/index.html", b"of an earlier time")
    remove(store, uris=[uri_of(store, "tall-1.mp4")], clip_ids=[], console=QUIET)
    assert not caplog.text
    assert report_names(store, "tall-0.mp4")
    assert not report_names(store, "wide-2.mp4")
    assert not report_names(store, "tall-1.mp4")


def test_centres_of_clusters_are_free_of_what_was_removed(store):
    """Of three clips one is a cluster of its own; its centre is its embedding."""
    lone, *others = [i for i, uri in clips_of(store).items() if uri.endswith(("wide-0.mp4",))][:3]
    eye = np.eye(4, dtype=np.float32)
    of_clip = {lone: eye[0], others[0]: eye[1], others[1]: unit_length(eye[1:2] + eye[2:3])[0]}
    info = read_corpus(store)
    for part in range(info.num_parts):
        ids = read_table(store, layout.layer(info.layers["scenes"], part), ["clip_id"])["clip_id"]
        rows = [of_clip.get(clip_id, np.zeros(0)).tolist() for clip_id in ids.to_pylist()]
        embeddings = {"clip_id": ids, "embedding": pa.array(rows, pa.list_(pa.float32()))}
        commit_part(store, "layers/embeddings@1-abc", part, pa.table(embeddings))
    names = [layout.centres(layer, 3, 0) for layer in ("embeddings@1-abc", "embeddings@1-gone")]
    for name in names:
        centres_KD = unit_length(np.stack([eye[0], eye[1] + eye[2] / 2, eye[3]]))
        store.write(name, to_parquet(centres_table(centres_KD)))

    removal = remove(store, uris=[], clip_ids=[lone], console=QUIET)

    kept, gone = names
    both = unit_length((of_clip[others[0]] + of_clip[others[1]])[None])[0]
    zeros = np.zeros(4, np.float32)
    found = centres_of(read_table(store, kept))
    np.testing.assert_allclose(found, np.stack([zeros, both, zeros]), atol=1e-6)
    assert not store.exists(gone)
    assert {change.file for change in removal.changes} >= {kept, gone}


def test_two_removals_one_after_the_other(store):
    before = samples(store)
    for name in ("wide-3.mp4", "wide-4.mp4"):
        remove(store, uris=[uri_of(store, name)], clip_ids=[], console=QUIET)
    assert all_traces(store) == []
    assert len(samples(store)) == len(before) - 10
    assert list(verify_shards(store, "default")) == []


def test_a_trace_is_found_wherever_it_is_left(store):
    clip_id = next(iter(samples(store)))
    row = next(r for r in read_index(store, "default").to_pylist() if r["clip_id"] == clip_id)
    digest = read_sample(store, "default", row).facts["media_sha256"]
    by_id = list(find_traces(store, Traces(frozenset({clip_id}), frozenset())))
    assert any(".tar still holds the sample" in line for line in by_id)
    assert any("layers/keyframes" in line for line in by_id)
    ids = frozenset(samples(store))
    assert any("reports/default" in line for line in find_traces(store, Traces(ids, frozenset())))
    by_media = list(find_traces(store, Traces(frozenset(), frozenset({digest}))))
    assert [line for line in by_media if ".tar" in line] == by_media
    assert len(by_media) == 1
    store.write("notes/mine.txt", f"see {clip_id}".encode())
    assert any(
        "notes/mine.txt" in line
        for line in find_traces(store, Traces(frozenset({clip_id}), frozenset()))
    )


def test_lists_are_read_in_the_forms_that_people_have(tmp_path):
    one, two = str(uuid.uuid4()), str(uuid.uuid4())
    (tmp_path / "a.mp4").touch()
    for name, content in {
        "list.txt": "# opt-outs\na.mp4\n\ns3://bucket/b.mp4\n",
        "list.csv": "uri,asked\na.mp4,yes\ns3://bucket/b.mp4,yes\n",
        "list.jsonl": '{"uri": "a.mp4"}\n{"uri": "s3://bucket/b.mp4"}\n',
        "uris.txt": f"file://localhost{tmp_path}/%61.mp4\ns3://bucket/b.mp4\n",
        "uris.csv": f"uri\nfile://{tmp_path}/%61.mp4\ns3://bucket/b.mp4\n",
    }.items():
        (tmp_path / name).write_text(content)
        assert read_uris(str(tmp_path / name)) == [str(tmp_path / "a.mp4"), "s3://bucket/b.mp4"]
    for name, content in {
        "c.txt": f"{one}\n{two.upper()}\n",
        "c.csv": f"clip_id,why\n{one},x\n{two},y\n",
        "c.jsonl": f'{{"clip_id": "{one}"}}\nnot json\n{{"clip_id": "{two}"}}\n',
    }.items():
        (tmp_path / name).write_text(content)
        assert read_clip_ids(str(tmp_path / name)) == [one, two]
    for reader in (read_uris, read_clip_ids):
        with pytest.raises(UsageError, match=r"gone\.txt"):
            reader(str(tmp_path / "gone.txt"))
    (tmp_path / "far.txt").write_text("file://server/a.mp4\n")
    with pytest.raises(UsageError, match=r"--sources: .* names no file"):
        read_uris(str(tmp_path / "far.txt"))
    (tmp_path / "other.csv").write_text("name\nx\n")
    with pytest.raises(UsageError, match="clip_id"):
        read_clip_ids(str(tmp_path / "other.csv"))


def test_a_source_that_the_corpus_lacks_stays_out_too(store, small_media, tmp_path):
    stranger = str(tmp_path / "stranger.mp4")
    shutil.copy(small_media / "wide-0.mp4", stranger)
    remove(store, uris=[stranger], clip_ids=[], console=QUIET)
    num_parts = read_corpus(store).num_parts
    dealing = deal_sources(Ledger(store), list_sources([stranger]), sources_per_part=4)
    assert dealing.num_parts == num_parts
    assert len(samples(store)) == 46
    with pytest.raises(UsageError, match="--sources"):
        remove(store, uris=[], clip_ids=[], console=QUIET)


def test_names_that_the_corpus_lacks_are_said_and_counted(store, tmp_path, capsys):
    uri, clip_id = uri_of(store, "tall-1.mp4"), str(uuid.uuid4())
    (tmp_path / "uris.txt").write_text(f"{uri}\n{uri}x\n{clip_id}\n")
    assert main(["remove", store.root, "--sources", str(tmp_path / "uris.txt")]) == 0
    said = capsys.readouterr().out
    assert said.startswith("1 sources and ")
    assert "2 of the 3 named sources are NOT in this corpus" in said
    assert f"{uri}x, {tmp_path / clip_id}; --clips takes clip ids" in said
    there = next(iter(clips_of(store)))
    (tmp_path / "ids.txt").write_text(f"{there}\n{clip_id}\n")
    asked = ["remove", store.root, "--clips", str(tmp_path / "ids.txt")]
    assert main(asked) == 0
    said = capsys.readouterr().out
    assert "0 sources and 1 clips go" in said
    assert "1 of the 2 named clips are NOT in this corpus" in said
    assert f"spelled as in the corpus? {clip_id}" in said
    assert main(asked) == 0
    assert "2 of the 2 named clips were removed before" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "text", "place"),
    [
        ("ids.txt", "# opt-outs\n{}\nfilms/a.mp4\n", "line 3"),
        ("ids.csv", "clip_id\n{}\nfilms/a.mp4\n", "row 2"),
    ],
)
def test_what_is_no_clip_id_is_named_with_its_line_before_any_work(
    name, text, place, store, tmp_path, capsys
):
    (tmp_path / name).write_text(text.format(next(iter(clips_of(store)))))
    assert main(["remove", store.root, "--clips", str(tmp_path / name)]) == 2
    said = capsys.readouterr().err
    assert f"--clips: {place} of '{tmp_path / name}' is no clip id" in said
    assert "'films/a.mp4'" in said
    assert not store.exists(layout.REMOVED)


def test_the_proof_of_a_removal_names_its_own_flag(store, tmp_path, capsys):
    (tmp_path / "names.txt").write_text("a.mp4\n")
    for name in ("nosuch.txt", "nosuch.csv"):
        assert main(["verify", store.root, "--removed", str(tmp_path / name)]) == 2
        assert capsys.readouterr().err.startswith("error: --removed: ")
    for other in (["--repair"], ["--selection", "default"]):
        asked = ["verify", store.root, "--removed", str(tmp_path / "names.txt"), *other]
        assert main(asked) == 2
        assert f"leave out {other[0]}" in capsys.readouterr().err


def test_a_film_in_place_of_a_list_is_called_that(tmp_path):
    film = tmp_path / "film.mp4"
    film.write_bytes(b"\x00\x00\x00\xb0ftypisom")
    for read in (read_uris, read_clip_ids):
        with pytest.raises(UsageError, match=r"name a line; .*film\.mp4' is no text"):
            read(str(film))
