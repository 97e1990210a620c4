"""The page in a real headless browser, in front of a real tiny cascade."""

from __future__ import annotations

import http.client
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

gr = pytest.importorskip("gradio", reason="the extra `studio` is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from pipelines.studio.page import Studio, serve  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
LOOPBACK = ("127.0.0.1", "localhost", "::1", None)
SLOW_MS = 60_000  # of one sample on a busy machine


class Calls:
    """Addresses that this process looked up or connected to while `on`."""

    def __init__(self) -> None:
        self.on = False
        self.hosts: list[Any] = []
        sys.addaudithook(self._note)

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event == "socket.getaddrinfo":
            self.hosts.append(arguments[0])
        elif event == "socket.connect" and isinstance(arguments[1], tuple):
            self.hosts.append(arguments[1][0])


@pytest.fixture(scope="module")
def calls() -> Calls:
    return Calls()


@pytest.fixture
def studio(
    tiny_sampler: Callable[..., Any], tmp_path: Path, calls: Calls
) -> Iterator[tuple[str, Path]]:
    """Address of a running page, and the folder of its samples."""
    calls.on, calls.hosts = True, []
    page, url = serve(Studio(tiny_sampler(), tmp_path / "samples"))
    yield url, tmp_path / "samples"
    page.close(verbose=False)
    calls.on = False


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A Chromium with an empty profile, without a window."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    profile = tmp_path_factory.mktemp("profile")
    with playwright.sync_playwright() as started:
        context = started.chromium.launch_persistent_context(
            profile,
            executable_path=CHROMIUM,
            headless=True,
            args=list(FLAGS),
            viewport={"width": 1280, "height": 900},
        )
        yield context
        context.close()


@pytest.fixture
def tab(browser: Any, studio: tuple[str, Path]) -> Iterator[Any]:
    """The page, loaded; ``tab.requested`` lists what it asked for."""
    tab = browser.new_page()
    tab.requested = []
    tab.on("request", lambda request: tab.requested.append(request.url))
    tab.goto(studio[0])
    yield tab
    tab.close()


def ask(tab: Any, prompt: str, *, steps: int = 2) -> None:
    tab.get_by_label("Prompt", exact=True).fill(prompt)
    tab.get_by_label("Steps of each stage").first.fill(str(steps))
    tab.get_by_role("button", name="Sample", exact=True).click()


def test_a_prompt_becomes_a_playing_video_and_stays_in_the_gallery(tab: Any, studio) -> None:
    _, folder = studio
    tab.get_by_label("Seed").fill("7")
    tab.get_by_label("interpolation: 9 frames").check()
    ask(tab, "a panda drinking coffee")
    tab.wait_for_function(
        "(() => { const v = document.querySelector('video[src]');"
        " return v && v.readyState >= 2 && v.currentTime > 0; })()",
        timeout=SLOW_MS,
    )
    size = tab.locator("video").first.evaluate("v => [v.videoWidth, v.videoHeight]")
    assert size == [48, 32]
    (video,) = folder.glob("*.mp4")
    held = json.loads((folder / f"{video.name}.json").read_text())
    assert (held["prompt"], held["seed"]) == ("a panda drinking coffee", 7)
    assert held["stages"] == ["base", "interpolation"]

    tab.reload()
    tab.get_by_text("a panda drinking coffee (7)").wait_for()
    poster = tab.locator(".grid-container img").first
    poster.wait_for()
    assert poster.evaluate("i => [i.naturalWidth, i.naturalHeight]") == [48, 32]
    assert tab.locator("video[src]").count() == 0
    tab.get_by_text("a panda drinking coffee (7)").click()
    tab.get_by_text('"seed"').first.wait_for()
    tab.locator("video[src]").first.wait_for()


def test_a_lora_that_does_not_fit_is_said_and_markup_is_only_text(tab: Any, studio) -> None:
    ask(tab, "<img src=x onerror=\"document.title='run'\"> <b>bold</b>")
    caption = tab.get_by_text("<b>bold</b> (0)")
    caption.first.wait_for(timeout=SLOW_MS)
    tab.get_by_label("LoRA", exact=True).click()
    tab.get_by_role("option", name="foreign").click()
    tab.get_by_role("button", name="Sample", exact=True).click()
    tab.get_by_text("does not fit UNet").first.wait_for(timeout=SLOW_MS)
    assert tab.title() == "LaVie studio"
    assert tab.locator("img[src='x']").count() == 0
    assert len(list(studio[1].glob("*.mp4"))) == 1


def test_stop_ends_a_sample_and_writes_nothing(tab: Any, studio) -> None:
    ask(tab, "a long one", steps=100)
    tab.get_by_text("base").last.wait_for()
    tab.get_by_role("button", name="Stop").click()
    tab.get_by_text("stopped; nothing was written").first.wait_for(timeout=SLOW_MS)
    assert list(studio[1].iterdir()) == []


def test_neither_page_nor_server_reaches_out(tab: Any, studio, calls: Calls) -> None:
    ask(tab, "a cat")
    tab.get_by_text("a cat (0)").first.wait_for(timeout=SLOW_MS)
    host = urlsplit(studio[0]).netloc
    assert len(tab.requested) > 10
    outside = [url for url in tab.requested if urlsplit(url).netloc not in (host, "")]
    assert outside == []
    assert {host for host in calls.hosts if host not in LOOPBACK} == set()


def test_the_server_listens_on_loopback_alone(studio) -> None:
    port = urlsplit(studio[0]).port
    listening = {
        connection.laddr.ip
        for connection in psutil.Process().net_connections("inet")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
    }
    assert listening == {"127.0.0.1"}


@pytest.mark.parametrize(("host", "status"), [("localhost", 200), ("rebound.example", 400)])
def test_a_name_that_is_not_this_machines_is_not_answered(studio, host: str, status: int) -> None:
    address = urlsplit(studio[0])
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=20)
    connection.request("GET", "/", headers={"Host": f"{host}:{address.port}"})
    assert connection.getresponse().status == status
    connection.close()


def test_files_beside_the_samples_are_not_served(studio, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    address = urlsplit(studio[0])
    for path in (secret, studio[1] / ".." / "secret.txt"):
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=20)
        connection.request("GET", f"/gradio_api/file={path}")
        assert connection.getresponse().status in (403, 404)
        connection.close()
