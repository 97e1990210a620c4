"""Over TLS the name is checked that the address has, whatever address the connection goes to."""

from __future__ import annotations

import datetime
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from curation.errors import BadSource
from curation.sources import WebClient, WebConfig


def write_certificate(path: Path, host: str) -> None:
    """A key, and a certificate that it has signed itself, for one host."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/a.mp4" else 404)
        self.end_headers()
        self.wfile.write(b"film")

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Of a server that says, and is believed, to be films.example."""
    write_certificate(tmp_path / "pem", "films.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "pem")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


def fetched(port: int, host: str, folder: Path) -> bytes:
    config = WebConfig(private_hosts=(f"{host}:{port}",), delay_s=0, patience_s=0)
    client = WebClient(config, resolve=lambda host, port: ["127.0.0.1"])
    with (folder / "copy").open("w+b") as target:
        client.fetch(f"https://{host}:{port}/a.mp4", target, max_bytes=100)
        target.seek(0)
        return target.read()


def test_a_server_that_is_who_it_says_is_read(port, tmp_path):
    assert fetched(port, "films.example", tmp_path) == b"film"


def test_a_server_that_is_somebody_else_is_not(port, tmp_path):
    with pytest.raises(BadSource, match="unreadable: its certificate: Hostname mismatch"):
        fetched(port, "other.example", tmp_path)
