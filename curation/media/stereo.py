"""Two views in one picture: films for two eyes that are packed into the pictures of one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from curation.errors import BadSource

if TYPE_CHECKING:
    from av import VideoFrame

PACKINGS = {
    1: "side by side",
    2: "one above the other",
    3: "in turn, picture by picture",
    4: "as a checkerboard",
    5: "side by side, as a quincunx",
    6: "line by line",
    7: "column by column",
}
"""libav's `AVStereo3DType`. 0 is one view; where a second one lies in a stream or layer of its own (8)
the pictures that come out are of one."""


def check_one_view(frame: VideoFrame) -> None:
    """Refuse a film whose stream or container says that its pictures hold two views.

    They are as wide or high as one with half the detail, and whatever is measured or learned of them
    is of no scene that anyone saw.

    Raises:
        BadSource: 'stereo_3d'.
    """
    stated = _stereo_data(frame)
    if stated is None:
        return
    packing = int.from_bytes(bytes(stated)[:4], sys.byteorder)
    if packing in PACKINGS:
        raise BadSource("stereo_3d", f"two views in one picture, {PACKINGS[packing]}")


def _stereo_data(frame: VideoFrame) -> Any:
    """What a frame says of its views; None where it says nothing.

    PyAV 18.1 gives none of a frame's side data where it has no name for one of them: EXIF of stills,
    and the views of MV-HEVC, of which only one comes out.
    """
    try:
        return frame.side_data.get("STEREO3D")
    except ValueError:
        return None
