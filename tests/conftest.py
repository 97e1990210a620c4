"""What several test files share: small films, a corpus of them, and an object store on loopback.

Films are textures that move, not flat colours: a codec, a cut detector and optical flow all see
what they would see in a real one. The same arguments give the same frames.

Use the fixtures: nothing below tests/ can be imported (another package of that name is installed).
"""

from __future__ import annotations

import json
import subprocess
import urllib.request
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageColor

Frames = NDArray[np.uint8]
Scene = tuple[str, int] | tuple[str, int, int]

SCENE_FRAMES = 54  # of the small corpus: 2.25 s at 24 frames a second
LOOKS = ("red", "teal", "gold", "navy", "olive")


def texture_HWC(look: str, size: tuple[int, int]) -> Frames:
    """A seeded cloud of coarse and fine structure in one tint, uint8 RGB ``[H, W, 3]``.

    Args:
        look: a colour of PIL ('red', 'teal', '#203040'), optionally with '/' and any word after it
            for another texture of the same tint: 'red', 'red/2'. 'black' is black everywhere.
        size: width and height in pixels.
    """
    width, height = size
    generator = np.random.default_rng(zlib.crc32(look.encode()))
    cloud_HW = np.zeros((height, width), np.float32)
    for cells, weight in ((4, 0.5), (16, 0.3), (48, 0.2)):
        grid = generator.integers(0, 256, (max(2, cells * 9 // 16), cells), dtype=np.uint8)
        layer = Image.fromarray(grid).resize(size, Image.Resampling.BICUBIC)
        cloud_HW += weight * np.asarray(layer, np.float32) / 255
    tint = np.array(ImageColor.getrgb(look.split("/")[0])[:3], np.float32)
    return (tint * (0.15 + 0.85 * cloud_HW[..., None])).clip(0, 255).astype(np.uint8)


def moving_frames(
    look: str, num_frames: int, *, size: tuple[int, int] = (320, 180), speed_px: int = 2
) -> Iterator[Frames]:
    """Frames of one scene: the texture of ``look`` moved right by ``speed_px`` each frame."""
    base_HWC = texture_HWC(look, size)
    for index in range(num_frames):
        yield np.roll(base_HWC, index * speed_px, axis=1)


def film_frames(scenes: Iterable[Scene], *, size: tuple[int, int] = (320, 180)) -> Iterator[Frames]:
    """Frames of scenes ``(look, num_frames[, speed_px])`` with hard cuts between them."""
    for look, num_frames, *speed in scenes:
        yield from moving_frames(look, num_frames, size=size, speed_px=speed[0] if speed else 2)


def write_video(  # noqa: PLR0913 - one argument for each thing that films differ in
    path: Path,
    frames: Iterable[Frames],
    *,
    fps: Fraction | int = 24,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    pixel_format: str = "yuv420p",
    times_s: Sequence[float] | None = None,
    sample_aspect: Fraction | None = None,
    audio: bool = False,
    container_format: str | None = None,
) -> Path:
    """Encode RGB frames ``[H, W, 3]`` with PyAV; the container follows the suffix of ``path``.

    Args:
        path: file to write.
        frames: uint8 RGB, all of one size.
        fps: frame rate; also the rate that the stream states when ``times_s`` is given.
        codec: any encoder of PyAV: libx264 (B-frames on unless options say bf=0), mpeg4,
            mpeg2video, libvpx-vp9, mjpeg, ...
        options: of the encoder; for libx264 the default is veryfast, one thread.
        pixel_format: of the encoder.
        times_s: start of each frame, for variable frame rates; must rise.
        sample_aspect: width of a pixel through its height.
        audio: adds a second of silence.
        container_format: of libav, where the suffix does not say it.
    """
    import av

    chosen = options or ({"preset": "veryfast", "threads": "1"} if codec == "libx264" else {})
    tick = Fraction(1, 90_000)
    with av.open(str(path), "w", format=container_format) as output:
        stream = None
        sound = output.add_stream("aac", rate=16_000, layout="mono") if audio else None
        for index, frame_HWC in enumerate(frames):
            if stream is None:
                stream = output.add_stream(codec, rate=Fraction(fps), options=chosen)
                stream.height, stream.width = frame_HWC.shape[:2]
                stream.pix_fmt = pixel_format
                stream.thread_count = 1
                if sample_aspect is not None:
                    stream.codec_context.sample_aspect_ratio = sample_aspect
                if times_s is not None:
                    stream.codec_context.time_base = tick
            frame = av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")
            frame.pts = index if times_s is None else round(times_s[index] / tick)
            frame.time_base = 1 / Fraction(fps) if times_s is None else tick
            output.mux(stream.encode(frame))
        if stream is not None:
            output.mux(stream.encode())
        if sound is not None:
            silence = av.AudioFrame.from_ndarray(
                np.zeros((1, 16_000), np.float32), format="fltp", layout="mono"
            )
            silence.sample_rate = 16_000
            silence.pts = 0
            output.mux(sound.encode(silence))
            output.mux(sound.encode())
    return path


@pytest.fixture(scope="session")
def make_video() -> Callable[..., Path]:
    """``make_video(path, scenes=[("red", 48), ("teal", 48, 5)], size=(320, 180), fps=24, ...)``.

    A scene is look, number of frames and, if not 2, speed in pixels a frame; the other arguments
    are `write_video`'s. Hard cuts lie at the running sums of the frame counts.
    """

    def make(
        path: Path,
        scenes: Iterable[Scene] = (("red", 48), ("teal", 48)),
        *,
        size: tuple[int, int] = (320, 180),
        **arguments: object,
    ) -> Path:
        return write_video(path, film_frames(scenes, size=size), **arguments)  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def encode_video() -> Callable[..., Path]:
    """`write_video`: ``encode_video(path, frames, fps=, codec=, times_s=, ...)`` for own frames."""
    return write_video


@pytest.fixture(scope="session")
def scene_frames() -> Callable[..., Iterator[Frames]]:
    """`moving_frames`: ``scene_frames(look, num_frames, size=, speed_px=)``, to fade or mix."""
    return moving_frames


@pytest.fixture(scope="session")
def texture() -> Callable[[str, tuple[int, int]], Frames]:
    """`texture_HWC`: ``texture(look, size)`` as one picture ``[H, W, 3]``."""
    return texture_HWC


@pytest.fixture(scope="session")
def ffmpeg_exe() -> str:
    """Path of the ffmpeg program that imageio-ffmpeg ships."""
    import imageio_ffmpeg

    return imageio_ffmpeg.get_ffmpeg_exe()


@pytest.fixture(scope="session")
def run_ffmpeg(ffmpeg_exe: str) -> Callable[..., None]:
    """``run_ffmpeg("-f", "lavfi", "-i", "testsrc2=d=2", path)``: overwrites, raises on error."""

    def run(*arguments: str | Path) -> None:
        command = [ffmpeg_exe, "-nostdin", "-v", "error", "-y", *map(str, arguments)]
        subprocess.run(command, check=True, timeout=120)

    return run


@pytest.fixture(scope="session")
def rotated(run_ffmpeg: Callable[..., None]) -> Callable[[Path, Path, int], Path]:
    """``rotated(source, target, 90)``: the same stream, with a turn clockwise that players obey."""

    def rotate(source: Path, target: Path, clockwise_deg: int) -> Path:
        run_ffmpeg("-display_rotation", str(-clockwise_deg), "-i", source, "-c", "copy", target)
        return target

    return rotate


@pytest.fixture(scope="session")
def make_corpus(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``make_corpus({"film.mp4": "its caption", ...}, folder)``: an exported corpus of the files.

    All steps of `lavie curate --preset tiny`, in this process: Ray takes longer to start than this.
    A caption of None is none. ``name`` is that of the selection.
    """

    def make(captions: dict[str, str | None], folder: Path, *, name: str = "default") -> Path:
        from curation.corpus import layout
        from curation.corpus.ledger import Ledger
        from curation.corpus.manifest import CorpusInfo
        from curation.corpus.store import Store
        from curation.export import ExportConfig, ShardWriter, finish_shards, plan_shards
        from curation.select import select
        from curation.sources import list_sources
        from pipelines import corpus as corpora
        from pipelines import curate
        from pipelines.jobs import DecodeJob, StationJob
        from pipelines.presets import tiny

        sources = folder / "sources.jsonl"
        rows = [
            {"uri": file} | ({} if caption is None else {"caption": caption})
            for file, caption in captions.items()
        ]
        sources.write_text("\n".join(json.dumps(row) for row in rows))
        root = tmp_path_factory.mktemp("corpus")
        store, config = Store(str(root)), tiny()
        river = curate.configure(config.river)
        dealing = corpora.deal_sources(
            Ledger(store), list_sources([str(sources)]), sources_per_part=4
        )
        dealing.write(Ledger(store))
        num_parts = dealing.num_parts
        info = CorpusInfo(
            num_parts=num_parts,
            layers=river.layers,
            settings=asdict(config.river),
            preset="tiny",
        )
        info.write(store)
        ledger = Ledger(store)
        ledger.reconcile(layout.SOURCES, num_parts)
        jobs = [DecodeJob(store, river.decoding, river.layers)]
        jobs += [StationJob(store, station, river.layers) for station in river.stations]
        for job in jobs:
            job.setup()
            for part in range(num_parts):
                ledger.record(job.run(part).commits)
            job.close()
        ledger.compact()
        select(store, info, name, config.select)
        export = ExportConfig(x264_preset="ultrafast", max_clips_per_shard=4)
        plans = list(plan_shards(store, info, name, export))
        writer = ShardWriter(store, info, name, export)
        writer.setup()
        for plan in plans:
            writer(plan)
        writer.close()
        finish_shards(store, name)
        return root

    return make


@pytest.fixture(scope="session")
def small_media(
    tmp_path_factory: pytest.TempPathFactory,
    make_video: Callable[..., Path],
) -> Path:
    """Folder with six wide and two tall films of five and four scenes, and eight pictures."""
    folder = tmp_path_factory.mktemp("media")
    options = {"preset": "ultrafast", "threads": "1"}
    for number in range(6):
        scenes = [(f"{look}/{number}", SCENE_FRAMES) for look in LOOKS]
        make_video(folder / f"wide-{number}.mp4", scenes, size=(128, 72), options=options)
    for number in range(2):
        scenes = [(f"{look}/tall {number}", SCENE_FRAMES) for look in LOOKS[:4]]
        make_video(folder / f"tall-{number}.mp4", scenes, size=(96, 128), options=options)
    for number in range(8):
        picture = texture_HWC(f"{LOOKS[number % 5]}/picture {number}", (160, 120))
        Image.fromarray(picture).save(folder / f"picture-{number}.jpg", quality=90)
    return folder


@pytest.fixture(scope="session")
def small_corpus(small_media: Path, make_corpus: Callable[..., Path]) -> Path:
    """Path of an exported corpus: 30 wide and 8 tall clips of 2.25 s, 24 frames a second, and 8 images.

    All have captions; shards hold 4 clips. Tests only read it.
    """
    names = sorted(path.name for path in small_media.iterdir())
    captions = {name: f"what {name.split('.')[0]} shows" for name in names}
    return make_corpus(captions, small_media)


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """Address of a real S3 server (moto) on loopback, such as 'http://127.0.0.1:43339'."""
    import logging

    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_bucket(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A fresh bucket as 's3://name'; the environment names the server, as a user's would."""
    for name, value in {
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_ACCESS_KEY_ID": "test-key",
        "AWS_SECRET_ACCESS_KEY": "test-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    bucket = f"bucket-{uuid.uuid4().hex[:12]}"
    request = urllib.request.Request(f"{s3_endpoint}/{bucket}", method="PUT")
    urllib.request.urlopen(request, timeout=10).close()
    return f"s3://{bucket}"


@pytest.fixture(scope="session")
def tiny_clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of open_clip's real class, 32 px and 2 layers, random weights, as a model folder."""
    from curation.weights.torchvision_shim import ensure_torchvision

    ensure_torchvision()
    import open_clip
    import torch
    from safetensors.torch import save_file

    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
        "text_cfg": {
            "context_length": 77,
            "vocab_size": 49408,
            "width": 16,
            "heads": 2,
            "layers": 2,
        },
    }
    preprocess = {
        "size": 32,
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.3, 0.4],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    folder = tmp_path_factory.mktemp("models") / "tiny-clip"
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": preprocess})
    )
    torch.manual_seed(0)
    model = open_clip.CLIP(**config)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 64 KiB; needs the right to mount."""
    folder = tmp_path / "small-disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no right to mount a small file system: {error}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)
