"""Lines of the log: one JSON object each, with what they are about, and no secret."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.logs import MOST_LINES, JsonLines, ReadableLines, facts, kept, log_as, tell_again

SECRET = "hunter2canary"
ADDRESS = f"https://me:{SECRET}@films.example/a.mp4?token={SECRET}"


class Written(logging.Handler):
    """Keeps each line as it would be written."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.setFormatter(ReadableLines())

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def written() -> Iterator[Written]:
    """What is written to the log of this process in the way that is chosen."""
    handler = Written()
    logging.getLogger().addHandler(handler)
    yield handler
    logging.getLogger().removeHandler(handler)
    log_as("warnings")


LOGGER = logging.getLogger("curation.anything")


def test_a_line_is_one_object_that_says_what_it_is_about(written):
    log_as("json")
    LOGGER.info("%s took\nlong", "it", extra=facts(part=7, source="films/ü.mp4"))
    (line,) = written.lines
    assert "\n" not in line
    read = json.loads(line)
    assert read.pop("time").endswith("+00:00")
    assert read == {
        "level": "info",
        "logger": "curation.anything",
        "message": "it took\nlong",
        "part": 7,
        "source": "films/ü.mp4",
    }


@pytest.mark.parametrize("kind", ["json", "lines"])
def test_no_way_shows_what_an_address_carries(written, kind):
    log_as(kind)
    try:
        raise OSError(ADDRESS)
    except OSError:
        LOGGER.exception("at %s", ADDRESS, extra=facts(source=ADDRESS))
    (line,) = written.lines
    assert "films.example/a.mp4" in line
    assert SECRET not in line


def test_only_warnings_are_shown_unless_asked_for(written):
    log_as("warnings")
    LOGGER.info("a unit")
    LOGGER.warning("a full disk")
    assert written.lines == ["WARNING curation.anything: a full disk"]


def test_what_a_worker_logs_is_told_again_with_where_it_was(written):
    with kept(logging.INFO) as lines:
        LOGGER.info("at %s", ADDRESS, extra=facts(source="a.mp4", part="its own"))
        LOGGER.debug("not wanted")
    assert len(lines) == 1
    assert SECRET not in lines[0].message
    log_as("json")
    tell_again(lines[0], stage="decode", part=3)
    read = json.loads(written.lines[-1])
    assert (read["stage"], read["source"], read["part"]) == ("decode", "a.mp4", "its own")


def test_a_unit_hands_over_a_bounded_number_of_lines():
    with kept(logging.INFO) as lines:
        for number in range(MOST_LINES + 5):
            LOGGER.info("line %d", number)
    assert len(lines) == MOST_LINES + 1
    assert lines[-1].message == "5 more lines of this unit"


def test_a_record_that_json_does_not_know_is_a_line_all_the_same():
    record = logging.LogRecord("a", logging.INFO, "", 0, "said", None, None)
    record.facts = {"path": Path("/films"), "of": {1, 2}}
    assert json.loads(JsonLines().format(record))["path"] == "/films"


def test_a_run_tells_of_every_unit_and_source(small_media, tmp_path):
    (tmp_path / "no-film.mp4").write_text("words")
    films = [str(small_media / "wide-0.mp4"), str(tmp_path / "no-film.mp4")]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pipelines", "curate", *films, "--out", str(tmp_path / "c")),
            *("--preset", "tiny", "--log", "json", "--until", "measure"),
        ],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    units = {(line["stage"], line["part"]) for line in lines if "wall_s" in line}
    assert units == {
        (stage, part) for stage in ("decode", "captions", "caption_text") for part in (0, 1)
    }
    assert all(line["wall_s"] >= 0 and line["node"] for line in lines if "wall_s" in line)
    sources = {line["source"]: line for line in lines if "source" in line}
    assert sorted(sources) == sorted(films)
    assert sources[films[0]]["reject"] is None
    assert sources[films[1]]["reject"] == "unknown_format"
    assert all(line["stage"] == "decode" and line["seconds"] >= 0 for line in sources.values())


def test_an_error_that_ends_a_run_is_a_line_too(tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pipelines", "curate", str(tmp_path / "gone.mp4")),
            *("--out", str(tmp_path / "c"), "--preset", "tiny", "--log", "json"),
        ],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    (line,) = map(json.loads, done.stderr.splitlines())
    assert line["level"] == "error"
    assert "gone.mp4' does not exist" in line["message"]
