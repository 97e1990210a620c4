"""Published recipes by `lavie select CORPUS --like NAME`, on a corpus that was measured for few of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from curation.select.rule_presets import PRESETS
from pipelines.cli import main


@pytest.fixture(scope="module")
def corpus(small_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes and given captions of eight films and eight pictures: nothing that a model measures."""
    return Path(shutil.copytree(small_corpus, tmp_path_factory.mktemp("recipes") / "corpus"))


@pytest.mark.parametrize("name", PRESETS)
def test_every_recipe_selects_when_it_may_skip_what_was_not_measured(
    name: str, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["select", str(corpus), "--like", name, "--name", f"like-{name}"]
    folder = corpus / "selections" / f"like-{name}"
    code = main(command)
    refused = " ".join(capsys.readouterr().err.split())
    assert main([*command, "--skip-missing"]) == 0
    shown = capsys.readouterr().out
    skipped = json.loads((folder / "rules.json").read_text())["config"]["skipped"]
    funnel = json.loads((folder / "funnel.json").read_text())
    assert funnel["skipped"] == skipped
    assert code == (2 if skipped else 0)
    for one in skipped:
        assert f"{one['name']}: column {one['column']!r}" in refused
        assert one["station"] not in ("scenes", "captions", "caption_text")
        assert one["name"] in shown
    assert shown.count("skipped") == len(skipped)
    assert ("--skip-missing" in refused) == bool(skipped)


def test_the_report_says_what_was_skipped(corpus: Path) -> None:
    assert main(["select", str(corpus), "--like", "svd", "--name", "svd", "--skip-missing"]) == 0
    assert main(["report", str(corpus), "--selection", "svd"]) == 0
    page = (corpus / "reports" / "svd" / "index.html").read_text()
    assert "Skipped, because this corpus lacks the column" in page
    assert "SVD: drop the quarter with the largest text area" in page
    numbers = json.loads((corpus / "reports" / "svd" / "statistics.json").read_text())
    assert {one["column"] for one in numbers["funnel"]["skipped"]} == {
        *("aesthetic_score", "text_area_share")
    }
