from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curation.corpus.schema import SOURCES, schema
from curation.decode.decoding_pass import DecodeConfig, DecodingPass
from curation.decode.scenes import SceneConfig, Transition
from curation.decode.transnet import TransNetFinder, load_transnet, predict, small_rgb
from curation.errors import MissingWeights
from curation.weights.catalog import TRANSNETV2, find


@pytest.fixture(scope="module")
def weights() -> Path:
    try:
        return find(TRANSNETV2)
    except MissingWeights as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def network(weights):
    import torch

    torch.set_num_threads(1)
    return load_transnet(weights)


def pictures(scene_frames, *looks: tuple[str, int]) -> list[np.ndarray]:
    return [
        np.ascontiguousarray(frame[..., ::-1])
        for look, num in looks
        for frame in scene_frames(look, num, size=(256, 144), speed_px=1)
    ]


def found(network, frames: list[np.ndarray]) -> list[Transition]:
    finder = TransNetFinder(network, threshold=0.5)
    transitions = []
    for frame in frames:
        transitions += finder.push(frame)
    return transitions + finder.finish()


def test_hard_cuts_are_found_to_the_frame_across_windows(network, scene_frames):
    frames = pictures(scene_frames, ("red", 40), ("teal", 35), ("white", 50))
    assert found(network, frames) == [Transition(40, 40), Transition(75, 75)]


def test_a_dissolve_is_found_as_one_transition(network, scene_frames):
    first = pictures(scene_frames, ("red/1", 70))
    second = pictures(scene_frames, ("cyan/1", 70))
    blend = [
        (first[50 + i] * (1 - w) + second[i] * w).astype(np.uint8)
        for i, w in enumerate(np.linspace(0.05, 0.95, 20))
    ]
    (transition,) = found(network, [*first[:50], *blend, *second[20:]])
    assert transition.kind == "dissolve"
    assert transition.end == pytest.approx(50, abs=3)
    assert transition.start == pytest.approx(70, abs=3)


@pytest.mark.slow
def test_streamed_windows_give_the_prediction_of_the_package(network, scene_frames):
    import torch

    frames = pictures(scene_frames, ("red", 60), ("teal", 53))
    small = np.stack([small_rgb(frame) for frame in frames])
    with torch.inference_mode():
        expected = torch.stack(network.predict_frames(torch.from_numpy(small), quiet=True))
    padded = np.concatenate([small[:1].repeat(25, 0), small, small[-1:].repeat(62, 0)])
    ours = [predict(network, padded[start : start + 100])[:, 25:75] for start in (0, 50, 100)]
    assert np.concatenate(ours, axis=1)[:, :113] == pytest.approx(expected.numpy(), abs=1e-6)


def test_a_film_shorter_than_a_window_is_one_shot(network, scene_frames):
    assert found(network, pictures(scene_frames, ("red", 7))) == []


@pytest.mark.slow
def test_it_runs_in_the_guard_as_the_detector_of_the_one_pass(tmp_path, weights, make_video):
    path = make_video(tmp_path / "film.mp4", (("red", 60), ("teal", 60)))
    decoding = DecodingPass(DecodeConfig(scenes=SceneConfig(detector="transnet", trim_frames=0)))
    assert decoding.weights() == (TRANSNETV2,)
    decoding.setup()
    try:
        tables = decoding(pa.Table.from_pylist([{"uri": str(path)}], schema=schema(SOURCES)))
    finally:
        decoding.close()
    assert tables["probe"]["source_reject"].to_pylist() == [None]
    assert tables["scenes"]["start_frame"].to_pylist() == [0, 60]
    assert [len(row) for row in tables["keyframes"]["keyframes"].to_pylist()] == [8, 8]
