"""Other image weights under the same temporal layers, and learned words."""

from __future__ import annotations

import copy
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from inference.personalised import load_spatial_weights, read_textual_inversion
from inference.text_to_video import LaViePipeline
from inference.tiny import tiny_model
from training.models.grow import is_temporal
from training.models.unet import UNet


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def untouched() -> LaViePipeline:
    pipeline = LaViePipeline.from_model(tiny_model("base"))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def pipeline(untouched: LaViePipeline) -> LaViePipeline:
    return copy.deepcopy(untouched)


@pytest.fixture(scope="module")
def image_unet(untouched: LaViePipeline):
    """A real diffusers UNet at the tiny network's size, with weights of its own."""
    from diffusers import UNet2DConditionModel

    config = untouched.unet.config
    torch.manual_seed(5)
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=config.block_out_channels,
        attention_head_dim=config.num_attention_heads,
        layers_per_block=config.layers_per_block,
        cross_attention_dim=config.cross_attention_dim,
        norm_num_groups=config.norm_num_groups,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ).eval()


def test_the_image_network_shows_through_where_nothing_moves(
    pipeline, image_unet, tmp_path: Path
) -> None:
    # With temporal layers that add nothing, one frame of the video network is the image network's.
    image_unet.save_pretrained(tmp_path / "unet", safe_serialization=True)
    pipeline.load_spatial_weights(tmp_path)
    for name, parameter in pipeline.unet.named_parameters():
        if "attn_temp.to_out" in name:
            parameter.data.zero_()
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(1, 4, 8, 8, generator=generator)
    text = torch.randn(1, 77, image_unet.config.cross_attention_dim, generator=generator)
    with torch.no_grad():
        expected = image_unet(sample, 10, text).sample
        got = pipeline.unet(sample[:, :, None], torch.tensor([10]), text)[:, :, 0]
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_temporal_layers_stay_and_all_others_change(untouched, image_unet, tmp_path: Path) -> None:
    net = copy.deepcopy(untouched.unet).to(torch.bfloat16)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    save_file(image_unet.state_dict(), tmp_path / "dreambooth.safetensors")
    load_spatial_weights(net, tmp_path / "dreambooth.safetensors")
    image = image_unet.state_dict()
    for key, value in net.state_dict().items():
        expected = before[key] if is_temporal(key) else image[key].to(torch.bfloat16)
        assert torch.equal(value, expected), key


RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


def original_name(key: str, layers: int) -> str:
    """The name of a diffusers key in CompVis' UNet: its lists count resnets and samplers in a row."""
    for ours, theirs in ENDS.items():
        if key.startswith(f"{ours}."):
            return key.replace(ours, theirs, 1)
    part, *rest = key.split(".")
    if part == "mid_block":
        kind, index, tail = rest[0], int(rest[1]), rest[2:]
        stem = f"middle_block.{2 * index if kind == 'resnets' else 1}"
    else:
        block, kind, index, tail = int(rest[0]), rest[1], int(rest[2]), rest[3:]
        list_name = "input_blocks" if part == "down_blocks" else "output_blocks"
        first = block * (layers + 1) + (part == "down_blocks")
        if kind == "downsamplers":
            return ".".join([list_name, str(first + layers), "0.op", *tail[1:]])
        if kind == "upsamplers":  # after the attention, where the level has one: all but the first
            return ".".join([list_name, str(first + layers), str(2 if block else 1), *tail])
        stem = f"{list_name}.{first + index}.{0 if kind == 'resnets' else 1}"
    if kind == "resnets":
        tail = [RESNET[tail[0]], *tail[1:]]
    return ".".join([stem, *tail])


@pytest.fixture
def single_file(untouched, image_unet, tmp_path: Path) -> Path:
    """A whole model in one file under the original names, autoencoder and constants included."""
    layers = image_unet.config.layers_per_block
    state = {
        f"model.diffusion_model.{original_name(key, layers)}": value
        for key, value in image_unet.state_dict().items()
    }
    for key, value in untouched.text_encoder.state_dict().items():
        state[f"cond_stage_model.transformer.text_model.{key}"] = 1.5 * value
    state["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(77)
    state["first_stage_model.quant_conv.bias"] = torch.zeros(8)
    state["betas"] = torch.zeros(1000)
    save_file(state, tmp_path / "photoreal.safetensors")
    return tmp_path / "photoreal.safetensors"


def test_a_single_file_in_the_original_naming_is_the_same_network(
    pipeline, image_unet, single_file: Path
) -> None:
    pipeline.load_spatial_weights(single_file)
    state = pipeline.unet.state_dict()
    for key, value in image_unet.state_dict().items():
        assert torch.equal(state[key], value), key


def test_a_single_files_text_encoder_takes_the_others_place(pipeline, single_file: Path) -> None:
    before = {key: value.clone() for key, value in pipeline.text_encoder.state_dict().items()}
    pipeline.load_text_encoder(single_file)
    for key, value in pipeline.text_encoder.state_dict().items():
        assert torch.equal(value, 1.5 * before[key]), key


def test_an_image_network_of_another_size_changes_nothing(
    pipeline, image_unet, tmp_path: Path
) -> None:
    before = {key: value.clone() for key, value in pipeline.unet.state_dict().items()}
    image_unet.save_pretrained(tmp_path / "unet")
    config = tmp_path / "unet" / "config.json"
    config.write_text(
        config.read_text().replace('"cross_attention_dim": 32', '"cross_attention_dim": 8')
    )
    with pytest.raises(ValueError, match="cross_attention_dim is 8, expected 32"):
        pipeline.load_spatial_weights(tmp_path)
    state = {**image_unet.state_dict(), "extra.weight": torch.zeros(1)}
    del state["conv_out.bias"]
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"missing conv_out\.bias\n  unexpected extra\.weight"):
        pipeline.load_spatial_weights(tmp_path / "other.safetensors")
    assert all(torch.equal(v, before[k]) for k, v in pipeline.unet.state_dict().items())


