"""A file that is gone, and a folder that this machine does not see, are told apart."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from curation.errors import MachineFault
from curation.sources.seen import MAX_FOLDERS, SeenFolders


@pytest.fixture
def films(tmp_path: Path) -> Path:
    folder = tmp_path / "films"
    folder.mkdir()
    for name in ("a.mp4", "b.mp4"):
        (folder / name).write_bytes(b"12345")
    return folder


def test_a_file_gone_from_a_folder_that_is_there_is_the_source_s_own_fate(films):
    seen = SeenFolders.of([str(films / "a.mp4"), str(films / "b.mp4")])
    (films / "a.mp4").unlink()
    for name in ("a.mp4", "b.mp4", "never-was.mp4"):
        seen.check(str(films / name))


def test_a_folder_that_was_seen_and_is_not_there_is_the_machine_s_fault(films):
    seen = SeenFolders.of([str(films / "a.mp4")])
    (films / "a.mp4").unlink()
    (films / "b.mp4").unlink()
    with pytest.raises(MachineFault, match="films is not there or empty"):  # an unmounted mount
        seen.check(str(films / "a.mp4"))
    shutil.rmtree(films)
    with pytest.raises(MachineFault, match="mount it on every machine"):
        seen.check(str(films / "a.mp4"))


def test_a_row_that_names_what_nobody_sees_is_no_fault_of_a_machine(films):
    SeenFolders.of(["/no/such/folder/a.mp4", "s3://bucket/a.mp4"]).check("/no/such/folder/a.mp4")
    SeenFolders.of([str(films / "a.mp4")]).check("s3://bucket/a.mp4")


def test_many_folders_are_told_by_those_above_them(films):
    uris = [str(films / f"{i}/a.mp4") for i in range(MAX_FOLDERS + 1)]
    assert SeenFolders.of(uris).folders == {films}
