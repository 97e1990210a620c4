"""Hostile texts in a page: nothing runs, nothing is fetched."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from curation.report import ReportConfig, write_report
from curation.report.page import clock, hours, number, percent, size
from curation.select import Rule, SelectConfig

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)


def hostile_texts(address: str) -> list[str]:
    """Texts that break out of markup where they are not escaped; all call ``address``."""
    return [
        f"<script>fetch('{address}/script')</script>",
        f"<img src=x onerror=\"location='{address}/img'\">",
        f"\"'><svg onload=\"fetch('{address}/svg')\">",
        f"</style></title><iframe src='{address}/frame'></iframe>",
        f"<link rel=stylesheet href='{address}/css'>",
        "{{ 7 * 7 }}{% for x in 1 %}",
        "&lt;b&gt; &amp; \u2028 </script>",
        f"javascript:fetch('{address}/uri')",
        "\u202egnp.elif\u202c \u0645\u0631\u062d\u0628\u0627",
        "\x00\x01\x1b[31m",
        "x" * 10_000,
        "\u0300" * 10_000,
    ]


def hostile(build, address: str):
    """A corpus in which every text that comes from outside is hostile."""
    texts = hostile_texts(address)
    clips = build.Clips(sources=[[]], clips=[[]])
    for number_, text in enumerate(texts):
        clips.sources[0].append(build.source(uri=f"films/{text}", licence=text))
        clips.clips[0].append(
            build.clip(
                number_,
                source_row=number_,
                caption=text,
                category=text,
                tags=[text],
                caption_language=text,
                caption_engine=text,
            )
        )
    return clips, texts


def test_hostile_texts_are_shown_as_texts(corpus, build):
    clips, texts = hostile(build, "http://127.0.0.1:9")
    rule = Rule(column="category", none_of=(texts[1],), name=texts[2], source=texts[0])
    made = corpus(clips, SelectConfig(rules=(rule,)), command=texts[3])
    paths = write_report(made.store, made.info, "default", ReportConfig())
    page = made.store.read(paths.page).decode()
    for tag in ("<script", "<iframe", "<link", 'onerror="', "<svg onload", "</title><iframe"):
        assert tag not in page.lower()
    assert page.count("<img ") == page.count('<img src="data:image/jpeg;base64,')
    assert "{{ 7 * 7 }}" in page
    assert "\u202e" not in page
    assert "x" * 301 not in page
    json.loads(made.store.read(paths.statistics))
    assert made.store.read(paths.statistics).isascii()


class Listener(BaseHTTPRequestHandler):
    """Remembers what was asked for."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def listener() -> Iterator[tuple[str, list[str]]]:
    """An HTTP server on loopback; its address, and the paths that were asked for."""
    asked: list[str] = []
    handler = type("Handler", (Listener,), {"asked": asked})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def dump_dom(page: Path, profile: Path) -> str:
    """The document after a headless browser has loaded it and waited a second."""
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += ["--disable-background-networking", "--no-first-run", f"--user-data-dir={profile}"]
    command += ["--virtual-time-budget=1000", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium or google-chrome on this machine")
def test_a_browser_runs_and_fetches_nothing_of_a_hostile_page(corpus, build, listener, tmp_path):
    address, asked = listener
    clips, _ = hostile(build, address)
    made = corpus(clips, SelectConfig())
    paths = write_report(made.store, made.info, "default", ReportConfig())
    local = Path(made.store.path(paths.page))
    document = dump_dom(local, tmp_path / "profile")
    assert 'class="sheet"' in document
    assert asked == []
    # The browser does reach the listener when nothing forbids it: the test can fail.
    open_page = tmp_path / "open.html"
    open_page.write_text(f"<img src='{address}/reached'>")
    dump_dom(open_page, tmp_path / "profile")
    assert asked == ["/reached"]


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (hours(1234.5), "1,234\xa0h"),
        (hours(12.34), "12.3\xa0h"),
        (hours(0.165), "9.9\xa0min"),
        (hours(0.01), "36\xa0s"),
        (percent(79.12), "79.1\xa0%"),
        (percent(0.01), "<0.1\xa0%"),
        (percent(0.0), "0\xa0%"),
        (percent(100.0), "100.0\xa0%"),
        (number(0.012345), "0.0123"),
        (number(1234.5), "1,234"),
        (size(999), "999\xa0B"),
        (size(61_234_567), "61.2\xa0MB"),
        (clock(245.04), "4:05.0"),
        (clock(59.97), "1:00.0"),
        (clock(3723.4), "1:02:03.4"),
    ],
)
def test_numbers_read_as_a_person_writes_them(shown, text):
    assert str(shown).partition(">")[2].removesuffix("</data>").replace("&lt;", "<") == text


def test_no_number_is_a_dash():
    assert "&ndash;" in hours(None)
