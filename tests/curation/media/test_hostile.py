"""Hostile and broken sources through the real way in: fetched, gate, guard, decoding pass.

Each is made on the spot. For every one there is a row with the right reason, the good source beside
them is decoded all the same, and nothing outlives the run.
"""

from __future__ import annotations

import os
import struct
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.fs as pafs
import pytest

from curation.corpus.schema import SOURCES, schema
from curation.decode.decoding_pass import DecodeConfig, DecodingPass
from curation.errors import REJECT_REASONS
from curation.media.probe import Limits
from curation.sources import list_sources

MEMORY_BYTES = 1024**3


@pytest.fixture
def decoding() -> Iterator[DecodingPass]:
    limits = Limits(max_bytes=20 * 1024**2, timeout_s=10, memory_bytes=MEMORY_BYTES)
    decoding = DecodingPass(DecodeConfig(limits=limits))
    decoding.setup()
    yield decoding
    decoding.close()


def verdicts(decoding: DecodingPass, *uris: str | Path) -> list[str | None]:
    sources = pa.Table.from_pylist([{"uri": str(uri)} for uri in uris], schema=schema(SOURCES))
    answer = decoding(sources)
    probe = answer["probe"]
    assert probe.num_rows == len(uris)  # nothing disappears
    for row in probe.to_pylist():
        assert (row["source_reject"] is None) == (row["num_scenes"] > 0)
        assert row["source_reject"] in {None, *REJECT_REASONS}
    return probe["source_reject"].to_pylist()


