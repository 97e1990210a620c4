import io
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from curation.corpus.schema import layer_schema
from curation.decode.decoding_pass import DecodeConfig, DecodingPass, SourceRows, decode_source
from curation.decode.keyframes import KeyframeConfig
from curation.decode.scenes import SceneConfig
from curation.errors import BadSource
from curation.media.probe import Limits
from curation.sources.uris import source_rows

NO_TRIM = DecodeConfig(scenes=SceneConfig(trim_frames=0))
THREE = (("red", 60), ("teal", 75), ("white", 61))
MakeVideo = Callable[..., Path]


def decoded(path: Path, config: DecodeConfig = NO_TRIM) -> SourceRows:
    with path.open("rb") as file:
        return decode_source(file, "0" * 64, config)


def frame_spans(rows: SourceRows) -> list[tuple[int, int]]:
    return [(s["start_frame"], s["start_frame"] + s["num_frames"]) for s in rows.scenes]


def decoded_pts(path: Path) -> list[int]:
    """Timestamps of all frames, by a decode of its own."""
    with av.open(str(path)) as container:
        return [frame.pts for frame in container.decode(video=0)]


def opened(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)), int)


def test_cuts_times_and_counts_are_exact_with_b_frames(tmp_path, make_video: MakeVideo):
    path = make_video(tmp_path / "film.mp4", THREE, options={"preset": "fast", "bf": "3"})
    rows = decoded(path)
    assert frame_spans(rows) == [(0, 60), (60, 135), (135, 196)]
    assert [s["start_s"] for s in rows.scenes] == [0.0, 60 / 24, 135 / 24]
    assert rows.scenes[-1]["end_s"] == pytest.approx(196 / 24)
    assert rows.probe["source_num_frames"] == 196
    assert rows.probe["num_scenes"] == 3


@pytest.mark.parametrize(
    ("suffix", "codec", "fps"),
    [
        ("mkv", "libx264", Fraction(30000, 1001)),
        ("webm", "libvpx-vp9", 25),
        ("avi", "mpeg4", 24),
        ("mpg", "mpeg2video", 25),
        ("mp4", "libx264", 60),
    ],
)
def test_cuts_are_exact_in_every_container(tmp_path, make_video: MakeVideo, suffix, codec, fps):
    scenes = [("red", 130), ("teal", 140)] if fps == 60 else THREE
    rows = decoded(make_video(tmp_path / f"film.{suffix}", scenes, codec=codec, fps=fps))
    ends = np.cumsum([num for _, num in scenes])
    assert [end for _, end in frame_spans(rows)] == ends.tolist()
    assert [s["end_s"] for s in rows.scenes] == pytest.approx(
        [float(end / Fraction(fps)) for end in ends], abs=0.002
    )


def test_cuts_are_exact_with_a_variable_frame_rate(tmp_path, make_video: MakeVideo):
    generator = np.random.default_rng(5)
    times_s = np.cumsum(generator.choice([1 / 60, 1 / 30, 1 / 12], 196)).tolist()
    path = make_video(tmp_path / "film.mp4", THREE, times_s=times_s)
    rows = decoded(path)
    pts = decoded_pts(path)
    assert [s["start_pts"] for s in rows.scenes] == [pts[0], pts[60], pts[135]]
    assert [s["end_pts"] for s in rows.scenes[:2]] == [pts[60], pts[135]]
    assert [s["num_frames"] for s in rows.scenes] == [60, 75, 61]
    assert rows.scenes[1]["start_s"] == pytest.approx(times_s[60] - times_s[0], abs=1e-3)


def test_num_frames_is_what_lies_between_the_timestamps(tmp_path, make_video: MakeVideo):
    path = make_video(tmp_path / "film.mp4", THREE)
    pts = decoded_pts(path)
    for scene in decoded(path, DecodeConfig()).scenes:
        inside = [p for p in pts if scene["start_pts"] <= p < scene["end_pts"]]
        assert len(inside) == scene["num_frames"]
        assert pts.index(inside[0]) == scene["start_frame"]


