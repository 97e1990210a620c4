import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from curation.errors import MissingWeights, ModelUnavailable
from curation.stations.caption_models.captioner import Question, Sampling
from curation.stations.caption_models.prompts import load_prompt
from curation.stations.caption_models.settings import TransformersConfig
from curation.stations.caption_models.transformers_model import TransformersCaptioner
from curation.stations.captions import Captions, CaptionsConfig
from curation.stations.station import check_output, made_by

COLOURS = ("red", "green", "blue")
PROMPT = "clip-json@1"


@pytest.fixture(scope="session")
def llava(tmp_path_factory, tools):
    """Folder of an untaught LLaVA: another class, another processor, pictures only."""
    from curation.weights.torchvision_shim import ensure_torchvision

    ensure_torchvision()
    import torch
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    torch.manual_seed(0)
    tokens = tools.tokenizer(["<image>"])
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
        projection_dim=32,
    )
    text = LlamaConfig(
        vocab_size=len(tokens),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        eos_token_id=tokens.eos_token_id,
        pad_token_id=tokens.pad_token_id,
    )
    image_token = tokens.convert_tokens_to_ids("<image>")
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=image_token,
        vision_feature_layer=-1,
    )
    pictures = CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    processor = LlavaProcessor(
        image_processor=pictures,
        tokenizer=tokens,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=tools.CHATML.replace("IMAGE", "<image>"),
    )
    folder = tmp_path_factory.mktemp("models") / "tiny-llava"
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def configured(folder, *, max_tokens=64, **changes):
    settings = {"model": str(folder), "dtype": "float32", "batch_size": 4, "device": "cpu"}
    return CaptionsConfig(
        engines=("transformers",),
        transformers=TransformersConfig(**(settings | changes)),
        max_tokens=max_tokens,
    )


def ready(config):
    station = Captions(config)
    station.check()
    station.setup()
    return station


def test_each_clip_gets_the_caption_of_its_own_frames_across_batches(taught, tools):
    order = [COLOURS[i] for i in np.random.default_rng(3).integers(0, 3, 10)]
    clips = tools.clips_table([[tools.picture(c)] * (1 + i % 3) for i, c in enumerate(order)])
    station = ready(configured(taught))
    added = station(clips)
    check_output(station, clips, added)
    assert added["caption"].to_pylist() == [json.loads(tools.answer(c))["short"] for c in order]
    assert added["caption_subject"].to_pylist() == [f"{c} wall" for c in order]
    assert set(added["caption_status"].to_pylist()) == {"ok"}
    assert set(added["caption_engine"].to_pylist()) == {"transformers"}


def test_the_batch_size_changes_the_speed_and_no_caption(taught, tools):
    clips = tools.clips_table([[tools.picture(c)] for c in COLOURS])
    together = ready(configured(taught, batch_size=3))
    alone = ready(configured(taught, batch_size=1))
    assert together(clips).equals(alone(clips))
    assert made_by(together) == made_by(alone)


def test_tokens_are_those_of_prompt_and_answer(taught, tools):
    station = ready(configured(taught))
    (row,) = station(tools.clips_table([[tools.picture("red")] * 2])).to_pylist()
    tokens = station.captioner.processor.tokenizer
    assert row["caption_tokens_out"] == len(tokens.encode(tools.answer("red") + "<|im_end|>"))
    template = station.captioner.processor.apply_chat_template
    # Each 28x28 picture is one merged patch: its placeholder stands for one token.
    prompt = template(tools.conversation([None, None]), add_generation_prompt=True)
    assert row["caption_tokens_in"] == len(tokens.encode(prompt))
    assert station.counters()["tokens in"] == row["caption_tokens_in"]


def test_an_answer_that_runs_into_the_limit_is_cut_short(taught, tools):
    station = ready(configured(taught, max_tokens=3))
    (row,) = station(tools.clips_table([[tools.picture("red")]])).to_pylist()
    assert (row["caption_status"], row["caption_reason"]) == ("failed", "cut_short")
    assert row["caption_tokens_out"] == 3


