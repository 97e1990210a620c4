"""From high dynamic range and wide primaries to BT.709 SDR: the one mapping, as numbers and as a table.

Light is counted in SDR whites, and one white is 203 cd/m2 (ITU-R BT.2408, table 1): what was graded
as SDR and sits inside an HDR film comes back as it was. Highlights are rolled off by the EETF of
ITU-R BT.2390 from 1,000 cd/m2 (the peak of HLG and of most PQ masters; more is clipped) to one
white: it changes nothing below 87 cd/m2, 70 % of SDR's code values. It acts on the largest of R, G
and B, so hues stay. Colours outside BT.709 lose saturation, at the same luminance, until they fit.
SDR is encoded for the display of BT.1886, gamma 2.4.

`to_sdr` maps small pictures; `cube` is the same mapping for ffmpeg's filter `lut3d`.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from curation.media.colour import Colour

WHITE_NITS = 203.0
"""HDR reference white in cd/m2 (BT.2408)."""
PEAK_NITS = 1000.0
"""Brightest light that is told from white, in cd/m2."""
SDR_GAMMA = 2.4
"""Of the reference display (BT.1886)."""
CUBE_SIDE = 65
"""Nodes along each side of the table; between them ffmpeg interpolates in tetrahedra."""
SIGNAL_WHITE = 255 * 256
"""What libswscale makes of white when it converts luma and chroma to RGB of 16 bits, of any
version and by any flags; taken for 65535 it would cost PQ a fiftieth of its light."""
M1, M2 = 2610 / 16384, 2523 / 4096 * 128
C1, C2, C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
"""Of SMPTE ST 2084, equations 4.1 to 5.2."""
HLG_A, HLG_B, HLG_C = 0.17883277, 0.28466892, 0.55991073
HLG_SYSTEM_GAMMA = 1.2
"""Of ITU-R BT.2100, table 5, for a display of 1,000 cd/m2."""
LUMA_2020 = np.array([0.2627, 0.6780, 0.0593], np.float32)
LUMA_709 = np.array([0.2126, 0.7152, 0.0722], np.float32)
TO_709 = {
    "bt2020": ((1.6605, -0.5876, -0.0728), (-0.1246, 1.1329, -0.0083), (-0.0182, -0.1006, 1.1187)),
    "smpte432": ((1.2249, -0.2249, 0.0), (-0.0421, 1.0421, 0.0), (-0.0196, -0.0786, 1.0983)),
}
"""Linear light in these primaries -> in BT.709's (ITU-R BT.2407; SMPTE RP 431-2 by the same way)."""
_CURVE_NODES = 16384


