"""The one decoding pass: a source is read once, and all that needs its frames is done on the way.

For each source of a part: what the container says (probe), where the scenes are, how they move and
look, and their keyframes. Later stations read the keyframes; only cutting opens the source again.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import pyarrow as pa

from curation.corpus.schema import layer_schema
from curation.corpus.scratch import scratch_folder
from curation.decode.film import Film, Shot
from curation.decode.geometry import Stretches
from curation.decode.measuring import DecodeConfig, MeasuredScene, Shown, VideoPass
from curation.decode.scenes import Finders, SceneConfig
from curation.decode.timeline import HIGHEST_FPS, LOWEST_FPS
from curation.errors import BadSource
from curation.media.guard import Guard
from curation.media.image import upright_rgb
from curation.media.orientation import UPRIGHT
from curation.media.probe import Probe, facts, is_whole, open_video, picture_stream
from curation.media.recordings import Recording, recordings
from curation.sources import OptedOut, WebClient, fetched, redacted
from curation.stations.station import Resources
from curation.weights.catalog import TRANSNETV2, Weight, find

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

logger = logging.getLogger(__name__)

__all__ = ["LAYERS", "DecodeConfig", "DecodingPass", "SourceRows", "decode_source", "decode_tables"]

LAYERS = ("probe", "scenes", "keyframes")
"""What the pass adds."""
CLIP_NAMESPACE = uuid.UUID("7a2f4a0e-4f0b-5a53-9a2b-0c7d52f1c9aa")
"""Namespace of clip ids; any constant would do, and it must never change."""
UNSTATED_FPS = 25.0
"""Where the container states no rate; nothing but windows of the detectors depends on it, until the
first frames have shown theirs."""
STATED_FPS_ERROR = 0.1
"""A stated rate further from that of the frames is not believed."""


@dataclass(frozen=True, slots=True)
class SourceRows:
    """What one source becomes: its probe row and its rows in the two other layers."""

    probe: dict[str, Any]
    scenes: list[dict[str, Any]]
    keyframes: list[dict[str, Any]]


@functools.cache
def _finders(config: SceneConfig, transnet: Path | None, threads: int) -> Finders:
    """What the chosen detector needs, loaded once in a process for all videos."""
    if transnet is not None:
        from curation.decode.transnet import TransNetFinder, load_transnet

        network = load_transnet(transnet, threads=threads)
        return lambda fps: TransNetFinder(network, threshold=config.transnet_threshold)
    from curation.decode.cuts import SceneDetectFinder

    return lambda fps: SceneDetectFinder(config, fps)


def decode_tables(
    file: BinaryIO, sha256: str, config: DecodeConfig, transnet: Path | None
) -> dict[str, pa.Table]:
    """`decode_source` as tables of the three layers, `source_row` left null: runs in the guard."""
    rows = decode_source(file, sha256, config, transnet)
    parts = {"probe": [rows.probe], "scenes": rows.scenes, "keyframes": rows.keyframes}
    return {name: pa.Table.from_pylist(parts[name], schema=layer_schema(name)) for name in LAYERS}


def decode_source(
    file: BinaryIO, sha256: str, config: DecodeConfig, transnet: Path | None = None
) -> SourceRows:
    """Decode one source from its first to its last frame and measure it.

    Run it in a `curation.media.guard` child: what it reads is untrusted.

    Args:
        file: a regular file, from its start.
        sha256: digest of its bytes, from which clip ids are made.
        config: what to measure.
        transnet: TransNetV2's weights, where it is the detector.

    Raises:
        BadSource: the source cannot be used; nothing of it is.
    """
    rows = _decode(file, sha256, config, transnet)
    if config.threads > 1 and rows.probe["source_num_damaged_frames"]:
        # What a decoder makes up, and of which frame it speaks, depends on its threads.
        file.seek(0)
        rows = _decode(file, sha256, replace(config, threads=1), transnet)
    return rows


def _decode(file: BinaryIO, sha256: str, config: DecodeConfig, transnet: Path | None) -> SourceRows:
    """`decode_source` on as many threads as the settings say, whatever becomes of damage."""
    import cv2

    cv2.setNumThreads(1)  # results must not depend on the machine, and workers share its cores
    make_finder = _finders(config.scenes, transnet, config.threads)
    first_recording, *more = recordings(file)
    with open_video(file, config.limits, first_recording) as container:
        stream = picture_stream(container)
        film = Film(container, stream, config)
        shots = iter(film)
        first = next(shots, None)
        if first is None:
            raise BadSource("undecodable", film.last_error or "no frame comes out")
        probe = facts(container, stream, first.frame)
        picture = first.frame
        if probe.is_image:
            picture, probe = _image(file, probe)
        shown = _shown(probe, Fraction(stream.time_base or 1))
        video = VideoPass(config, shown, make_finder)
        if probe.is_image:
            scenes = [video.still(picture, num_bytes=first.num_bytes)]
        else:
            stretches = Stretches(picture, shown, stream.codec_context)
            scenes = video.push(picture, is_damaged=first.is_damaged, num_bytes=first.num_bytes)
            for shot in itertools.chain(shots, _of_others(more, film, stretches, file)):
                changed = stretches.changed(shot.frame)
                if edge := shot.edge or (changed and "discontinuity"):
                    scenes += video.edge(edge, changed, until=shot.frame.pts)
                scenes += video.push(
                    shot.frame, is_damaged=shot.is_damaged, num_bytes=shot.num_bytes
                )
            scenes += video.finish()
            if not is_whole(file, probe.container):
                film.cut_off()
    return SourceRows(
        probe=_probe_row(probe, video, film, len(scenes)) | {"source_sha256": sha256},
        scenes=[
            _scene_row(scene, place, sha256, shown, probe) for place, scene in enumerate(scenes)
        ],
        keyframes=[_keyframe_row(scene, sha256) for scene in scenes],
    )


def _of_others(
    others: Sequence[Recording], film: Film, stretches: Stretches, file: BinaryIO
) -> Iterator[Shot]:
    """Frames of the recordings behind the first; of those that cannot be read one frame is lost."""
    for recording in others:
        with contextlib.ExitStack() as opened:
            try:
                container = opened.enter_context(open_video(file, film.limits, recording))
                stream = picture_stream(container)
                film.go_on(container, stream)
            except BadSource as bad:
                film.num_lost += bad.reason != "no_video"
                continue
            stretches.go_on(stream.codec_context)
            yield from film


def _image(file: BinaryIO, probe: Probe) -> tuple[VideoFrame, Probe]:
    """The picture of a still image as export has it, upright, and what is known of it then."""
    from av.video.frame import VideoFrame

    file.seek(0)
    picture_HWC, orientation = upright_rgb(file, probe.container)
    height, width, _ = picture_HWC.shape
    known = replace(
        probe,
        stored_width=width,
        stored_height=height,
        sample_aspect=Fraction(1),
        orientation=orientation,
        width=width,
        height=height,
    )
    return VideoFrame.from_ndarray(picture_HWC, "rgb24"), known


def _shown(probe: Probe, time_base: Fraction) -> Shown:
    """Geometry and clock from what the header says."""
    fps = Fraction(probe.fps or UNSTATED_FPS).limit_denominator(1001)
    return Shown(
        width=probe.stored_width,
        height=probe.stored_height,
        sample_aspect=probe.sample_aspect,
        # Images have been brought upright already.
        orientation=UPRIGHT if probe.is_image else probe.orientation,
        fps=min(max(fps, LOWEST_FPS), HIGHEST_FPS),
        time_base=Fraction(1) if probe.is_image else time_base,
    )


def _fps(probe: Probe, num_frames: int, duration_s: float) -> float | None:
    """Mean frame rate: what the container states, where the frames bear it out."""
    if probe.is_image or not duration_s:
        return None
    mean = num_frames / duration_s
    is_true = probe.fps is not None and abs(probe.fps / mean - 1) <= STATED_FPS_ERROR
    return probe.fps if is_true else mean


def _probe_row(probe: Probe, video: VideoPass, film: Film, num_scenes: int) -> dict[str, Any]:
    """Columns of the probe layer that a decoded source has."""
    num_frames = len(video.timeline)
    duration_s = 0.0 if probe.is_image else video.timeline.end_seconds(num_frames)
    return {
        "container": probe.container,
        "codec": probe.codec,
        "pixel_format": probe.pixel_format,
        "source_width": probe.width,
        "source_height": probe.height,
        "rotation_deg": probe.orientation.turn_deg,
        "mirrored": probe.orientation.mirrored,
        "transfer": probe.transfer,
        "primaries": probe.primaries,
        "bit_depth": probe.bit_depth,
        "source_fps": _fps(probe, num_frames, duration_s),
        "source_duration_s": duration_s,
        "source_num_frames": num_frames,
        "source_num_damaged_frames": film.num_damaged + film.num_lost,
        "num_clock_jumps": film.num_clock_jumps,
        "has_audio": probe.has_audio,
        "num_scenes": num_scenes,
    }


def _clip_id(scene: MeasuredScene, sha256: str) -> str:
    """The same for the same bytes and span, on any machine."""
    return str(uuid.uuid5(CLIP_NAMESPACE, f"{sha256}:{scene.start_pts}:{scene.end_pts}"))


def _keyframe_row(scene: MeasuredScene, sha256: str) -> dict[str, Any]:
    """One row of the keyframes layer."""
    return {
        "clip_id": _clip_id(scene, sha256),
        "keyframes": [keyframe.data for keyframe in scene.keyframes],
        "keyframe_s": [keyframe.time_s for keyframe in scene.keyframes],
    }


def _scene_row(
    scene: MeasuredScene, index: int, sha256: str, shown: Shown, probe: Probe
) -> dict[str, Any]:
    """One row of the scenes layer, but for `source_row`."""
    num_frames = scene.scene.end - scene.scene.start
    duration_s = scene.end_s - scene.start_s
    return {
        "clip_id": _clip_id(scene, sha256),
        "scene_index": index,
        "shot_index": scene.scene.shot,
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
        "num_damaged_frames": scene.num_damaged_frames,
        "fps": None if probe.is_image else num_frames / duration_s,
        "width": scene.size[0],
        "height": scene.size[1],
        "colour": scene.colour,
        "interlaced": scene.interlacing,
        "cut_in": scene.scene.cut_in,
        "cut_out": scene.scene.cut_out,
        "cut_in_confidence": scene.scene.cut_in_confidence,
        "cut_out_confidence": scene.scene.cut_out_confidence,
        **scene.measures,
        "perceptual_hashes": [keyframe.hash for keyframe in scene.keyframes],
    }


class DecodingPass:
    """The pass over all sources of a part: one row a source in, three layers out.

    Args:
        config: what to measure.
        web: asks web servers for sources.
    """

    name = "scenes"
    version = 10
    layers = LAYERS

    def __init__(self, config: DecodeConfig, web: WebClient | None = None) -> None:
        self._config = config
        self.web = WebClient() if web is None else web
        self._guard: Guard | None = None
        self._transnet: Path | None = None

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
        """Start the child process that decodes.

        Raises:
            MissingWeights: the detector's.
        """
        paths = [find(weight) for weight in self.weights()]
        self._transnet = paths[0] if paths else None
        self._guard = Guard(self._config.limits, readable=paths)

    def close(self) -> None:
        """End the child process."""
        if self._guard is not None:
            self._guard.close()
        self._guard = None

    def __call__(
        self,
        sources: pa.Table,
        *,
        left_out: Mapping[int, str] | None = None,
        before: Callable[[int], None] | None = None,
    ) -> dict[str, pa.Table]:
        """Decode every source.

        Args:
            sources: rows of the sources file of one part.
            left_out: rows that are not touched but rejected as `quarantined`, and why.
            before: told of each other row before it is touched.

        Returns:
            "probe" with a row a source, "scenes" and "keyframes" with a row a scene.
        """
        found: dict[str, list[pa.Table]] = {name: [] for name in LAYERS}
        with scratch_folder("lavie-") as scratch:
            listed = sources.select(["uri", "listing_reject", "listing_reject_detail"]).to_pylist()
            for source_row, source in enumerate(listed):
                if left_out and source_row in left_out:
                    tables = rejected(BadSource("quarantined", left_out[source_row]), None)
                else:
                    if before is not None:
                        before(source_row)
                    begun = time.monotonic()
                    tables = self._tables_of(source, scratch)
                    _tell(source["uri"], tables["probe"], time.monotonic() - begun)
                tables["scenes"] = _filled(tables["scenes"], "source_row", source_row)
                for name in LAYERS:
                    found[name].append(tables[name])
        empty = {name: layer_schema(name).empty_table() for name in LAYERS}
        return {name: pa.concat_tables([empty[name], *found[name]]) for name in LAYERS}

    def _tables_of(self, listed: dict[str, Any], scratch: Path) -> dict[str, pa.Table]:
        """Tables of one source; one that cannot be used has a probe row with the reason."""
        assert self._guard is not None, "setup() comes first"
        sha256: str | None = None
        said: dict[str, str | None] = {"served_from": None, "opt_out": "none"}
        try:
            if listed["listing_reject"] is not None:
                raise BadSource(listed["listing_reject"], listed["listing_reject_detail"])
            uri, max_bytes = listed["uri"], self._config.limits.max_bytes
            with fetched(uri, max_bytes=max_bytes, scratch=scratch, web=self.web) as source:
                sha256 = source.sha256
                if source.from_web is not None:
                    said = asdict(source.from_web)
                tables = self._guard.call(
                    decode_tables, sha256, self._config, self._transnet, file=source.file
                )
            _check_answer(tables)
        except OptedOut as out:
            return rejected(out, None, {"opt_out": out.opt_out})
        except BadSource as bad:
            return rejected(bad, sha256, said if sha256 else None)
        for name, value in said.items():
            tables["probe"] = _filled(tables["probe"], name, value)
        return tables


def _tell(uri: str, probe: pa.Table, took_s: float) -> None:
    """Log what became of a source, without the query of its address."""
    source, row = redacted(uri), probe.select(["source_reject", "num_scenes"]).to_pylist()[0]
    became = row["source_reject"] or f"{row['num_scenes']} scenes"
    about = {"source": source, "reject": row["source_reject"], "seconds": round(took_s, 3)}
    logger.info("%s: %s in %.1f s", source, became, took_s, extra={"facts": about})


def _filled(table: pa.Table, name: str, value: Any) -> pa.Table:
    """A table with one value in all rows of a column."""
    place = table.schema.get_field_index(name)
    field = table.schema.field(place)
    return table.set_column(place, field, pa.array([value] * table.num_rows, field.type))


def _check_answer(tables: dict[str, pa.Table]) -> None:
    """Check the form of what came from the child, which may be in strange hands.

    Raises:
        BadSource: 'decoder_died'.
    """
    if tuple(tables) != LAYERS or any(
        not tables[name].schema.equals(layer_schema(name)) for name in LAYERS
    ):
        raise BadSource("decoder_died", "it answered with other columns than were asked for")
    num_scenes = tables["probe"]["num_scenes"].to_pylist()
    same_clips = tables["keyframes"]["clip_id"].equals(tables["scenes"]["clip_id"])
    if num_scenes != [tables["scenes"].num_rows] or not same_clips:
        raise BadSource("decoder_died", "it answered with rows that do not line up")


def rejected(
    bad: BadSource, sha256: str | None, said: Mapping[str, Any] | None = None
) -> dict[str, pa.Table]:
    """Tables of a source that cannot be used: a probe row with the reason, no scene.

    Args:
        bad: why.
        sha256: of its bytes, where they could be read.
        said: columns of what a web server said beside them.
    """
    probe = {
        "source_sha256": sha256,
        "source_reject": bad.reason,
        "source_reject_detail": bad.detail,
        "num_scenes": 0,
        **(said or {}),
    }
    tables = {name: layer_schema(name).empty_table() for name in LAYERS}
    return tables | {"probe": pa.Table.from_pylist([probe], schema=layer_schema("probe"))}