def test_a_film_shown_as_video_is_answered_too(taught, tools):
    station = ready(configured(taught, message="video"))
    clips = tools.clips_table([[tools.picture("red")] * n for n in (1, 4)])
    added = station(clips)
    check_output(station, clips, added)
    assert all(added["caption_tokens_in"].to_pylist())


def test_llava_goes_the_same_way(llava, tools):
    station = ready(configured(llava, max_tokens=8))
    clips = tools.clips_table([[tools.picture("red")] * n for n in (2, 3)])
    added = station(clips)
    check_output(station, clips, added)
    assert set(added["caption_status"].to_pylist()) == {"failed"}  # it was taught nothing
    two, three = added["caption_tokens_in"].to_pylist()
    assert three >= two + 4  # (28 / 14)^2 patches for the third picture


def test_sampling_at_a_temperature_gives_the_same_twice(taught, tools):
    clips = tools.clips_table([[tools.picture(c)] for c in COLOURS])
    config = replace(configured(taught), temperature=1.5)
    assert ready(config)(clips).equals(ready(config)(clips))


def test_other_bytes_of_the_model_make_another_layer(taught, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(taught, copy)
    first, same = made_by(Captions(configured(taught))), made_by(Captions(configured(copy)))
    assert first["weights"] == same["weights"]
    assert "model.safetensors" in first["weights"]
    data = bytearray((copy / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (copy / "model.safetensors").write_bytes(data)
    assert made_by(Captions(configured(copy)))["weights"] != first["weights"]


def test_a_model_that_takes_no_images_is_refused_before_any_work(tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=32,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
        )
    ).save_pretrained(tmp_path)
    with pytest.raises(ModelUnavailable, match="'llama' is no image-text-to-text model; choose"):
        Captions(configured(tmp_path)).check()


def test_a_model_without_a_chat_template_is_refused_before_any_work(taught, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(taught, copy)
    (copy / "chat_template.jinja").unlink()
    with pytest.raises(ModelUnavailable, match=r"has no chat_template"):
        Captions(configured(copy)).check()


def test_a_model_that_knows_no_video_is_refused_a_video_before_any_work(llava):
    with pytest.raises(ModelUnavailable, match=r"no video_processor.*message 'images'"):
        Captions(configured(llava, message="video")).check()


def test_a_model_that_is_not_there_is_named_with_the_command_that_gets_it(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(MissingWeights, match="hf download some/model --revision main"):
        Captions(configured("some/model")).weights()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_model_folder_that_is_not_whole_is_refused(taught, tmp_path, name):
    copy = tmp_path / "copy"
    shutil.copytree(taught, copy)
    (copy / name).unlink()
    (copy / "pytorch_model.bin").write_bytes(b"a pickle is never loaded")
    with pytest.raises(MissingWeights, match=name):
        Captions(configured(copy)).weights()


def test_a_missing_shard_of_a_large_model_is_named(taught, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(taught, copy)
    index = {"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}
    (copy / "model.safetensors").rename(copy / "model-1-of-2.safetensors")
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(MissingWeights, match=r"no model-2-of-2\.safetensors"):
        Captions(configured(copy)).weights()


def test_replies_carry_the_ids_of_their_questions(taught, tools):
    captioner = TransformersCaptioner(
        configured(taught).transformers,
        load_prompt(PROMPT),
        Sampling(max_tokens=64, temperature=0.0),
    )
    captioner.setup()
    asked = [Question(clip_id=f"{c}!", frames=(tools.picture(c),), duration_s=4.0) for c in COLOURS]
    for reply in captioner(asked):
        assert reply.clip_id[:-1] in reply.text


def test_importing_the_station_imports_no_engine():
    code = (
        "import sys, curation.stations.captions; "
        "print([n for n in ('torch', 'transformers', 'httpx2', 'vllm') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
