"""Texts that strangers wrote, made fit to be shown: short, no secrets, no control characters.

Escaping for HTML is the template engine's work, not done here.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

_URI = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]{0,30})://(?P<rest>[^\s'\"]*)")
_SENSITIVE = r"[a-z0-9_-]*(?:password|passwd|secret|token|api[_-]?key|access[_-]?key|credential)"
_SECRET_OPTION = re.compile(
    rf"(?i)(?P<name>(?:--{_SENSITIVE}[a-z0-9_-]*[=\s]|\b{_SENSITIVE}[a-z0-9_-]*[=:])\s*)"
    r"(?P<value>'[^']*'|\"[^\"]*\"|[^\s'\"]+)"
)
_DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that turn the reading direction of what follows them."""


def safe_uri(uri: str) -> str:
    """An address without user, password, query and fragment; a local path as it is.

    >>> safe_uri("s3://key:secret@bucket/a.mp4?X-Amz-Signature=1#t")
    's3://bucket/a.mp4'
    """
    scheme, sign, rest = uri.partition("://")
    if not sign:
        return uri
    return f"{scheme}://{_without_secrets(rest)}"


def _without_secrets(rest: str) -> str:
    place = re.split(r"[?#]", rest, maxsplit=1)[0]
    host, slash, path = place.partition("/")
    return f"{host.rpartition('@')[2]}{slash}{path}"


def safe_command(command: str) -> str:
    """A command line or setting without the secrets of addresses and of options named so.

    >>> safe_command("lavie curate https://u:p@host/a?sig=1 --api-token abc")
    'lavie curate https://host/a --api-token ***'
    """
    shown = _URI.sub(lambda m: f"{m['scheme']}://{_without_secrets(m['rest'])}", command)
    return _SECRET_OPTION.sub(lambda m: f"{m['name']}***", shown)


def safe_settings(value: Any) -> Any:
    """Settings with every text made safe by `safe_command`, and secret-sounding entries hidden."""
    if isinstance(value, str):
        return safe_command(value)
    if isinstance(value, dict):
        return {name: _safe_entry(str(name), entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [safe_settings(entry) for entry in value]
    return value


def _safe_entry(name: str, entry: Any) -> Any:
    if isinstance(entry, str) and entry and _SECRET_OPTION.search(f"{name}=x"):
        return "***"
    return safe_settings(entry)


def cut_text(text: str, num_chars: int) -> str:
    """The beginning of a text on one line, without control and direction-changing characters."""
    # Of a text of a million characters only the beginning is walked through.
    shown = "".join(" " if c.isspace() else c for c in text[: 4 * num_chars] if _is_shown(c))
    shown = " ".join(shown.split())
    if len(shown) <= num_chars and len(text) <= 4 * num_chars:
        return shown
    return shown[: num_chars - 3].rstrip() + "..."


def _is_shown(character: str) -> bool:
    if character.isspace():
        return True
    return character not in _DIRECTIONS and unicodedata.category(character) not in ("Cc", "Cs")
