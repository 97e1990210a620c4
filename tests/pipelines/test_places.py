"""Places that the user names are looked at before any work."""

from pathlib import Path

import pytest

from curation.corpus.store import Store
from curation.errors import UsageError
from pipelines.places import check_out_files, check_out_folder, check_writable, store_at


def test_a_folder_with_foreign_files_is_refused_until_overwrite_is_given(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    store = Store(str(tmp_path))
    with pytest.raises(UsageError, match=r"--out: .* holds thesis\.txt; name another"):
        check_out_folder(store, "--out", ours=("config.json",), overwrite=False)
    check_out_folder(store, "--out", ours=("config.json",), overwrite=True)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("names", [(), ("config.json", "thesis.txt")], ids=["empty", "ours"])
def test_an_empty_folder_and_one_of_ours_are_taken(names: tuple[str, ...], tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).write_text("")
    check_out_folder(Store(str(tmp_path)), "--out", ours=("config.json",), overwrite=False)


def test_a_file_in_the_place_of_a_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file where a folder is due"):
        check_out_folder(Store(str(tmp_path / "file")), "--out", ours=(), overwrite=True)
    with pytest.raises(UsageError, match=r"--out: .* cannot be written: Not a directory"):
        check_writable(tmp_path / "file" / "below", "--out")


def test_a_place_that_no_one_can_write_is_said() -> None:
    with pytest.raises(UsageError, match="--out: /proc/nowhere cannot be written"):
        check_writable(Path("/proc/nowhere"), "--out")


def test_existing_files_and_full_folders_of_frames_are_kept(tmp_path: Path) -> None:
    video, frames = tmp_path / "a.mp4", tmp_path / "frames"
    video.write_text("precious")
    frames.mkdir()
    check_out_files([frames], "--out", overwrite=False)  # still empty
    (frames / "0.png").write_text("precious")
    with pytest.raises(UsageError, match="is there already; --overwrite replaces it"):
        check_out_files([video], "--out", overwrite=False)
    check_out_files([video], "--out", overwrite=True)
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="holds files; name a new one"):
            check_out_files([frames], "--out", overwrite=overwrite)


def test_a_store_of_no_known_kind_is_refused() -> None:
    with pytest.raises(UsageError, match="--corpus: it lies in a folder, s3:// or gs://, got"):
        store_at("ftp://host/corpus", "--corpus")


def test_a_place_below_a_file_is_refused_by_the_name_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_text("a film")
    for place in ("film.mp4", "film.mp4/corpus", "film.mp4/a/corpus"):
        with pytest.raises(
            UsageError, match=r"--out: .*/film\.mp4 is a file where a folder is due"
        ):
            store_at(str(tmp_path / place), "--out")
    assert store_at(str(tmp_path / "new/corpus"), "--out").is_local
    with pytest.raises(UsageError, match="--out: 's3://' names no bucket"):
        store_at("s3://", "--out")
