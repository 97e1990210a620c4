"""HDR to SDR against the formulas, and against zscale, which has formulas of its own."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest

from curation.media.colour import Colour
from curation.media.tone import SIGNAL_WHITE, TO_709, cube, pq_nits, pq_signal, rolled_off, to_sdr

PQ = Colour("bt2020nc", False, "smpte2084", "bt2020")
HLG = Colour("bt2020nc", False, "arib-std-b67", "bt2020")
SDR_TO_HDR = {
    "smpte2084": "zscale=pin=709:tin=709:min=gbr:p=2020:t=smpte2084:m=gbr:r=full:npl=203",
    "arib-std-b67": "zscale=pin=709:tin=709:min=gbr:p=2020:t=arib-std-b67:m=gbr:r=full:npl=203",
}


def signal(values: object) -> np.ndarray:
    return np.rint(np.asarray(values) * SIGNAL_WHITE).astype(np.uint16)


def grey(values: np.ndarray) -> np.ndarray:
    return signal(np.repeat(np.asarray(values)[:, None], 3, axis=1))


def hlg_oetf(scene: np.ndarray) -> np.ndarray:
    """BT.2100, table 5."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    log = a * np.log(np.maximum(12 * scene - b, 1e-9)) + c
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), log)


def test_pq_has_the_values_that_the_standards_print():
    # BT.2408 table 1: reference white 203 cd/m2 is 58 % PQ; ST 2084: 1 is 10,000 cd/m2
    assert pq_nits(np.array([0.0, 1.0])) == pytest.approx([0, 10_000])
    assert pq_signal(np.array([203.0, 100.0])) == pytest.approx([0.58, 0.508], abs=1e-3)


def test_a_grey_of_sdr_inside_pq_comes_back():
    codes = np.array([16, 40, 64, 100, 128, 150, 180])
    nits = 203 * (codes / 255) ** 2.4  # BT.1886 with its white at 203 cd/m2
    back = to_sdr(grey(pq_signal(nits)), PQ) * 255
    assert np.abs(back - codes[:, None]).max() < 0.1


def test_a_grey_of_sdr_inside_hlg_comes_back():
    codes = np.array([16, 40, 64, 100, 128, 150, 180])
    nits = 203 * (codes / 255) ** 2.4
    scene = (nits / 1000) ** (1 / 1.2)  # BT.2100: the inverse OOTF of grey
    back = to_sdr(grey(hlg_oetf(scene)), HLG) * 255
    assert np.abs(back - codes[:, None]).max() < 0.2


def test_reference_white_is_the_same_in_pq_and_hlg_and_highlights_have_room_above_it():
    # BT.2408: 58 % PQ and 75 % HLG are one white; the EETF leaves it a tenth below SDR's
    white = [to_sdr(grey(pq_signal(np.array([203.0]))), PQ), to_sdr(grey(np.array([0.75])), HLG)]
    assert white[0] == pytest.approx(white[1], abs=0.01)
    assert 0.85 < white[0].min() < 0.93
    rising = to_sdr(grey(pq_signal(np.array([203.0, 400, 1000, 4000]))), PQ)[:, 0]
    assert np.all(np.diff(rising[:3]) > 0.005)
    assert rising[2:] == pytest.approx([1, 1], abs=1e-3)


def test_the_roll_off_of_bt2390_is_smooth_and_changes_nothing_below_its_knee():
    nits = np.linspace(0.1, 1000, 20_000)
    rolled = rolled_off(nits)
    assert rolled[nits < 87] == pytest.approx(nits[nits < 87], rel=1e-9)
    slope = np.diff(rolled) / np.diff(nits)
    assert slope.min() > -1e-9
    assert np.abs(np.diff(slope)).max() < 1e-3


def test_primaries_are_converted_by_their_chromaticities():
    chromaticities = {
        "bt709": ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06)),
        "bt2020": ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
        "smpte432": ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    }

    def to_xyz(name: str) -> np.ndarray:
        columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in chromaticities[name]]).T
        white = np.array([0.3127 / 0.3290, 1, (1 - 0.3127 - 0.3290) / 0.3290])
        return columns * np.linalg.solve(columns, white)

    for name, matrix in TO_709.items():
        expected = np.linalg.inv(to_xyz("bt709")) @ to_xyz(name)
        assert np.array(matrix) == pytest.approx(expected, abs=2e-4)


def test_colours_inside_hlg_come_back():
    codes = np.random.default_rng(4).integers(10, 175, (64, 3))
    light = 203 * (codes / 255) ** 2.4 @ np.linalg.inv(TO_709["bt2020"]).T / 1000
    luminance = light @ (0.2627, 0.6780, 0.0593)
    scene = light * luminance[:, None] ** ((1 - 1.2) / 1.2)
    back = to_sdr(signal(hlg_oetf(scene)), HLG) * 255
    assert np.abs(back - codes).max() < 1


@pytest.mark.parametrize("colour", [PQ, HLG], ids=["pq", "hlg"])
def test_what_zscale_put_into_hdr_comes_back(colour, ffmpeg_exe):
    picture = np.random.default_rng(3).integers(10, 175, (16, 16, 3), dtype=np.uint8)
    if colour is HLG:  # zscale's OOTF takes each primary for itself: the same for greys only
        picture = np.ascontiguousarray(np.repeat(picture[..., :1], 3, axis=2))
    command = [ffmpeg_exe, "-v", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "16x16"]
    command += ["-i", "-", "-vf", f"format=gbrp,{SDR_TO_HDR[colour.transfer]},format=gbrp16le"]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb48le", "-"]
    made = subprocess.run(command, input=picture.tobytes(), check=True, capture_output=True)
    hdr = np.frombuffer(made.stdout, "<u2").reshape(16, 16, 3)
    back = to_sdr(signal(hdr / 65535), colour) * 255
    assert np.abs(back - picture).max() < 3


def test_what_bt709_cannot_show_loses_saturation_not_its_luminance():
    light = np.array([[0.0, 0.3, 0.05], [0.2, 0.02, 0.0]])  # BT.2020, in whites
    mapped = to_sdr(signal(pq_signal(light * 203)), PQ).astype(float) ** 2.4
    expected = light @ np.array(TO_709["bt2020"]).T @ (0.2126, 0.7152, 0.0722)
    assert mapped @ (0.2126, 0.7152, 0.0722) == pytest.approx(expected, rel=0.01)
    assert mapped.min() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("colour", [PQ, HLG], ids=["pq", "hlg"])
def test_the_table_is_the_mapping_at_its_nodes(colour):
    first, *rows = cube(colour).splitlines()
    assert first == "LUT_3D_SIZE 65"
    assert len(rows) == 65**3
    for red, green, blue in ((0, 0, 0), (20, 30, 40), (64, 64, 64), (40, 0, 10)):
        node = np.array(rows[red + 65 * (green + 65 * blue)].split(), float)
        steps = np.rint(np.array([[red, green, blue]]) / 64 * 65535).astype(np.uint16)
        expected = to_sdr(steps, colour)[0]
        assert node == pytest.approx(expected, abs=1e-4)
