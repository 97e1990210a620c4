"""Station `overlay_text`: how much of the picture lies under text, and whether the text was laid over it.

Titles, subtitles and credits teach a video model to draw letters; published recipes drop clips with more
than 2 % to 7 % of text (Goku, UltraVideo, Stable Video Diffusion). A sign in the street is part of what the
clip shows. So text is found in every keyframe, read, and followed from keyframe to keyframe:

    settings     what can be set
    finding      where a picture may hold lines of text: PP-OCR's detector
    reading      what such a line says and how surely: PP-OCR's recogniser; what reads as nothing is no text
    following    the same line in other keyframes: it stands still, rolls, or goes with the scene
    station      the columns

What was measured, and on what: docs/verdicts.md.
"""

from curation.stations.overlay_text.settings import OverlayTextConfig
from curation.stations.overlay_text.station import OverlayText

__all__ = ["OverlayText", "OverlayTextConfig"]
