"""A list that is corrected in its place takes its odd rows along."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from curation.corpus import layout
from curation.corpus.ledger import Ledger
from curation.corpus.manifest import read_corpus
from curation.corpus.store import Store
from pipelines.cli import main
from pipelines.status import read_status


def test_a_row_that_was_corrected_is_superseded_and_one_that_is_odd_again_is_rejected_again(
    make_video: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, look in (("a.mp4", "red"), ("b.mp4", "teal")):
        make_video(tmp_path / name, [(look, 54)], size=(96, 64), options={"preset": "ultrafast"})
    monkeypatch.chdir(tmp_path)
    films, store = tmp_path / "films.csv", Store(str(tmp_path / "corpus"))
    right, odd = "uri,title\na.mp4,A\nb.mp4,B\n", "uri,title\na.mp4,A\nb.mp4,B,and more\n"

    def rejects(text: str, spelled: str) -> dict[str, int]:
        films.write_text(text)
        arguments = ["--out", store.root, "--preset", "tiny", "--until", "measure"]
        assert main(["curate", spelled, *arguments]) == 0
        assert main(["verify", store.root]) == 0
        info = read_corpus(store)
        listed = Ledger(store).counts(layout.SOURCES)["rows"]
        status = read_status(store)
        assert status.num_read + status.rejects.total() == listed
        assert info.num_parts == layout_parts(store)
        return dict(status.rejects)

    assert rejects(odd, "films.csv") == {"bad_row": 1}
    capsys.readouterr()
    assert rejects(right, "./films.csv") == {"superseded": 1}
    assert (
        "1 rows that could not be used stand otherwise in their lists now"
        in capsys.readouterr().out
    )
    assert rejects(right, str(films)) == {"superseded": 1}
    assert "stand otherwise" not in capsys.readouterr().out
    assert rejects(odd, "films.csv") == {"bad_row": 1}


def layout_parts(store: Store) -> int:
    return sum(layout.part_number(name) is not None for name in store.files(layout.SOURCES))
