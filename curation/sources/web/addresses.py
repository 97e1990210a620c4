"""What an http(s) address may say, and its one spelling."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

import idna

WEB_SCHEMES = ("http", "https")
DEFAULT_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?\Z")
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\\]")
_SECRET_NAME = re.compile(
    r"secret|token|passw|signature|credential|session|jwt|authori[sz]ation|api[_-]?key|access[_-]?key"
    r"|key[_-]?(pair[_-]?)?id|^(key|sig|auth|pwd|pass|sid|hmac|policy)$",
    re.IGNORECASE,
)
_SECRET_VALUE = re.compile(r"eyJ[\w-]+\.eyJ[\w-]+\.")  # a JSON web token
_KEPT = "%/:@!$&'()*+,;=~-._"


def is_web(address: str) -> bool:
    """Whether an address begins with http:// or https://."""
    return bool(re.match(r"(?i)https?://", address))


def web_address(text: str, *, may_be_signed: bool = False) -> tuple[str, str | None]:
    """The one spelling of an http(s) address, in ASCII, or what is wrong with it.

    Args:
        text: as somebody wrote it.
        may_be_signed: whether its query may carry a secret: that of a redirect, which is not kept.

    Returns:
        The address and None; or an empty text and a sentence, which shows nothing of a secret.
    """
    if _UNSAFE.search(text):
        return "", "the address holds a control character or a backslash"
    try:
        parts = urlsplit(text)
        port = parts.port
        host = _ascii_host(parts.hostname or "")
    except (
        ValueError
    ) as error:  # a port that is none, a bracket that nothing closes, no name of a host
        return "", f"the address names no host: {str(error)[:100]}"
    if parts.scheme not in WEB_SCHEMES:
        return "", f"{parts.scheme}:// is not http:// or https://"
    if parts.username is not None or parts.password is not None:
        return "", "the address carries a user name or a password, which would stand in the corpus"
    if not may_be_signed and _has_secret(parts.query):
        return "", "the address carries a token or a signature, which would stand in the corpus"
    if port == 0:
        return "", "the address names port 0"
    place = host if port in (None, DEFAULT_PORTS[parts.scheme]) else f"{host}:{port}"
    path = quote(parts.path, safe=_KEPT) or "/"
    query = quote(parts.query, safe=_KEPT + "?")
    return urlunsplit((parts.scheme, place, path, query, "")), None


def _ascii_host(host: str) -> str:
    """A host's name in lower case and ASCII; an IPv6 address in brackets.

    Raises:
        ValueError: it is none.
    """
    if ":" in host:
        return f"[{host}]"
    if not host.isascii():
        host = idna.encode(host, uts46=True).decode()
    if not _HOST.match(host) or len(host) > 253:
        raise ValueError(f"{host[:60]!r} is no name of a host")
    return host.rstrip(".")


def _has_secret(query: str) -> bool:
    pairs = parse_qsl(query, keep_blank_values=True)
    return any(_SECRET_NAME.search(name) or _SECRET_VALUE.match(value) for name, value in pairs)
