"""The whole way from a prompt to files that another program's decoder reads."""

import gc
import json
import re
import subprocess
import weakref
from dataclasses import replace

import numpy as np
import pytest

from inference.cascade import Request, cascade, sample_to_file, stage_files
from inference.memory import Machine, Models
from inference.settings import CascadeConfig, StageSettings
from inference.tiles import Tiling
from inference.video_file import Video, read_video
from inference.weights import TinyWeights

ALL = ("base", "interpolation", "super_resolution")
FEW = StageSettings(steps=2)
SMALL = CascadeConfig(
    height=8,
    width=16,
    num_frames=3,
    base=FEW,
    interpolation=FEW,
    super_resolution=replace(FEW, steps=1),
)


@pytest.fixture
def models():
    """``models(keep=True)``: tiny weights of every stage."""

    def build(**options):
        return Models({stage: TinyWeights(stage=stage) for stage in ALL}, Machine(), **options)

    return build


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        (("base",), ("16x8", "8 fps", "3")),
        (("base", "interpolation"), ("16x8", "24 fps", "9")),
        (("base", "super_resolution"), ("64x32", "8 fps", "3")),
        (ALL, ("64x32", "24 fps", "9")),
    ],
    ids=["base", "interpolation", "super-resolution", "all"],
)
def test_each_way_through_the_cascade_gives_a_file_that_ffmpeg_reads(
    stages, expected, models, ffmpeg_exe, tmp_path
):
    size, fps, frames = expected
    out = tmp_path / "panda.mp4"
    files = sample_to_file(Request(prompt="a panda"), replace(SMALL, stages=stages), models(), out)
    assert files == list(stage_files(out, stages).values())
    assert all(file.is_file() for file in files)
    done = subprocess.run(
        [ffmpeg_exe, "-nostdin", "-hide_banner", "-i", str(out), "-f", "null", "-"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert re.search(rf"h264.* {size}[ ,]", done.stderr)
    assert fps in done.stderr
    assert re.findall(r"frame= *(\d+)", done.stderr)[-1] == frames


def test_the_file_says_what_made_it(models, tmp_path):
    request = Request(prompt="a panda", seed=7)
    out = tmp_path / "panda.mp4"
    sample_to_file(request, replace(SMALL, stages=("base", "interpolation")), models(), out)
    said = json.loads((tmp_path / "panda.mp4.json").read_text("utf-8"))
    assert (said["prompt"], said["seed"]) == ("a panda", 7)
    assert said["stages"] == ["base", "interpolation"]
    assert said["weights_sha256"] == dict.fromkeys(said["stages"], "tiny-untrained-seed-0")
    assert said["settings"]["interpolation"]["steps"] == 2
    assert read_video(out).description == said
    base = json.loads((tmp_path / "panda-base.mp4.json").read_text("utf-8"))
    assert base["stages"] == ["base"]


def test_prompt_and_seed_decide_the_video(models):
    first, again, other_seed, other_prompt = (
        cascade(request, SMALL, models()).frames_THWC
        for request in (
            Request(prompt="a panda", seed=1),
            Request(prompt="a panda", seed=1),
            Request(prompt="a panda", seed=2),
            Request(prompt="snow", seed=1),
        )
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other_seed)
    assert not np.array_equal(first, other_prompt)


def test_a_stage_may_have_its_own_seed(models):
    pinned = replace(SMALL, base=replace(FEW, seed=1))
    first, same = (
        cascade(Request(prompt="a panda", seed=seed), pinned, models()) for seed in (1, 2)
    )
    assert np.array_equal(first.frames_THWC, same.frames_THWC)


def test_the_stage_before_is_out_of_memory_when_the_next_comes_in(models):
    alive = []
    held = models(adjust=lambda pipeline: alive.append(weakref.ref(pipeline.unet)))
    stages_alive = []

    def look(stage, done, _total):
        if done:
            return
        gc.collect()
        stages_alive.append((stage, sum(ref() is not None for ref in alive)))

    cascade(Request(prompt="a"), replace(SMALL, stages=ALL), held, on_step=look)
    assert {count for _, count in stages_alive} == {1}
    assert len(alive) == 3
    gc.collect()
    assert all(ref() is None for ref in alive)


def test_kept_models_are_loaded_once_and_give_the_same_video(models):
    loaded = []
    kept = models(keep=True, adjust=lambda pipeline: loaded.append(pipeline.stage))
    config = replace(SMALL, stages=("base", "interpolation"))
    videos = [cascade(Request(prompt="a"), config, kept).frames_THWC for _ in range(2)]
    assert loaded == ["base", "interpolation"]
    assert np.array_equal(*videos)


def test_noise_of_a_device_without_networks_is_refused(models):
    with pytest.raises(ValueError, match="noise_from cuda needs the networks there, got cpu"):
        cascade(Request(prompt="a"), replace(SMALL, noise_from="cuda"), models())


def test_a_given_video_stands_for_the_base_stage(models, clip_THWC):
    given = Video(frames_THWC=clip_THWC(frames=3), fps=10.0, description={"prompt": "before"})
    config = replace(SMALL, stages=("super_resolution",))
    video = cascade(Request(prompt="a", given=given), config, models())
    assert video.frames_THWC.shape == (3, 64, 96, 3)
    assert video.fps == 10.0
    assert video.description["given"]["description"] == {"prompt": "before"}


def test_low_memory_shows_nearly_the_same_video(models):
    request = Request(prompt="a panda", seed=1)
    plain = cascade(request, SMALL, models()).frames_THWC
    low = Models({"base": TinyWeights(stage="base")}, Machine(low_memory=True))
    assert np.abs(cascade(request, SMALL, low).frames_THWC.astype(int) - plain).max() <= 1


def test_progress_counts_the_independent_pieces(models, clip_THWC):
    seen = []
    config = replace(SMALL, stages=("super_resolution",), tiling=Tiling(frames=2, frame_overlap=0))
    given = Video(frames_THWC=clip_THWC(frames=3, size=(8, 8)), fps=8.0)
    cascade(
        Request(prompt="a", given=given), config, models(), on_step=lambda *step: seen.append(step)
    )
    assert seen == [("super_resolution", done, 2) for done in range(3)]


def test_long_videos_go_through_all_windows(models):
    config = replace(
        SMALL,
        stages=("base", "interpolation"),
        height=8,
        width=8,
        num_frames=18,
        window_overlap=8,
        base=replace(FEW, steps=1),
    )
    assert len(cascade(Request(prompt="a"), config, models()).frames_THWC) == 69


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stages": ("interpolation", "base")}, "stages must be some of base, interpolation"),
        ({"stages": ()}, "stages must be some of"),
        ({"height": 100}, "multiples of 8, got 100x16"),
        ({"num_frames": 33}, "num_frames must be 1 to 32 without window_overlap, got 33"),
        ({"num_frames": 17, "stages": ALL}, "num_frames must be 1 to 16 without window_overlap"),
        ({"window_overlap": 16}, "window_overlap must be 0 to 15, got 16"),
        ({"noise_from": "gpu"}, "noise_from must be cpu or cuda, got 'gpu'"),
        ({"interpolation": StageSettings(steps=1)}, "interpolation.steps must be at least 2"),
    ],
)
def test_a_way_that_leads_nowhere_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **change)


@pytest.mark.parametrize(
    ("stages", "shape", "message"),
    [
        (("interpolation",), None, "a video must be given where the base stage is left out"),
        (("base",), (3, 16, 16, 3), "a video must be given where the base stage is left out"),
        (("interpolation",), (17, 16, 16, 3), "2 to 16 frames to be interpolated"),
        (("interpolation",), (1, 16, 16, 3), "2 to 16 frames to be interpolated"),
        (("super_resolution",), (3, 18, 16, 3), "multiples of 8, got 18x16"),
    ],
    ids=["nothing-given", "both", "too-many", "one", "size"],
)
def test_a_given_video_that_does_not_fit_is_refused_before_any_work(stages, shape, message, models):
    given = None if shape is None else Video(frames_THWC=np.zeros(shape, np.uint8), fps=8.0)
    held = models(adjust=lambda _pipeline: pytest.fail("weights were loaded"))
    with pytest.raises(ValueError, match=message):
        cascade(Request(prompt="a", given=given), replace(SMALL, stages=stages), held)