def png(width: int, height: int) -> bytes:
    """A black picture of one bit a pixel: small as a file, large as a frame."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((1 + (width + 7) // 8) * height), 1)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


@pytest.fixture
def hostile(tmp_path: Path, make_video: Callable[..., Path]) -> dict[Path, str | None]:
    """Files that must not be trusted, each with the reason it must get; None for good ones."""
    folder = tmp_path / "films"
    folder.mkdir()
    good = make_video(folder / "good.mp4", [("red", 48)], size=(160, 96), fps=24)
    data = good.read_bytes()
    secret = make_video(tmp_path / "secret.ts", [("blue", 48)], codec="mpeg2video")
    hls = f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{secret}\n#EXT-X-ENDLIST\n".encode()
    written: dict[str, tuple[bytes, str | None]] = {
        "empty.mp4": (b"", "empty"),
        "text.mp4": (b"just a text\n" * 100, "unknown_format"),
        "zeros.mp4": (bytes(10_000), "unknown_format"),
        "no_index.mp4": (data[: data.rindex(b"moov") - 4], "truncated"),
        "cut.mp4": (data[: len(data) // 2], "truncated"),
        "one_byte.mp4": (data[:1], "unknown_format"),
        "only_type.mp4": (data[: int.from_bytes(data[:4], "big")], "truncated"),
        "noise_inside.mp4": (
            data[:40] + np.random.default_rng(0).bytes(len(data) - 40),
            "truncated",
        ),
        "endless_box.mp4": (data[:32] + b"\x00\x00\x00\x04mdat" + data[40:], "undecodable"),
        "hls.mp4": (hls, "playlist"),
        "hls.m3u8": (hls, "playlist"),
        "self.mp4": (f"#EXTM3U\n#EXTINF:1,\n{folder}/self.mp4\n".encode(), "playlist"),
        "concat.mp4": (f"ffconcat version 1.0\nfile {secret}\n".encode(), "playlist"),
        "large.mp4": (data + b"\x00\x00\x00\x08free" * (20 * 1024**2 // 8), "too_large"),
        "pixels.png": (png(16_000, 16_000), "too_many_pixels"),
        "side.png": (png(8193, 1), "too_many_pixels"),
    }
    found = {good: None}
    for name, (content, reason) in written.items():
        (folder / name).write_bytes(content)
        found[folder / name] = reason
    found |= special_files(folder, secret)
    return found


def special_files(folder: Path, secret: Path) -> dict[Path, str | None]:
    """What is not a regular file."""
    (folder / "link.mp4").symlink_to(secret)
    (folder / "dangling.mp4").symlink_to(folder / "nowhere")
    os.mkfifo(folder / "fifo.mp4")
    (folder / "folder.mp4").mkdir()
    names = ("link.mp4", "dangling.mp4", "fifo.mp4", "folder.mp4")
    return dict.fromkeys((folder / name for name in names), "not_regular") | {
        Path("/dev/zero"): "not_regular",
        folder / "gone.mp4": "not_found",
    }


def test_each_hostile_source_becomes_a_row_with_its_reason(decoding, hostile):
    found = verdicts(decoding, *hostile)
    assert dict(zip(hostile, found, strict=True)) == hostile


def test_a_folder_of_them_is_listed_whole_and_the_good_one_survives(decoding, hostile, tmp_path):
    listed = list_sources([str(tmp_path / "films")])
    named = {str(path) for path in hostile if path.suffix in (".mp4", ".png")}
    absent = {str(tmp_path / "films/folder.mp4"), str(tmp_path / "films/gone.mp4")}
    assert set(listed["uri"].to_pylist()) == named - absent
    reasons = decoding(listed)["probe"]["source_reject"].to_pylist()
    assert reasons.count(None) == 1


def test_a_playlist_in_an_object_store_is_refused_too(decoding, s3_bucket, make_video, tmp_path):
    film = make_video(tmp_path / "a.mp4", [("red", 48)], size=(160, 96)).read_bytes()
    secret = make_video(tmp_path / "secret.ts", [("red", 48)], codec="mpeg2video")
    hls = f"#EXTM3U\n#EXTINF:2,\n{secret}\n#EXT-X-ENDLIST\n".encode()
    filesystem, root = pafs.FileSystem.from_uri(s3_bucket)
    for name, data in {"film.mp4": film, "list.mp4": hls, "nothing.mp4": b""}.items():
        with filesystem.open_output_stream(f"{root}/{name}") as stream:
            stream.write(data)
    listed = list_sources([s3_bucket])["uri"].to_pylist()
    assert verdicts(decoding, *listed, f"{s3_bucket}/gone.mp4") == [
        None,
        "playlist",
        "empty",
        "not_found",
    ]


def test_a_name_that_is_not_utf_8_is_decoded(decoding, make_video, tmp_path):
    film = make_video(tmp_path / "a.mp4", [("red", 48)], size=(160, 96))
    os.rename(film, os.fsencode(tmp_path) + b"/caf\xe9 -i %d.mp4")
    assert verdicts(decoding, *list_sources([str(tmp_path)])["uri"].to_pylist()) == [None]


def test_a_film_that_grows_beyond_the_limit_in_the_middle_is_refused(
    decoding, make_video, tmp_path
):
    small = make_video(tmp_path / "s.ts", [("red", 12)], size=(160, 96), codec="mpeg2video")
    large = make_video(tmp_path / "l.ts", [("red", 2)], size=(640, 480), codec="mpeg2video")
    (tmp_path / "both.ts").write_bytes(small.read_bytes() + large.read_bytes())
    decoding.close()
    strict = DecodingPass(DecodeConfig(limits=Limits(max_side=320)))
    strict.setup()
    assert verdicts(strict, tmp_path / "both.ts") == ["too_many_pixels"]
    strict.close()


def test_damaged_films_never_cost_the_worker(decoding, make_video, tmp_path):
    """Flipped and lost bytes, seeded: each film is decoded or has a reason, and none hangs."""
    generator = np.random.default_rng(2309_15103)
    paths = []
    encoders = {
        "a.mp4": "libx264",
        "a.mkv": "mpeg4",
        "a.ts": "mpeg2video",
        "a.webm": "libvpx-vp9",
        "a.flv": "flv",
        "a.wmv": "wmv2",  # its demuxer answers damage with -1, which reads as 'not permitted'
    }
    for name, codec in encoders.items():
        film = make_video(
            tmp_path / name, [("red", 16)], size=(96, 64), codec=codec, options={"threads": "1"}
        )
        data = film.read_bytes()
        for number in range(16):
            damaged = bytearray(data)
            for place in generator.integers(0, len(data), 1 + number * 4):
                damaged[place] ^= 1 << int(generator.integers(8))
            if number % 3 == 0:
                start = int(generator.integers(len(data) // 2))
                del damaged[start : start + 188]
            paths.append(tmp_path / f"{number}_{name}")
            paths[-1].write_bytes(damaged)
    found = verdicts(decoding, *paths)
    assert len(found) == 96
    assert not {"decoder_died", "too_slow", "playlist"} & set(found)


@pytest.fixture
def children_of_others() -> set[psutil.Process]:
    """Processes that other tests of this worker left to live, such as servers of data loaders."""
    return set(psutil.Process().children())


def test_a_hundred_more_sources_do_not_make_the_child_grow(
    children_of_others, decoding, make_video, tmp_path
):
    film = make_video(tmp_path / "a.mp4", [("red", 48)], size=(96, 64))
    image = tmp_path / "b.png"
    image.write_bytes(png(64, 64))
    bad = tmp_path / "c.mp4"
    bad.write_bytes(film.read_bytes()[:-100])

    def child_bytes() -> int:
        (child,) = set(psutil.Process().children()) - children_of_others
        return int(child.memory_info().rss)

    verdicts(decoding, *[film, image, bad] * 10)
    before = child_bytes()
    verdicts(decoding, *[film, image, bad] * 33)
    assert child_bytes() - before < 20 * 1024**2


def test_nothing_outlives_a_run(children_of_others, decoding, hostile, tmp_path):
    threads_before = threading.active_count()  # those of other tests in this process
    verdicts(decoding, *hostile)
    decoding.close()
    assert set(psutil.Process().children()) <= children_of_others
    assert threading.active_count() <= threads_before
    assert len(os.listdir("/proc/self/fd")) < 256 if sys.platform == "linux" else True
    assert not list(tmp_path.rglob(".fetching-*"))
