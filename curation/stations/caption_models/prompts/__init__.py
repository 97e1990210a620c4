"""Prompts: one Markdown file a version, never changed once it was used.

A file has a part ``## system`` and a part ``## user``; ``$frames`` in the latter becomes a sentence
that says what is shown. Its name ends in ``@`` and a number, and name and digest stand beside every
caption: a new wording is a new file with the next number.
"""

from __future__ import annotations

import hashlib
import re
import string
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

_NAME = re.compile(r"[a-z0-9][a-z0-9-]*@[1-9][0-9]*")
_PARTS = re.compile(r"\A## system\n(?P<system>.+)\n## user\n(?P<user>.+)\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model is told.

    Args:
        name: such as 'clip-json@1'.
        system: the system message.
        user: the user message, with ``$frames``.
        sha256: digest of the file.
    """

    name: str
    system: str
    user: str
    sha256: str

    @property
    def label(self) -> str:
        """Value of the column `caption_prompt`: name and the digest's first digits."""
        return f"{self.name} {self.sha256[:12]}"

    def user_text(self, *, num_frames: int, duration_s: float) -> str:
        """The user message for one clip.

        Args:
            num_frames: pictures shown with it.
            duration_s: length of the clip, 0 for a still image.
        """
        if duration_s <= 0:
            shown = "The picture is a still image, not a film."
        elif num_frames == 1:
            shown = f"The picture is a frame of a clip of {duration_s:.1f} seconds."
        else:
            shown = (
                f"The {num_frames} pictures are frames of one clip of {duration_s:.1f} seconds, "
                "in the order of time."
            )
        return string.Template(self.user).substitute(frames=shown)


def check_name(name: str) -> None:
    """Check that a prompt's name carries a version.

    Raises:
        ValueError: it does not.
    """
    stem = Path(name).name.removesuffix(".md")
    if not _NAME.fullmatch(stem) or ("/" in name) != name.endswith(".md"):
        raise ValueError(
            "a prompt must be a name such as 'clip-json@1', or the path (with a '/') of such a "
            f"file ending in .md, got {name!r}"
        )


def load_prompt(name: str) -> Prompt:
    """A prompt of this package by its name, or of a file by its path.

    Raises:
        ValueError: the name has no version, there is no such file, or its parts are not right.
    """
    check_name(name)
    try:
        if "/" in name:
            data = Path(name).read_bytes()
        else:
            data = files(__package__).joinpath(f"{name}.md").read_bytes()
    except FileNotFoundError as error:
        raise ValueError(f"there is no prompt {name!r}; known: {', '.join(known())}") from error
    text = data.decode()
    match = _PARTS.match(text)
    if match is None or "$frames" not in match["user"]:
        raise ValueError(
            f"prompt {name!r} must consist of '## system' and '## user', the latter with $frames"
        )
    stem = Path(name).name.removesuffix(".md")
    digest = hashlib.sha256(data).hexdigest()
    return Prompt(stem, match["system"].strip(), match["user"].strip(), digest)


def known() -> list[str]:
    """Names of the prompts in this package."""
    names = (file.name for file in files(__package__).iterdir())
    return sorted(name.removesuffix(".md") for name in names if name.endswith(".md"))
