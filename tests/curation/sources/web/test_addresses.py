"""Spelling of http(s) addresses, and what they may not carry."""

from __future__ import annotations

import pytest

from curation.sources.web.addresses import web_address

SECRET = "hunter2canary"


@pytest.mark.parametrize(
    ("written", "spelled"),
    [
        ("HTTP://Films.Example:80/A.mp4", "http://films.example/A.mp4"),
        ("https://films.example:443/a%20b.mp4#t=10", "https://films.example/a%20b.mp4"),
        ("https://films.example:8443/a b.mp4", "https://films.example:8443/a%20b.mp4"),
        ("https://films.example", "https://films.example/"),
        ("https://films.example./a?id=7&q=monkey", "https://films.example/a?id=7&q=monkey"),
        ("https://bücher.example/ü.mp4", "https://xn--bcher-kva.example/%C3%BC.mp4"),
        ("http://[2001:DB8::1]:8080/a", "http://[2001:db8::1]:8080/a"),
    ],
)
def test_one_film_has_one_address(written, spelled):
    assert web_address(written) == (spelled, None)
    assert web_address(spelled) == (spelled, None)


@pytest.mark.parametrize(
    "address",
    [
        f"https://me:{SECRET}@films.example/a.mp4",
        f"https://{SECRET}@films.example/a.mp4",
        f"https://films.example/a.mp4?X-Amz-Signature={SECRET}",
        f"https://films.example/a.mp4?size=1&access_token={SECRET}",
        f"https://films.example/a.mp4?sig={SECRET}",
        f"https://films.example/a.mp4?API-key={SECRET}",
        f"https://films.example/a.mp4?t=eyJ{SECRET}.eyJ{SECRET}.x",
    ],
)
def test_a_secret_is_refused_and_not_shown(address):
    spelled, fault = web_address(address)
    assert spelled == ""
    assert fault is not None
    assert SECRET not in fault


@pytest.mark.parametrize(
    "address",
    [
        "https:///a.mp4",
        "http://films.example:port/a.mp4",
        "http://films.example:99999/a.mp4",
        "http://films.example:0/a.mp4",
        "http://[::1/a.mp4",
        "http://films example/a.mp4",
        "http://films.example/a\r\nHost: inside.example",
        "http://films.example\\@inside.example/",
        "ftp://films.example/a.mp4",
    ],
)
def test_what_names_no_host_is_refused(address):
    assert web_address(address)[1] is not None
