"""Fetching from servers: honest ones, broken ones, hostile ones."""

from __future__ import annotations

import email.utils
import hashlib
import itertools
import pickle
import time
from http.server import BaseHTTPRequestHandler

import pytest

from curation.errors import LASTING, PASSING, BadSource, MachineFault
from curation.sources import WebConfig, fetched
from curation.sources.web import client as client_module

FILM = bytes(range(256)) * 4000


def test_the_bytes_come_with_their_digest_and_where_they_came_from(site, client, tmp_path):
    site.page("/a.mp4?id=1", b"", status=301, Location="/b.mp4?signature=abc")
    site.page("/b.mp4?signature=abc", FILM)
    uri = f"{site.base}/a.mp4?id=1"
    with fetched(uri, max_bytes=10**7, scratch=tmp_path, web=client()) as source:
        assert source.file.read() == FILM
        assert (source.sha256, source.size_bytes) == (hashlib.sha256(FILM).hexdigest(), len(FILM))
        assert source.from_web is not None
        assert source.from_web.served_from == f"{site.base}/b.mp4"
        assert source.from_web.opt_out == "none"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        *[
            (404, "not_found"),
            (410, "gone"),
            (451, "gone"),
            (401, "unreadable"),
            (403, "unreadable"),
        ],
        *[(400, "unreadable"), (204, "unreadable"), (304, "unreadable")],
        *[(429, "unreachable"), (408, "unreachable"), (500, "unreachable"), (503, "unreachable")],
    ],
)
def test_what_a_status_means_for_a_source(site, client, fetch, status, reason):
    site.page("/a.mp4", b"", status=status)
    with pytest.raises(BadSource) as caught:
        fetch(client(), f"{site.base}/a.mp4")
    assert caught.value.reason == reason
    assert f"HTTP status {status}" in caught.value.detail


def test_what_servers_say_for_good_is_lasting_and_all_else_passes():
    assert "gone" in LASTING
    assert {"unreachable", "opted_out", "private_address"} <= PASSING.keys()


def test_a_redirect_that_leads_in_a_circle_ends(site, client, fetch):
    site.page("/a.mp4", b"", status=302, Location="/a.mp4")
    with pytest.raises(BadSource, match="unreadable: more than 5 redirects"):
        fetch(client(), f"{site.base}/a.mp4")


def test_a_length_over_the_limit_is_refused_before_the_body(site, client, fetch, tmp_path):
    site.page("/a.mp4", b"film", Content_Length=str(10**15))
    with pytest.raises(BadSource, match="too_large"):
        fetch(client(), f"{site.base}/a.mp4")
    assert (tmp_path / "copy").read_bytes() == b""


def test_an_endless_body_ends_at_the_limit(site, client, fetch, tmp_path):
    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        while True:
            handler.wfile.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")

    site.answers["/a.mp4"] = endless
    with pytest.raises(BadSource, match="too_large"):
        fetch(client(), f"{site.base}/a.mp4", max_bytes=10**6)
    assert (tmp_path / "copy").stat().st_size <= 10**6


def test_a_body_shorter_than_its_length_is_no_film(site, client, fetch):
    def short(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b"film")
        handler.close_connection = True

    site.answers["/a.mp4"] = short
    with pytest.raises(BadSource) as caught:
        fetch(client(), f"{site.base}/a.mp4")
    assert caught.value.reason == "unreachable"


def test_a_body_longer_than_its_length_is_cut_there(site, client, fetch):
    site.page("/a.mp4", b"film and more", Content_Length="4")
    assert fetch(client(), f"{site.base}/a.mp4") == b"film"


def test_an_empty_body_is_empty(site, client, fetch):
    site.page("/a.mp4", b"")
    with pytest.raises(BadSource, match="empty"):
        fetch(client(), f"{site.base}/a.mp4")


def test_a_packed_body_is_not_unpacked(site, client, fetch):
    site.page("/a.mp4", b"\x1f\x8b bomb", Content_Encoding="gzip")
    with pytest.raises(BadSource, match="sent as 'gzip'"):
        fetch(client(), f"{site.base}/a.mp4")
    assert site.asked[-1][1]["accept-encoding"] == "identity"


