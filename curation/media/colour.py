"""How the numbers of a decoded frame stand for colours: one rule for all who turn frames into RGB.

A frame says it by four tags, or leaves some of them out. What is left out is decided here, and only
here: the decoding pass, the cutter and the training reader all ask `colour_of`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from curation.errors import BadSource

if TYPE_CHECKING:
    from av import VideoFrame

HD_WIDTH, SD_HEIGHT = 1280, 576
"""Coded frames at least this wide, or higher than this, are HD: untagged ones are BT.709, others
BT.601. The rule of mpv and libplacebo (pl_color_system_guess_ycbcr)."""

UNSPECIFIED = "unspecified"
MATRICES = {
    1: "bt709",
    4: "fcc",
    5: "bt470bg",
    6: "smpte170m",
    7: "smpte240m",
    9: "bt2020nc",
    10: "bt2020nc",  # constant luminance: nobody converts it otherwise
}
"""AVColorSpace -> libav's name of it; RGB and what libswscale has no numbers for are left out."""
TRANSFERS = {
    1: "bt709",
    4: "bt470m",
    5: "bt470bg",
    6: "smpte170m",
    7: "smpte240m",
    8: "linear",
    11: "iec61966-2-4",
    12: "bt1361e",
    13: "iec61966-2-1",
    14: "bt2020-10",
    15: "bt2020-12",
    16: "smpte2084",
    17: "smpte428",
    18: "arib-std-b67",
}
"""AVColorTransferCharacteristic -> libav's name of it."""
PRIMARIES = {
    1: "bt709",
    4: "bt470m",
    5: "bt470bg",
    6: "smpte170m",
    7: "smpte240m",
    8: "film",
    9: "bt2020",
    10: "smpte428",
    11: "smpte431",
    12: "smpte432",
    22: "ebu3213",
}
"""AVColorPrimaries -> libav's name of it."""
HDR_TRANSFERS = ("smpte2084", "arib-std-b67")
"""PQ (SMPTE ST 2084) and HLG (ARIB STD-B67), the two of ITU-R BT.2100."""
WIDE_PRIMARIES = ("bt2020", "smpte432")
"""BT.2020 and Display P3, seen in BT.709 as pale colours."""
_MATRIX_NUMBERS = {"bt709": 1, "fcc": 4, "bt470bg": 5, "smpte170m": 6, "smpte240m": 7}
_MATRIX_NUMBERS |= {"bt2020nc": 9}
_LIMITED, _FULL = 1, 2
_OPAQUE = {"rgba": "rgb0", "bgra": "bgr0", "argb": "0rgb", "abgr": "0bgr"}
"""Layouts of 32 bits with alpha -> those whose fourth byte is unused."""
NOT_CONVERTED = {
    8: "YCgCo",
    11: "YDzDx",
    12: "chromaticity-derived",
    13: "chromaticity-derived",
    14: "ICtCp",
    15: "IPT-C2",
    16: "YCgCo-R",
    17: "YCgCo-R",
}
"""AVColorSpace -> name of planes that libswscale takes for others."""


@dataclass(frozen=True, slots=True)
class Colour:
    """How frames are coded, no tag left out but those that change nothing."""

    matrix: str
    """Of luma and chroma, in libav's words, such as 'bt709'; 'gbr' where the planes are colours."""
    full_range: bool
    """Whether black is 0 and white the largest number; else 16 and 235 of 255."""
    transfer: str
    """In libav's words, such as 'smpte2084' (PQ); 'unspecified' is as BT.709."""
    primaries: str
    """Likewise, such as 'bt2020'; 'unspecified' are as BT.709."""

    @property
    def is_hdr(self) -> bool:
        """Whether numbers stand for more light than SDR's white."""
        return self.transfer in HDR_TRANSFERS

    @property
    def is_mapped(self) -> bool:
        """Whether pictures have to be brought to BT.709 SDR (`curation.media.tone`)."""
        return self.is_hdr or self.primaries in WIDE_PRIMARIES

    @property
    def text(self) -> str:
        """As the column `colour` has it."""
        scale = "full" if self.full_range else "limited"
        return f"{self.matrix}/{scale}/{self.transfer}/{self.primaries}"

    @classmethod
    def of_text(cls, text: str) -> Colour:
        """The inverse of `text`."""
        matrix, scale, transfer, primaries = text.split("/")
        return cls(matrix, scale == "full", transfer, primaries)


def colour_of(frame: VideoFrame) -> Colour:
    """How a decoded frame is coded: its tags, and the rule of the size where it has none.

    Raises:
        BadSource: 'colours', for planes that libswscale would take for others.
    """
    kind = frame.format
    if frame.colorspace in NOT_CONVERTED and not kind.is_rgb:
        raise BadSource("colours", f"coded as {NOT_CONVERTED[frame.colorspace]}")
    if kind.is_rgb:
        matrix, full_range = "gbr", True
    else:
        is_hd = frame.width >= HD_WIDTH or frame.height > SD_HEIGHT
        untagged = "bt709" if is_hd else "smpte170m"
        matrix = MATRICES.get(frame.colorspace, untagged)
        full_range = frame.color_range == _FULL or kind.name.startswith("yuvj")
    transfer = TRANSFERS.get(frame.color_trc, UNSPECIFIED)
    primaries = PRIMARIES.get(frame.color_primaries, UNSPECIFIED)
    if primaries == UNSPECIFIED and transfer in HDR_TRANSFERS:
        primaries = "bt2020"  # BT.2100 knows no other
    return Colour(matrix, full_range, transfer, primaries)


def layout_of(frame: VideoFrame) -> str:
    """How the pixels of a frame lie, in libav's words; opaque where its alpha says nothing.

    The fourth byte of a pixel of 32 bits is unused in most screen recordings, and 0: taken for
    alpha, nothing would be seen of them.
    """
    name = frame.format.name
    if name in _OPAQUE and not frame.to_ndarray(format="rgba")[..., 3].any():
        return _OPAQUE[name]
    return name


def is_see_through(layout: str) -> bool:
    """Whether pixels of a layout, in libav's words, can be seen through.

    A palette's cannot: films with one have none or zeros in the place of its alpha.
    """
    with_alpha = ("yuva", "rgba", "bgra", "argb", "abgr", "gbrap", "ya")
    return layout.startswith(with_alpha)


def tag(frame: VideoFrame, colour: Colour) -> None:
    """Write into a frame what `colour_of` made of it, so that libswscale converts it by that."""
    if colour.matrix != "gbr":
        frame.colorspace = _MATRIX_NUMBERS[colour.matrix]
        frame.color_range = _FULL if colour.full_range else _LIMITED
