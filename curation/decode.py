"""The one decoding pass: a source is read once, and all that needs its frames is done on the way.

For each source of a part: what the container says (probe), where the scenes are, how they move and
look, and their keyframes. Later stations read the keyframes; only cutting opens the source again.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from curation.corpus.schema import layer_schema
from curation.errors import BadSource
from curation.probe import Probe, check_size, facts, open_regular, open_video, picture_stream
from curation.scenes import SceneConfig, TransitionFinder
from curation.station import Resources
from curation.video_pass import DecodeConfig, MeasuredScene, Shown, VideoPass
from curation.weights import TRANSNETV2, Weight, find

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

__all__ = ["DecodeConfig", "DecodingPass", "SourceRows", "decode_source", "make_finders"]

CLIP_NAMESPACE = uuid.UUID("7a2f4a0e-4f0b-5a53-9a2b-0c7d52f1c9aa")
"""Namespace of clip ids; any constant would do, and it must never change."""
LOWEST_FPS, HIGHEST_FPS = Fraction(1), Fraction(240)
"""Frame rates outside count as the nearer one where seconds become numbers of frames."""
UNSTATED_FPS = 25.0
"""Where the container states no rate; nothing but windows of the detectors depends on it."""

Finders = Callable[[Fraction], TransitionFinder]
"""Makes the finder of transitions for a video of the given frame rate."""


@dataclass(frozen=True, slots=True)
class SourceRows:
    """What one source becomes: its probe row and its rows in the two other layers."""

    probe: dict[str, Any]
    scenes: list[dict[str, Any]]
    keyframes: list[dict[str, Any]]


def make_finders(config: SceneConfig, *, threads: int) -> Finders:
    """Load what the chosen detector needs, once for many videos."""
    if config.detector == "transnet":
        import torch

        from curation.transnet import TransNetFinder, load_transnet

        torch.set_num_threads(threads)
        network = load_transnet(find(TRANSNETV2))
        return lambda fps: TransNetFinder(network, threshold=config.transnet_threshold)
    from curation.cuts import SceneDetectFinder

    return lambda fps: SceneDetectFinder(config, fps)


def decode_source(
    path: Path, sha256: str, config: DecodeConfig, make_finder: Finders
) -> SourceRows:
    """Decode one source from its first to its last frame and measure it.

    Run it in a `curation.guard` child: what it reads is untrusted.

    Args:
        path: a local file.
        sha256: digest of its bytes, from which clip ids are made.
        config: what to measure.
        make_finder: from `make_finders`.

    Raises:
        BadSource: the source cannot be used; nothing of it is.
    """
    import cv2

    cv2.setNumThreads(1)  # results must not depend on the machine, and workers share its cores
    with open_regular(path) as file, open_video(file, config.limits) as container:
        stream = picture_stream(container)
        frames = _frames(container, stream, config)
        first = next(frames, None)
        if first is None:
            raise BadSource("undecodable", "no frame comes out")
        probe = facts(container, stream, rotation_deg=-first.rotation % 360)
        shown = _shown(probe, Fraction(stream.time_base or 1))
        video = VideoPass(config, shown, make_finder(shown.fps))
        if probe.is_image:
            scenes = [video.still(first)]
        else:
            scenes = video.push(first)
            for frame in frames:
                scenes += video.push(frame)
            scenes += video.finish()
    return SourceRows(
        probe=_probe_row(probe, video, len(scenes)),
        scenes=[
            _scene_row(scene, place, sha256, shown, probe) for place, scene in enumerate(scenes)
        ],
        keyframes=[
            {
                "keyframes": [keyframe.data for keyframe in scene.keyframes],
                "keyframe_s": [keyframe.time_s for keyframe in scene.keyframes],
            }
            for scene in scenes
        ],
    )


def _frames(
    container: InputContainer, stream: VideoStream, config: DecodeConfig
) -> Iterator[VideoFrame]:
    """Every frame of the stream in the order in which it is shown, within the limits."""
    import av

    context, limits = stream.codec_context, config.limits
    context.thread_type, context.thread_count = "FRAME", config.threads
    if config.skip_loop_filter != "none":
        context.options = {**context.options, "skip_loop_filter": config.skip_loop_filter}
    size: tuple[int, int] | None = None
    try:
        for index, frame in enumerate(container.decode(stream)):
            if (frame.width, frame.height) != size:
                size = frame.width, frame.height
                check_size(*size, limits)
            if index >= limits.max_frames:
                raise BadSource("too_long", f"more than {limits.max_frames} frames")
            if index and frame.time is not None and frame.time > limits.max_duration_s * 2:
                raise BadSource("too_long", f"a frame at {frame.time:.0f} s")
            yield frame
    except MemoryError:
        raise  # libav's is one of its own errors too; the guard tells what it means
    except PermissionError as error:
        raise BadSource("playlist", str(error)[:300]) from error
    except av.error.FFmpegError as error:
        raise BadSource("undecodable", str(error)[:200]) from error


def _shown(probe: Probe, time_base: Fraction) -> Shown:
    """Geometry and clock from what the header says."""
    fps = Fraction(probe.fps or UNSTATED_FPS).limit_denominator(1001)
    return Shown(
        width=probe.stored_width,
        height=probe.stored_height,
        sample_aspect=probe.sample_aspect,
        rotation_deg=probe.rotation_deg,
        fps=min(max(fps, LOWEST_FPS), HIGHEST_FPS),
        time_base=Fraction(1) if probe.is_image else time_base,
    )


def _probe_row(probe: Probe, video: VideoPass, num_scenes: int) -> dict[str, Any]:
    """Columns of the probe layer that a decoded source has."""
    timeline = video.timeline
    return {
        "container": probe.container,
        "codec": probe.codec,
        "pixel_format": probe.pixel_format,
        "source_width": probe.width,
        "source_height": probe.height,
        "rotation_deg": probe.rotation_deg,
        "source_fps": probe.fps,
        "source_duration_s": 0.0 if probe.is_image else timeline.seconds(len(timeline)),
        "source_num_frames": len(timeline),
        "has_audio": probe.has_audio,
        "num_scenes": num_scenes,
    }


def _scene_row(
    scene: MeasuredScene, index: int, sha256: str, shown: Shown, probe: Probe
) -> dict[str, Any]:
    """One row of the scenes layer, but for `source_row`."""
    num_frames = scene.scene.end - scene.scene.start
    duration_s = scene.end_s - scene.start_s
    return {
        "clip_id": str(uuid.uuid5(CLIP_NAMESPACE, f"{sha256}:{scene.start_pts}:{scene.end_pts}")),
        "scene_index": index,
        "scene_reject": scene.scene.reject,
        "start_pts": scene.start_pts,
        "end_pts": scene.end_pts,
        "time_base_num": shown.time_base.numerator,
        "time_base_den": shown.time_base.denominator,
        "start_s": scene.start_s,
        "end_s": scene.end_s,
        "duration_s": duration_s,
        "start_frame": scene.scene.start,
        "num_frames": num_frames,
        "fps": None if probe.is_image else num_frames / duration_s,
        "width": probe.width,
        "height": probe.height,
        "cut_in": scene.scene.cut_in,
        "cut_out": scene.scene.cut_out,
        **scene.measures,
        "perceptual_hashes": [keyframe.hash for keyframe in scene.keyframes],
    }


class DecodingPass:
    """The pass over all sources of a part: one row a source in, three layers out.

    Args:
        config: what to measure.
    """

    name = "scenes"
    version = 1
    layers = ("probe", "scenes", "keyframes")

    def __init__(self, config: DecodeConfig) -> None:
        self._config = config
        self._make_finder: Finders | None = None

    @property
    def settings(self) -> DecodeConfig:
        """What the values depend on: all but the number of threads."""
        return replace(self._config, threads=1)

    @property
    def resources(self) -> Resources:
        """What one worker takes."""
        return Resources(
            cpus=float(self._config.threads), memory_bytes=self._config.limits.memory_bytes
        )

    def weights(self) -> tuple[Weight, ...]:
        """TransNetV2's, where it is the detector."""
        return (TRANSNETV2,) if self._config.scenes.detector == "transnet" else ()

    def setup(self) -> None:
        """Load the detector."""
        self._make_finder = make_finders(self._config.scenes, threads=self._config.threads)

    def close(self) -> None:
        """Let go of what `setup` made."""
        self._make_finder = None

    def __call__(self, sources: pa.Table) -> dict[str, pa.Table]:
        """Decode every source.

        Args:
            sources: rows of the sources file of one part.

        Returns:
            "probe" with a row a source, "scenes" and "keyframes" with a row a scene.
        """
        rows: dict[str, list[dict[str, Any]]] = {name: [] for name in self.layers}
        for source_row, uri in enumerate(sources["uri"].to_pylist()):
            found = self._rows_of(uri)
            rows["probe"].append(found.probe)
            for scene, keyframes in zip(found.scenes, found.keyframes, strict=True):
                rows["scenes"].append(scene | {"source_row": source_row})
                rows["keyframes"].append(keyframes | {"clip_id": scene["clip_id"]})
        return {
            name: pa.Table.from_pylist(rows[name], schema=layer_schema(name))
            for name in self.layers
        }

    def _rows_of(self, uri: str) -> SourceRows:
        """Rows of one source; one that cannot be used has a probe row with the reason."""
        import hashlib

        assert self._make_finder is not None, "setup() comes first"
        sha256: str | None = None
        try:
            path = Path(uri)
            with open_regular(path) as file:
                digest = hashlib.file_digest(file, "sha256")  # type: ignore[arg-type]
                sha256 = digest.hexdigest()
            found = decode_source(path, sha256, self._config, self._make_finder)
        except BadSource as bad:
            return rejected_rows(bad, sha256)
        return replace(found, probe=found.probe | {"source_sha256": sha256})


def rejected_rows(bad: BadSource, sha256: str | None) -> SourceRows:
    """Rows of a source that cannot be used: a probe row with the reason, no scene."""
    probe = {
        "source_sha256": sha256,
        "source_reject": bad.reason,
        "source_reject_detail": bad.detail,
        "num_scenes": 0,
    }
    return SourceRows(probe, [], [])