def test_an_edit_list_and_a_late_start_move_no_cut(
    tmp_path, make_video: MakeVideo, run_ffmpeg: Callable[..., None]
):
    whole = make_video(tmp_path / "whole.mp4", THREE, options={"preset": "fast", "g": "250"})
    # Copied from 1 s on: the frames from the key frame at 0 s are kept and hidden by an edit list.
    cut = tmp_path / "cut.mp4"
    run_ffmpeg("-ss", "1", "-i", whole, "-c", "copy", cut)
    assert frame_spans(decoded(cut)) == [(0, 36), (36, 111), (111, 172)]
    late = tmp_path / "late.ts.mkv"
    run_ffmpeg("-i", whole, "-c", "copy", "-output_ts_offset", "7.5", late)
    rows = decoded(late)
    assert frame_spans(rows) == [(0, 60), (60, 135), (135, 196)]
    assert rows.scenes[0]["start_pts"] > 0
    assert rows.scenes[1]["start_s"] == pytest.approx(2.5, abs=0.002)


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_a_turned_film_has_the_same_cuts_and_upright_keyframes(
    tmp_path, make_video: MakeVideo, rotated, turn
):
    plain = make_video(tmp_path / "plain.mp4", (("red", 60), ("teal", 60)))
    turned = rotated(plain, tmp_path / "turned.mp4", turn)
    expected, rows = decoded(plain), decoded(turned)
    assert frame_spans(rows) == frame_spans(expected)
    assert rows.probe["rotation_deg"] == turn
    shown = (180, 320) if turn != 180 else (320, 180)
    assert (rows.scenes[0]["width"], rows.scenes[0]["height"]) == shown
    first = opened(expected.keyframes[0]["keyframes"][0])
    assert (
        np.abs(opened(rows.keyframes[0]["keyframes"][0]) - np.rot90(first, -turn // 90)).mean() < 3
    )
    assert rows.scenes[0]["motion_mean"] == pytest.approx(expected.scenes[0]["motion_mean"])


def test_keyframes_of_anamorphic_video_have_square_pixels(tmp_path, make_video: MakeVideo):
    path = make_video(tmp_path / "film.mp4", (("red", 60),), sample_aspect=Fraction(4, 3))
    rows = decoded(path)
    assert (rows.probe["source_width"], rows.probe["source_height"]) == (427, 180)
    assert opened(rows.keyframes[0]["keyframes"][0]).shape[:2] == (180, 426)


def test_keyframes_lie_in_the_middle_of_eight_parts_and_show_their_moment(
    tmp_path, encode_video, texture
):
    shade = [np.full((90, 160, 3), 20 + 2 * index, np.uint8) for index in range(96)]
    path = encode_video(tmp_path / "film.mp4", shade, options={"preset": "fast", "crf": "8"})
    rows = decoded(path)
    keyframes = rows.keyframes[0]
    assert keyframes["keyframe_s"] == pytest.approx(
        [(part + 0.5) * 4 / 8 for part in range(8)], abs=0.25
    )
    for time_s, data in zip(keyframes["keyframe_s"], keyframes["keyframes"], strict=True):
        assert opened(data).mean() == pytest.approx(20 + 2 * round(time_s * 24), abs=3)
    assert len(rows.scenes[0]["perceptual_hashes"]) == 8


def test_keyframes_are_at_most_384_pixels_on_the_short_side(tmp_path, make_video: MakeVideo):
    path = make_video(tmp_path / "film.mp4", (("red", 50),), size=(960, 540))
    shapes = {opened(data).shape for data in decoded(path).keyframes[0]["keyframes"]}
    assert shapes == {(384, 682, 3)}


def test_motion_of_a_moving_texture_is_its_speed_in_short_sides(tmp_path, make_video: MakeVideo):
    path = make_video(tmp_path / "film.mp4", (("white", 72, 1), ("teal", 72, 0)))
    moving, still = decoded(path).scenes
    assert moving["motion_mean"] == pytest.approx(24 / 180, rel=0.1)  # 1 px a frame, 24 frames/s
    assert moving["still_share"] == 0.0
    assert still["motion_mean"] < 0.01
    assert still["still_share"] == 1.0


def test_motion_does_not_depend_on_the_frame_rate(tmp_path, make_video: MakeVideo):
    for fps, speed_px in ((12, 4), (48, 1)):
        scenes = (("white", 5 * fps, speed_px),)
        path = make_video(tmp_path / f"{fps}.mp4", scenes, fps=fps)
        assert decoded(path).scenes[0]["motion_mean"] == pytest.approx(48 / 180, rel=0.1)


def test_borders_are_measured_as_a_share_of_the_picture(tmp_path, encode_video, scene_frames):
    frames = []
    for frame_HWC in scene_frames("white", 60, size=(320, 180)):
        boxed = np.zeros_like(frame_HWC)
        boxed[20:160] = np.maximum(frame_HWC[20:160], 60)
        frames.append(boxed)
    scene = decoded(encode_video(tmp_path / "film.mp4", frames)).scenes[0]
    assert scene["border_share"] == pytest.approx(40 / 180, abs=0.015)


def test_colours_of_keyframes_are_those_of_the_film(tmp_path, encode_video):
    for colour in ((200, 40, 40), (40, 200, 60), (250, 250, 250)):
        frames = [np.full((96, 160, 3), colour, np.uint8)] * 50
        path = encode_video(tmp_path / "film.mp4", frames, options={"preset": "fast", "crf": "8"})
        mean = opened(decoded(path).keyframes[0]["keyframes"][0]).mean(axis=(0, 1))
        assert mean == pytest.approx(colour, abs=4)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_a_still_image_is_one_row_of_one_frame(tmp_path, texture, suffix):
    picture = Image.fromarray(texture("teal", (800, 500)))
    picture.save(tmp_path / f"still.{suffix}")
    rows = decoded(tmp_path / f"still.{suffix}")
    (scene,), (keyframe,) = rows.scenes, rows.keyframes
    assert scene["scene_reject"] is None
    assert (scene["start_s"], scene["end_s"], scene["num_frames"]) == (0.0, 0.0, 1)
    assert (scene["width"], scene["height"], scene["fps"]) == (800, 500, None)
    assert scene["motion_mean"] is None
    assert scene["frozen_share"] is None
    assert scene["brightness_mean"] == pytest.approx(np.asarray(picture.convert("L")).mean(), abs=3)
    shown = opened(keyframe["keyframes"][0])
    expected = np.asarray(picture.resize((shown.shape[1], shown.shape[0])), int)
    assert shown.shape == (384, 614, 3)
    assert np.abs(shown - expected).mean() < 4
    assert keyframe["keyframe_s"] == [0.0]


def test_a_still_image_is_turned_as_its_exif_says(tmp_path, texture):
    picture = Image.fromarray(texture("teal", (320, 180)))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned 90 degrees clockwise
    picture.save(tmp_path / "still.jpg", exif=exif)
    rows = decoded(tmp_path / "still.jpg")
    assert (rows.scenes[0]["width"], rows.scenes[0]["height"]) == (180, 320)
    shown = opened(rows.keyframes[0]["keyframes"][0])
    assert np.abs(shown - np.asarray(picture.rotate(-90, expand=True), int)).mean() < 4


def test_the_same_file_gives_the_same_rows_whatever_the_threads(tmp_path, make_video: MakeVideo):
    path = make_video(tmp_path / "film.mp4", THREE)
    first = decoded(path, DecodeConfig(threads=1))
    for threads in (1, 1, 1, 3):
        assert decoded(path, DecodeConfig(threads=threads)) == first
    assert DecodingPass(DecodeConfig(threads=3)).settings == DecodeConfig(threads=1)


def test_a_clip_id_depends_on_bytes_and_span_only(tmp_path, make_video: MakeVideo):
    path = make_video(tmp_path / "film.mp4", THREE)
    other = DecodeConfig(scenes=SceneConfig(trim_frames=0), keyframes=KeyframeConfig(num=3))
    ids = [scene["clip_id"] for scene in decoded(path).scenes]
    assert [scene["clip_id"] for scene in decoded(path, other).scenes] == ids
    assert len(set(ids)) == 3


def test_a_film_longer_than_the_limits_is_rejected(tmp_path, make_video: MakeVideo):
    path = make_video(tmp_path / "film.mp4", THREE)
    with pytest.raises(BadSource, match="too_long"):
        decoded(path, DecodeConfig(limits=Limits(max_frames=100)))


def test_memory_does_not_grow_with_the_length_of_a_scene(tmp_path, scene_frames):
    from curation.decode.cuts import SceneDetectFinder
    from curation.decode.measuring import Shown, VideoPass

    config = DecodeConfig(scenes=SceneConfig(max_s=36_000))
    shown = Shown(
        width=64,
        height=36,
        sample_aspect=Fraction(1),
        fps=Fraction(8),
        time_base=Fraction(1, 8),
    )
    video = VideoPass(config, shown, lambda fps: SceneDetectFinder(config.scenes, fps))
    picture = av.VideoFrame.from_ndarray(next(scene_frames("red", 1, size=(64, 36))), "rgb24")
    picture.time_base = shown.time_base
    held = 0
    for index in range(6000):
        picture.pts = index
        assert video.push(picture) == []
        held = max(held, len(video._candidates))
    assert held <= 96
    (scene,) = video.finish()
    assert len(scene.keyframes) == 8
    times = [keyframe.time_s for keyframe in scene.keyframes]
    assert times == pytest.approx([(part + 0.5) * 750 / 8 for part in range(8)], abs=750 / 32)


def test_nothing_is_compared_across_a_declared_edge(scene_frames):
    from curation.decode.cuts import SceneDetectFinder
    from curation.decode.measuring import Shown, VideoPass

    wide = Shown(
        width=320,
        height=180,
        sample_aspect=Fraction(1),
        fps=Fraction(24),
        time_base=Fraction(1, 24),
    )
    tall = replace(wide, width=180, height=320)
    video = VideoPass(NO_TRIM, wide, lambda fps: SceneDetectFinder(NO_TRIM.scenes, fps))
    scenes = []
    for look, num_frames, shown in (("red", 50, wide), ("teal", 60, wide), ("gold", 70, tall)):
        if shown is tall:
            scenes += video.edge("discontinuity", tall)
        for picture in scene_frames(look, num_frames, size=(shown.width, shown.height)):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = len(video.timeline), shown.time_base
            scenes += video.push(frame)
    scenes += video.finish()
    assert [(s.scene.start, s.scene.end, s.scene.cut_in, s.scene.cut_out) for s in scenes] == [
        (0, 50, "start", "cut"),
        (50, 110, "cut", "discontinuity"),
        (110, 180, "discontinuity", "end"),
    ]
    # 2 px a frame; the pair of pictures across the edge would be another size, and another shot
    expected = [2 * 24 / 180] * 3
    assert [s.measures["motion_mean"] for s in scenes] == pytest.approx(expected, rel=0.1)
    assert [opened(s.keyframes[0].data).shape[:2] for s in scenes] == [(180, 320)] * 2 + [
        (320, 180)
    ]
    assert [s.scene.shot for s in scenes] == [0, 1, 2]


@pytest.mark.parametrize(("after", "shots"), [("red", [0, 0]), ("teal", [0, 1])])
def test_a_shot_goes_on_behind_an_edge_where_the_pictures_are_alike(scene_frames, after, shots):
    from curation.decode.cuts import SceneDetectFinder
    from curation.decode.measuring import Shown, VideoPass

    tick = Fraction(1, 24)
    shown = Shown(width=320, height=180, sample_aspect=Fraction(1), fps=1 / tick, time_base=tick)
    video = VideoPass(NO_TRIM, shown, lambda fps: SceneDetectFinder(NO_TRIM.scenes, fps))
    scenes = []
    for part, look in enumerate(("red", after)):
        if part:
            scenes += video.edge("damage")
        pictures = list(scene_frames(look, 120, size=(320, 180)))
        for picture in pictures[60 * part : 60 * part + 60]:
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = len(video.timeline), tick
            scenes += video.push(frame)
    scenes += video.finish()
    assert [s.scene.shot for s in scenes] == shots


def test_a_picture_that_hangs_in_a_coded_film_is_frozen(tmp_path, encode_video, scene_frames):
    frames = list(scene_frames("teal", 96, size=(320, 180)))
    frames[30:66] = [frames[30]] * 36
    options = {"preset": "veryfast", "threads": "1", "crf": "18"}
    rows = decoded(encode_video(tmp_path / "film.mp4", frames, options=options))
    assert rows.scenes[0]["frozen_share"] == pytest.approx(36 / 96, abs=0.08)


def test_a_part_has_a_probe_row_for_every_source_and_scenes_only_for_good_ones(
    tmp_path, make_video: MakeVideo
):
    film = make_video(tmp_path / "film.mp4", THREE)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "words.mp4").write_text("no film at all")
    uris = [tmp_path / "empty.mp4", film, tmp_path / "gone.mp4", tmp_path / "words.mp4", film]
    decoding = DecodingPass(DecodeConfig())
    decoding.setup()
    try:
        tables = decoding(source_rows(pa.array([str(uri) for uri in uris])))
    finally:
        decoding.close()
    for name, table in tables.items():
        assert table.schema.equals(layer_schema(name)), name
    assert tables["probe"]["source_reject"].to_pylist() == [
        "empty",
        None,
        "not_found",
        "unknown_format",
        None,
    ]
    assert tables["probe"]["num_scenes"].to_pylist() == [0, 3, 0, 0, 3]
    assert tables["scenes"]["source_row"].to_pylist() == [1, 1, 1, 4, 4, 4]
    assert tables["keyframes"]["clip_id"].equals(tables["scenes"]["clip_id"])


def test_every_column_of_the_three_layers_is_filled(tmp_path, make_video: MakeVideo):
    rows = decoded(make_video(tmp_path / "film.mp4", THREE, audio=True))
    filled: dict[str, dict[str, Any]] = {
        "probe": rows.probe,
        "scenes": rows.scenes[1],  # with a cut at either end
        "keyframes": rows.keyframes[1],
    }
    null = {
        "source_reject",
        "source_reject_detail",
        "scene_reject",
        "source_row",
        "served_from",
        "opt_out",
    }
    for name, row in filled.items():
        for column in layer_schema(name).names:
            assert (row.get(column) is None) == (column in null), column
