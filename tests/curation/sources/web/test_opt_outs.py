"""robots.txt and headers against the use of a source."""

from __future__ import annotations

import pytest

from curation.sources import OptedOut
from curation.sources.web.opt_outs import MAX_CRAWL_DELAY_S, Robots, opt_outs


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ([("x-robots-tag", "noai")], {"noai"}),
        ([("x-robots-tag", "noindex, NoImageAI"), ("x-robots-tag", "noai")], {"noai", "noimageai"}),
        ([("x-robots-tag", "otherbot: noai")], set()),
        ([("x-robots-tag", "lavie: noai, noindex")], {"noai"}),
        ([("x-robots-tag", "otherbot: noindex, LaVie: noai")], {"noai"}),
        ([("x-robots-tag", "unavailable_after: 1 Jan 2030 00:00:00 GMT, noai")], {"noai"}),
        ([("x-robots-tag", "noindex, nofollow")], set()),
        ([("tdm-reservation", "1")], {"tdm-reservation"}),
        ([("tdm-reservation", "0")], set()),
        ([("x-robots-tag", ",,: ,")], set()),
    ],
)
def test_headers_say_so(headers, found):
    assert opt_outs(headers, "lavie") == found


def test_robots_txt_speaks_to_this_robot_before_all():
    robots = Robots.parse(
        b"User-agent: *\nDisallow: /\n\nUser-agent: lavie\nCrawl-delay: 7\nDisallow: /private/\n"
        b"Allow: /private/open.mp4\n",
        "lavie",
    )
    assert robots.allows("https://films.example/a.mp4")
    assert not robots.allows("https://films.example/private/a.mp4")
    assert robots.allows("https://films.example/private/open.mp4")
    assert robots.delay_s == 7.0


def test_a_robots_txt_of_anything_is_read():
    assert Robots.parse(b"\xff\xfe\x00<html>" + b"\r\n:" * 1000, "lavie").allows("http://a.b/c")
    slow = Robots.parse(b"User-agent: *\nCrawl-delay: 86400", "lavie")
    assert slow.delay_s == MAX_CRAWL_DELAY_S


def test_what_robots_txt_disallows_is_not_asked_for(site, client, fetch):
    site.page("/robots.txt", b"User-agent: *\nDisallow: /a.mp4")
    site.page("/a.mp4", b"film")
    with pytest.raises(OptedOut) as caught:
        fetch(client(), f"{site.base}/a.mp4")
    assert (caught.value.reason, caught.value.opt_out) == ("opted_out", "robots")
    assert site.paths == ["/robots.txt"]
    assert site.asked[0][1]["user-agent"] == "lavie/0.1"


def test_robots_txt_is_asked_for_once_and_of_the_host_that_a_redirect_leads_to(site, client, fetch):
    site.page("/a.mp4", b"", status=302, Location="/b.mp4")
    site.page("/b.mp4", b"film")
    site.page("/robots.txt", b"User-agent: *\nDisallow: /c.mp4")
    asking = client()
    assert fetch(asking, f"{site.base}/a.mp4") == b"film"
    with pytest.raises(OptedOut):
        fetch(asking, f"{site.base}/c.mp4")
    assert site.paths == ["/robots.txt", "/a.mp4", "/b.mp4"]


def test_a_server_that_cannot_give_its_robots_txt_is_not_asked_further(site, client, fetch):
    site.page("/robots.txt", b"", status=503)
    site.page("/a.mp4", b"film")
    with pytest.raises(Exception, match="unreachable: HTTP status 503"):
        fetch(client(), f"{site.base}/a.mp4")
    assert set(site.paths) == {"/robots.txt"}


def test_opt_outs_in_an_answer_are_honoured_before_its_body_is_read(site, client, fetch, tmp_path):
    site.page("/a.mp4?id=1", b"film", X_Robots_Tag="noai, noindex", TDM_Reservation="1")
    with pytest.raises(OptedOut) as caught:
        fetch(client(), f"{site.base}/a.mp4?id=1")
    assert caught.value.opt_out == "noai+tdm-reservation"
    assert (tmp_path / "copy").read_bytes() == b""


def test_where_they_are_not_honoured_they_are_on_record(site, client, tmp_path):
    site.page("/robots.txt", b"User-agent: *\nDisallow: /")
    site.page("/a.mp4", b"film", X_Robots_Tag="noai")
    with (tmp_path / "copy").open("w+b") as target:
        _, said = client(honour_opt_outs=False).fetch(f"{site.base}/a.mp4", target, max_bytes=9)
    assert said.opt_out == "noai+robots"
