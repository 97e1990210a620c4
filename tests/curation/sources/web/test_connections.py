"""Which addresses are public, and that a connection goes to one that was looked at."""

from __future__ import annotations

import errno
import ipaddress
import socket

import pytest

from curation.errors import BadSource, MachineFault
from curation.sources.web import client as client_module
from curation.sources.web.connections import is_public


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.9.9.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1"),
        *("169.254.169.254", "100.64.0.1", "100.100.100.200", "192.0.0.192", "198.18.0.1"),
        *("224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "168.63.129.16"),
        *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1"),
        *("2001:db8::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1"),
        *("64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2002:a9fe:a9fe::1", "::127.0.0.1"),
    ],
)
def test_addresses_inside_networks_are_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "93.184.215.14", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"],
)
def test_addresses_of_the_public_net_are(address):
    assert is_public(address)


def test_every_address_of_a_private_range_is_refused_at_its_ends():
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "127.0.0.0/8"):
        network = ipaddress.ip_network(text)
        assert not is_public(str(network[0]))
        assert not is_public(str(network[-1]))
        assert is_public(str(network[0] - 1)) or text in ("127.0.0.0/8",)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "[::1]", "0"]
)
def test_the_own_machine_is_refused_however_it_is_spelled(site, client, fetch, host):
    site.page("/a.mp4", b"film")
    asks_nobody = client(private_hosts=())
    with pytest.raises(BadSource) as caught:
        fetch(asks_nobody, f"http://{host}:{site.port}/a.mp4")
    assert caught.value.reason == "private_address"
    assert not site.asked


def test_a_host_one_of_whose_addresses_is_private_is_refused(site, client, fetch):
    asks_nobody = client(resolve=lambda host, port: ["8.8.8.8", "127.0.0.1"], private_hosts=())
    with pytest.raises(BadSource, match="private_address"):
        fetch(asks_nobody, f"http://films.example:{site.port}/a.mp4")
    assert not site.asked


def test_a_second_look_up_that_would_lead_inside_is_never_made(site, client, fetch):
    site.page("/robots.txt", b"")
    site.page("/a.mp4", b"film")
    answers = [["127.0.0.1"], ["169.254.169.254"]]
    asked = []

    def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return answers[min(len(asked), 2) - 1]

    name = f"films.example:{site.port}"
    assert (
        fetch(client(resolve=rebinding, private_hosts=(name,)), f"http://{name}/a.mp4") == b"film"
    )
    assert asked == ["films.example"]  # one connection carried robots.txt and the film
    assert [headers["host"] for _, headers in site.asked] == [name, name]


def test_a_host_is_allowed_by_name_and_port_and_opens_no_other(site, client, fetch):
    site.page("/a.mp4", b"film")
    assert fetch(client(), f"{site.base}/a.mp4") == b"film"
    by_another_name = client(resolve=lambda host, port: ["127.0.0.1"])
    with pytest.raises(BadSource, match="private_address"):
        fetch(by_another_name, f"http://films.example:{site.port}/a.mp4")
    without_port = client(private_hosts=("127.0.0.1",))
    with pytest.raises(BadSource, match="private_address"):
        fetch(without_port, f"{site.base}/a.mp4")


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://[::ffff:169.254.169.254]/",
        "http://localhost:1/",
        "//10.0.0.1/a.mp4",
    ],
)
def test_a_redirect_into_a_network_is_refused(site, client, fetch, location):
    site.page("/a.mp4", b"", status=302, Location=location)
    with pytest.raises(BadSource) as caught:
        fetch(client(), f"{site.base}/a.mp4")
    assert caught.value.reason == "private_address"


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "ftp://films.example/a",
        "gopher://127.0.0.1/",
        "http://u:p@films.example/",
    ],
)
def test_a_redirect_to_something_else_than_http_is_refused(site, client, fetch, location):
    site.page("/a.mp4", b"", status=301, Location=location)
    with pytest.raises(BadSource) as caught:
        fetch(client(), f"{site.base}/a.mp4")
    assert caught.value.reason == "unreadable"
    assert "u:p" not in caught.value.detail


def test_a_resolver_that_cannot_say_is_asked_again_and_a_name_that_is_not_there_is_not(
    client, fetch, monkeypatch
):
    monkeypatch.setattr(client_module.time, "sleep", lambda seconds: None)
    for number, least, most in ((socket.EAI_NONAME, 1, 1), (socket.EAI_AGAIN, 2, 10_000)):
        asked = []

        def resolve(host: str, port: int, number: int = number, asked: list = asked) -> list[str]:
            asked.append(host)
            raise socket.gaierror(number, "no")

        with pytest.raises(BadSource, match="unreachable"):
            fetch(client(resolve=resolve, patience_s=2.5), "http://films.example/a.mp4")
        assert least <= len(asked) <= most


def test_a_machine_without_descriptors_is_no_fault_of_the_source(client, fetch, monkeypatch):
    def refuse(*arguments: object, **named: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket, "create_connection", refuse)
    asking = client(resolve=lambda host, port: ["8.8.8.8"])
    with pytest.raises(MachineFault, match="Too many open files"):
        fetch(asking, "http://films.example/a.mp4")