@pytest.mark.parametrize("drips", ["head", "body"])
def test_a_slow_drip_ends_by_the_clock(site, client, fetch, monkeypatch, drips):
    monkeypatch.setattr(client_module, "ANSWER_S", 0.5)
    monkeypatch.setattr(client_module, "CONNECT_S", 0.5)

    def drip(handler: BaseHTTPRequestHandler) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n"
        handler.wfile.write(head + (b"\r\n" if drips == "body" else b""))
        for number in itertools.count():
            handler.wfile.write(b"x" if drips == "body" else b"X-%d: y\r\n" % number)
            handler.wfile.flush()
            time.sleep(0.1)  # each read gets something long before its own timeout

    site.answers["/a.mp4"] = drip
    with pytest.raises(BadSource, match="unreachable: it sends too slowly"):
        fetch(client(), f"{site.base}/a.mp4")


def test_a_server_that_never_answers_ends_by_the_clock(site, client, fetch, monkeypatch):
    monkeypatch.setattr(client_module, "ANSWER_S", 0.3)
    site.answers["/a.mp4"] = lambda handler: time.sleep(2)
    with pytest.raises(BadSource, match="unreachable: it sends too slowly"):
        fetch(client(), f"{site.base}/a.mp4")


class Breaking:
    """A server that breaks off after each `step` bytes, and honours Range."""

    def __init__(self, step: int, etag: str | None = '"v1"', **headers: str) -> None:
        self.step = step
        self.headers = headers | ({"ETag": etag} if etag else {})
        self.film = FILM

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers.get("Range")
        is_same = handler.headers.get("If-Range") in self.headers.values()
        first = int(asked.split("=")[1].rstrip("-")) if asked and is_same else 0
        handler.send_response(206 if first else 200)
        for name, value in self.headers.items():
            handler.send_header(name.replace("_", "-"), value)
        if first:
            last = len(self.film) - 1
            handler.send_header("Content-Range", f"bytes {first}-{last}/{len(self.film)}")
        handler.send_header("Content-Length", str(len(self.film) - first))
        handler.end_headers()
        handler.wfile.write(self.film[first : first + self.step])
        handler.close_connection = True


@pytest.fixture
def patient(client, monkeypatch):
    """A client that tries again at once."""
    monkeypatch.setattr(client_module.time, "sleep", lambda seconds: None)
    return lambda **settings: client(**({"patience_s": 60.0} | settings))


@pytest.mark.parametrize(
    "versions",
    [
        {"etag": '"v1"'},
        {
            "etag": None,
            "Last_Modified": email.utils.formatdate(1_000_000_000, usegmt=True),
        },
    ],
)
def test_a_broken_answer_goes_on_where_it_stopped(site, patient, fetch, versions):
    site.answers["/a.mp4"] = Breaking(300_000, **versions)
    assert fetch(patient(), f"{site.base}/a.mp4") == FILM
    ranges = [headers.get("range") for path, headers in site.asked if path == "/a.mp4"]
    assert ranges == [None, "bytes=300000-", "bytes=600000-", "bytes=900000-"]


@pytest.mark.parametrize("etag", [None, 'W/"v1"'])
def test_without_a_strong_sign_of_the_version_it_begins_anew(site, patient, fetch, etag):
    tries = itertools.count()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        Breaking(300_000 if next(tries) < 2 else len(FILM), etag=etag)(handler)

    site.answers["/a.mp4"] = answer
    assert fetch(patient(), f"{site.base}/a.mp4") == FILM
    assert not any("range" in headers for _, headers in site.asked)


def test_a_film_that_is_replaced_in_between_is_never_mixed(site, patient, fetch):
    server = Breaking(300_000)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        server(handler)
        server.headers, server.film, server.step = {"ETag": '"v2"'}, FILM[::-1], len(FILM)

    site.answers["/a.mp4"] = answer
    assert fetch(patient(), f"{site.base}/a.mp4") == FILM[::-1]


@pytest.mark.parametrize("lie", ["bytes 0-9/10", "bytes 7-8/*", "lines 1-2/3", ""])
def test_a_piece_that_was_not_asked_for_is_not_appended(site, patient, fetch, lie):
    tries = itertools.count()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        number = next(tries)
        if number == 1:
            site.page("", b"other bytes", status=206, ETag='"v1"', Content_Range=lie)
            site.answers[""](handler)
        else:
            Breaking(300_000 if not number else len(FILM))(handler)

    site.answers["/a.mp4"] = answer
    assert fetch(patient(), f"{site.base}/a.mp4") == FILM