def pq_nits(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Light in cd/m2 that a PQ signal of 0..1 stands for (ST 2084)."""
    root = np.power(np.clip(signal, 0, 1), 1 / M2)
    return 10_000 * np.power(np.maximum(root - C1, 0) / (C2 - C3 * root), 1 / M1)


def pq_signal(nits: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse of `pq_nits`."""
    power = np.power(np.maximum(nits, 0) / 10_000, M1)
    return np.power((C1 + C2 * power) / (1 + C3 * power), M2)


def hlg_scene(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Light of the scene, 0..1, that an HLG signal of 0..1 stands for (BT.2100)."""
    dark = signal**2 / 3
    return np.where(signal <= 0.5, dark, (np.exp((signal - HLG_C) / HLG_A) + HLG_B) / 12)


def rolled_off(nits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Light in cd/m2 after the EETF of BT.2390 from `PEAK_NITS` to `WHITE_NITS`."""
    peak, white = pq_signal(np.array([PEAK_NITS, WHITE_NITS]))
    level, most = np.minimum(pq_signal(nits) / peak, 1), white / peak
    knee = 1.5 * most - 0.5
    t = (level - knee) / (1 - knee)
    spline = (
        (2 * t**3 - 3 * t**2 + 1) * knee
        + (t**3 - 2 * t**2 + t) * (1 - knee)
        + (-2 * t**3 + 3 * t**2) * most
    )
    return pq_nits(np.where(level < knee, level, spline) * peak)


@functools.cache
def _linear(transfer: str) -> NDArray[np.float32]:
    """Light for each signal: in whites, or 0..1 of the scene for HLG."""
    signal = np.minimum(np.arange(65536) / SIGNAL_WHITE, 1)
    if transfer == "smpte2084":
        return (pq_nits(signal) / WHITE_NITS).astype(np.float32)
    if transfer == "arib-std-b67":
        return hlg_scene(signal).astype(np.float32)
    return (signal**SDR_GAMMA).astype(np.float32)


@functools.cache
def _gains() -> NDArray[np.float32]:
    """What `rolled_off` multiplies light by, at even steps up to `PEAK_NITS`."""
    nits = np.linspace(0, PEAK_NITS, _CURVE_NODES)
    nits[0] = nits[1]
    return (rolled_off(nits) / nits).astype(np.float32)


def to_sdr(signal_NC: NDArray[np.uint16], colour: Colour) -> NDArray[np.float32]:
    """RGB of any kind as BT.709 SDR.

    Args:
        signal_NC: R'G'B' in the last axis, 0 to `SIGNAL_WHITE`.
        colour: says transfer and primaries.

    Returns:
        R'G'B' in BT.709, 0..1, of the same shape.
    """
    # One plane a colour: numpy is ten times slower along an axis of three numbers.
    planes_CN = np.ascontiguousarray(signal_NC.reshape(-1, 3).T)
    light_CN = np.take(_linear(colour.transfer), planes_CN)
    if colour.transfer == "arib-std-b67":
        scene_N = np.maximum(LUMA_2020 @ light_CN, np.float32(1e-9))
        light_CN *= scene_N ** np.float32(HLG_SYSTEM_GAMMA - 1) * (PEAK_NITS / WHITE_NITS)
    if colour.primaries in TO_709:
        light_CN = _inside(np.array(TO_709[colour.primaries], np.float32) @ light_CN)
    if colour.is_hdr:
        light_CN = np.minimum(light_CN, np.float32(PEAK_NITS / WHITE_NITS))
        steps = (_CURVE_NODES - 1) / (PEAK_NITS / WHITE_NITS)
        light_CN *= np.take(_gains(), (light_CN.max(axis=0) * steps + 0.5).astype(np.int32))
    mapped_CN = np.power(light_CN.clip(0, 1), np.float32(1 / SDR_GAMMA))
    return np.ascontiguousarray(mapped_CN.T).reshape(signal_NC.shape)


def _inside(light_CN: NDArray[np.float32]) -> NDArray[np.float32]:
    """Light without negative parts: mixed with grey of the same luminance until there are none."""
    grey_N = np.maximum(LUMA_709 @ light_CN, 0)
    least_N = np.minimum(light_CN.min(axis=0), 0)
    share_N = grey_N / np.maximum(grey_N - least_N, np.float32(1e-9))
    return grey_N + share_N * (light_CN - grey_N)


def to_sdr_8bit(picture_HWC: NDArray[np.uint16], colour: Colour) -> NDArray[np.uint8]:
    """`to_sdr` of a picture, uint8 RGB ``[H, W, 3]``."""
    return np.rint(to_sdr(picture_HWC, colour) * 255).astype(np.uint8)


@functools.cache
def cube(colour: Colour) -> str:
    """`to_sdr` as an IRIDAS table (.cube), red running fastest."""
    steps = np.rint(np.linspace(0, 65535, CUBE_SIDE)).astype(np.uint16)
    blue, green, red = np.meshgrid(steps, steps, steps, indexing="ij")
    mapped_NC = to_sdr(np.stack([red, green, blue], axis=-1).reshape(-1, 3), colour)
    lines = [f"LUT_3D_SIZE {CUBE_SIDE}", *(f"{r:.6f} {g:.6f} {b:.6f}" for r, g, b in mapped_NC)]
    return "\n".join(lines) + "\n"