def test_the_origin_says_whose_image_layers_are_there(pipeline, image_unet, tmp_path: Path) -> None:
    save_file(image_unet.state_dict(), tmp_path / "dreambooth.safetensors")
    pipeline.load_spatial_weights(tmp_path / "dreambooth.safetensors")
    assert pipeline.exported().origin.endswith("; image layers of dreambooth.safetensors")
    assert asdict(pipeline.unet.config) == asdict(UNet(pipeline.unet.config).config)


def test_a_trained_text_encoder_takes_the_others_place(pipeline, tmp_path: Path) -> None:
    from training.models.text_encoder import TextEncoder

    other = copy.deepcopy(pipeline.text_encoder)
    for parameter in other.parameters():
        parameter.data.mul_(1.5)
    TextEncoder(other, pipeline.tokenizer).save(tmp_path)
    expected = TextEncoder(other, pipeline.tokenizer).encode(["a cat"])
    pipeline.load_text_encoder(tmp_path)
    got = TextEncoder(pipeline.text_encoder, pipeline.tokenizer).encode(["a cat"])
    torch.testing.assert_close(got, expected)


def states(pipeline: LaViePipeline, prompt: str) -> Tensor:
    """Text states ``[L, D]`` that the network is told."""
    return pipeline._text_states([prompt], [""], guided=False)[0]


def test_a_learned_word_reads_as_its_vector(pipeline, tmp_path: Path) -> None:
    # The vector of the letter 'x' under a new word: prompts with it read as with the letter.
    letter = pipeline.tokenizer.convert_tokens_to_ids("x</w>")
    vector_D = pipeline.text_encoder.get_input_embeddings().weight[letter].detach().clone()
    save_file({"<thing>": vector_D}, tmp_path / "learned_embeds.safetensors")
    assert pipeline.load_textual_inversion(tmp_path / "learned_embeds.safetensors") == "<thing>"
    torch.testing.assert_close(states(pipeline, "a <thing> b"), states(pipeline, "a x b"))


def test_a_word_of_several_vectors_is_written_once(pipeline, tmp_path: Path) -> None:
    ids = pipeline.tokenizer.convert_tokens_to_ids(["x</w>", "y</w>", "z</w>"])
    vectors_ND = pipeline.text_encoder.get_input_embeddings().weight[ids].detach().clone()
    save_file({"emb_params": vectors_ND}, tmp_path / "style.safetensors")
    assert pipeline.load_textual_inversion(tmp_path / "style.safetensors", "<style>") == "<style>"
    torch.testing.assert_close(states(pipeline, "a <style>, b"), states(pipeline, "a x y z, b"))


def test_other_words_keep_their_meaning(pipeline, tmp_path: Path) -> None:
    before = states(pipeline, "a cat")
    save_file({"<thing>": torch.ones(32)}, tmp_path / "w.safetensors")
    pipeline.load_textual_inversion(tmp_path / "w.safetensors")
    torch.testing.assert_close(states(pipeline, "a cat"), before, rtol=0, atol=0)
    assert not any(p.requires_grad for p in pipeline.text_encoder.parameters())


def test_web_uis_pt_files_are_read_without_running_them(tmp_path: Path) -> None:
    held = {
        "string_to_token": {"*": 265},
        "string_to_param": {"*": torch.nn.Parameter(torch.ones(2, 32))},
        "name": "charturner",
        "step": 500,
    }
    torch.save(held, tmp_path / "w.pt")
    word, vectors_ND = read_textual_inversion(tmp_path / "w.pt")
    assert word == "charturner"
    assert vectors_ND.tolist() == [[1.0] * 32] * 2


def test_a_word_for_another_text_encoder_is_refused(pipeline, tmp_path: Path) -> None:
    save_file({"<thing>": torch.ones(768)}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="vectors of 32 numbers, got 768"):
        pipeline.load_textual_inversion(tmp_path / "w.safetensors")


def test_a_word_for_a_sentence_encoder_is_refused_by_its_name(pipeline, tmp_path: Path) -> None:
    from training.models.sentence_encoder import SentenceEncoder

    save_file({"<thing>": torch.ones(384)}, tmp_path / "w.safetensors")
    pipeline.register_modules(text_encoder=SentenceEncoder())
    with pytest.raises(ValueError, match="needs a CLIP text tower, got SentenceEncoder"):
        pipeline.load_textual_inversion(tmp_path / "w.safetensors")


def test_a_word_that_is_known_is_refused(pipeline, tmp_path: Path) -> None:
    save_file({"<thing>": torch.ones(32)}, tmp_path / "w.safetensors")
    pipeline.load_textual_inversion(tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="already in tokenizer vocabulary"):
        pipeline.load_textual_inversion(tmp_path / "w.safetensors")


def test_a_word_without_a_name_needs_one(pipeline, tmp_path: Path) -> None:
    save_file({"emb_params": torch.ones(32)}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="token must be one word, got None"):
        pipeline.load_textual_inversion(tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    "held",
    [
        {"a": torch.ones(2), "b": torch.ones(2)},
        {"a": torch.ones(2, 2, 2)},
        {"a": torch.full((2,), torch.nan)},
    ],
    ids=["two words", "cube", "nan"],
)
def test_a_file_that_is_no_learned_word_is_refused(tmp_path: Path, held: dict[str, Tensor]) -> None:
    save_file(held, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"w\.safetensors"):
        read_textual_inversion(tmp_path / "w.safetensors")