def test_a_server_that_is_busy_is_asked_again_after_its_own_time(site, client, fetch, monkeypatch):
    slept: list[float] = []
    monkeypatch.setattr(client_module.time, "sleep", slept.append)
    tries = itertools.count()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        status, wait = [(429, "7"), (503, None), (200, None)][next(tries)]
        site.page("", b"film", status=status, **({"Retry_After": wait} if wait else {}))
        site.answers[""](handler)

    site.answers["/a.mp4"] = answer
    turns = Unlimited()
    asking = client(patience_s=60.0)
    asking._turns = turns
    assert fetch(asking, f"{site.base}/a.mp4") == b"film"
    assert slept[0] == 7
    assert turns.pauses == [0, 7, 0, 0]  # the first is robots.txt


class Unlimited:
    """Turns for all, that note what hosts ask for."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    def wait_s(self, host: str, holder: str, *, delay_s: float, most: int) -> float:
        return 0.0

    def keep(self, host: str, holder: str) -> None:
        pass

    def end(self, host: str, holder: str, *, pause_s: float = 0.0) -> None:
        self.pauses.append(pause_s)


@pytest.mark.parametrize("is_date", [False, True])
def test_a_server_that_asks_for_days_is_given_up_at_once(site, client, fetch, is_date):
    days = 864_000
    wait = email.utils.formatdate(time.time() + days, usegmt=True) if is_date else str(days)
    site.page("/a.mp4", b"", status=503, Retry_After=wait)
    with pytest.raises(BadSource, match=r"unreachable: .*left alone for 8(64000|639\d\d) s"):
        fetch(client(patience_s=60.0), f"{site.base}/a.mp4")
    assert site.paths.count("/a.mp4") == 1


def test_nonsense_in_headers_is_no_error(site, client, fetch):
    site.page(
        "/a.mp4", b"film", ETag="\xff", Last_Modified="tomorrow", Retry_After="soon", Date="x"
    )
    assert fetch(client(), f"{site.base}/a.mp4") == b"film"


def test_after_a_host_has_been_given_up_its_other_sources_get_one_try(site, patient, fetch):
    site.page("/robots.txt", b"")
    asking = patient(patience_s=3.0)
    for name in ("/a.mp4", "/b.mp4"):
        site.page(name, b"", status=500)
        with pytest.raises(BadSource, match="unreachable"):
            fetch(asking, f"{site.base}{name}")
    assert site.paths.count("/b.mp4") == 1
    site.page("/c.mp4", b"film")
    assert fetch(asking, f"{site.base}/c.mp4") == b"film"


def test_a_name_that_nobody_knows_is_given_up_at_once(client, fetch):
    with pytest.raises(BadSource) as caught:
        fetch(client(patience_s=60.0), "http://films.invalid/a.mp4")
    assert caught.value.reason == "unreachable"


def test_a_full_disk_is_no_fault_of_the_source(site, client, tmp_path, small_disk):
    site.page("/a.mp4", FILM)
    with (
        pytest.raises(MachineFault, match="No space left on device"),
        fetched(f"{site.base}/a.mp4", max_bytes=10**7, scratch=small_disk, web=client()),
    ):
        pass
    assert not list(small_disk.iterdir())


def test_a_client_travels_as_its_settings(site, client):
    there = pickle.loads(pickle.dumps(client(user_agent="robot/1")))
    assert there.config.user_agent == "robot/1"


@pytest.mark.parametrize(
    "settings",
    [
        {"user_agent": ""},
        {"user_agent": "a\r\nHost: b"},
        {"delay_s": float("nan")},
        {"requests_per_host": 0},
        {"private_hosts": ("http://a",)},
        {"private_hosts": ("10.0.0.0/8",)},
        {"timeout_s": 0},
    ],
)
def test_settings_that_cannot_be_are_refused(settings):
    with pytest.raises(ValueError, match=r"web\."):
        WebConfig(**settings)


def test_waiting_for_turns_costs_a_source_none_of_its_time(site, client, fetch):
    site.page("/robots.txt", b"")
    site.page("/a.mp4", b"film")
    asking = client(timeout_s=0.5)
    asking._turns = Crowd(0.8)
    assert fetch(asking, f"{site.base}/a.mp4") == b"film"


class Crowd(Unlimited):
    """Turns that take a while to come."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.ready_at = time.monotonic() + seconds

    def wait_s(self, host: str, holder: str, *, delay_s: float, most: int) -> float:
        return max(0.0, self.ready_at - time.monotonic())
