from fractions import Fraction

import pytest

from curation.decode.scenes import Scene, SceneConfig, SceneCutter, Transition
from curation.decode.timeline import Timeline

CONFIG = SceneConfig(trim_frames=3, max_s=16.0, min_s=2.0, min_frames=16)


def timeline_of(num_frames: int, *, ticks: int = 1, time_base: Fraction = Fraction(1, 24)):
    timeline = Timeline(time_base)
    for index in range(num_frames):
        timeline.add(index * ticks, ticks)
    return timeline


def scenes_of(
    timeline: Timeline, transitions: list[Transition], config: SceneConfig = CONFIG
) -> list[Scene]:
    return SceneCutter(config, timeline).edge(transitions, "end")


def spans(scenes: list[Scene]) -> list[tuple[int, int]]:
    return [(scene.start, scene.end) for scene in scenes]


def test_a_film_without_a_cut_is_one_scene():
    assert scenes_of(timeline_of(100), []) == [Scene(0, 100, "start", "end", None)]


def test_scenes_are_trimmed_at_cuts_but_not_at_the_ends_of_the_film():
    scenes = scenes_of(timeline_of(200), [Transition(100, 100)])
    assert scenes == [
        Scene(0, 97, "start", "cut", None),
        Scene(103, 200, "cut", "end", None, shot=1),
    ]


def test_frames_of_a_dissolve_belong_to_no_scene():
    scenes = scenes_of(timeline_of(200), [Transition(90, 110, "dissolve")])
    assert spans(scenes) == [(0, 87), (113, 200)]
    assert (scenes[0].cut_out, scenes[1].cut_in) == ("dissolve", "dissolve")


def test_scenes_tell_how_sure_their_edges_are():
    scenes = scenes_of(timeline_of(24 * 30), [Transition(100, 110, "wipe", 0.75)])
    sure = [(scene.cut_in_confidence, scene.cut_out_confidence) for scene in scenes]
    assert sure == [(None, 0.75), (0.75, None), (None, None)], "a stride is no transition"


@pytest.mark.parametrize(("num_frames", "reject"), [(48, None), (47, "too_short")])
def test_two_seconds_to_the_frame_are_long_enough(num_frames, reject):
    assert scenes_of(timeline_of(num_frames), [])[0].reject == reject


def test_sixteen_frames_are_needed_also_at_a_low_rate():
    for num_frames, reject in ((15, "too_short"), (16, None)):
        timeline = timeline_of(num_frames, time_base=Fraction(1, 5))
        assert scenes_of(timeline, [])[0].reject == reject


def test_a_scene_too_short_to_trim_stays_whole_and_rejected():
    scenes = scenes_of(timeline_of(150), [Transition(100, 100), Transition(105, 105)])
    assert scenes[1] == Scene(100, 105, "cut", "cut", "too_short", shot=1)


def test_scenes_longer_than_the_maximum_are_cut_at_a_fixed_stride():
    scenes = scenes_of(timeline_of(24 * 40), [])
    assert spans(scenes) == [(0, 384), (384, 768), (768, 960)]
    assert [(s.cut_in, s.cut_out) for s in scenes] == [
        ("start", "stride"),
        ("stride", "stride"),
        ("stride", "end"),
    ]


def test_stride_counts_time_not_frames_when_the_rate_varies():
    timeline = Timeline(Fraction(1, 1000))
    for index in range(1200):  # 12 s at 50 frames/s, then 10 frames/s
        timeline.add(index * 20 if index < 600 else 12_000 + (index - 600) * 100, 20)
    first = scenes_of(timeline, [])[0]
    assert timeline.seconds(first.end) == pytest.approx(16.0)
    assert first.end == 640


def test_pieces_come_out_the_same_whether_frames_stream_or_not():
    transitions = [Transition(500, 500), Transition(910, 930, "fade"), Transition(960, 960)]
    whole = scenes_of(timeline_of(2000), transitions)
    timeline = timeline_of(0)
    cutter = SceneCutter(CONFIG, timeline)
    streamed = []
    for index in range(2000):
        timeline.add(index, 1)
        known = [t for t in transitions if t.start == index - 40]
        streamed += cutter.advance(known, settled=index - 60)
    streamed += cutter.edge([], "end")
    assert streamed == whole


def test_a_declared_edge_ends_a_scene_to_the_frame():
    timeline = timeline_of(120)
    cutter = SceneCutter(CONFIG, timeline)
    scenes = cutter.edge([Transition(60, 60)], "discontinuity")
    for index in range(120, 240):
        timeline.add(index, 1)
    scenes += cutter.edge([], "end")
    assert scenes == [
        Scene(0, 57, "start", "cut", None),
        Scene(63, 120, "cut", "discontinuity", None, shot=1),
        Scene(120, 240, "discontinuity", "end", None, shot=2),
    ]


def test_pieces_of_a_long_shot_are_of_one_shot_and_scenes_beside_a_transition_of_two():
    config = SceneConfig(max_s=4)
    transitions = [Transition(240, 240), Transition(340, 350, "dissolve")]
    scenes = scenes_of(timeline_of(460), transitions, config)
    assert [scene.cut_in for scene in scenes if scene.shot == 0] == ["start", "stride", "stride"]
    assert [scene.shot for scene in scenes if scene.start >= 240] == [1, 2, 2]


def test_a_shot_that_goes_on_behind_a_declared_edge_stays_one():
    timeline = timeline_of(60)
    cutter = SceneCutter(SceneConfig(), timeline)
    scenes = cutter.edge([], "damage")
    cutter.go_on()
    for _ in range(60):
        timeline.add(None, 1)
    scenes += cutter.edge([], "discontinuity")
    for _ in range(60):
        timeline.add(None, 1)
    scenes += cutter.edge([], "end")
    assert [scene.shot for scene in scenes] == [0, 0, 1]


def test_settings_out_of_range_are_named():
    with pytest.raises(ValueError, match="max_s must be 2"):
        SceneConfig(max_s=1.0)
