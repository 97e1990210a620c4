import json

import pytest
import torch

from training.models.text_encoder import TextEncoder

PIECES = ["a", "c", "t", "o", "n", "a</w>", "t</w>", "n</w>", "ca", "cat</w>", "on</w>"]
MERGES = ["#version: 0.2", "c a", "ca t</w>", "o n</w>"]


@pytest.fixture
def text_encoder(tmp_path):
    """A tower of two layers and a tokenizer of a few pieces, on disk as the hub has them."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    folder = tmp_path / "hub"
    words = [*PIECES, "<|startoftext|>", "<|endoftext|>"]
    source = tmp_path / "source"
    source.mkdir()
    (source / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (source / "merges.txt").write_text("\n".join(MERGES))
    tokenizer = CLIPTokenizer(str(source / "vocab.json"), str(source / "merges.txt"))
    torch.manual_seed(2)
    config = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=9,
        bos_token_id=len(words) - 2,
        eos_token_id=len(words) - 1,
        pad_token_id=len(words) - 1,
    )
    encoder = TextEncoder(CLIPTextModel(config), tokenizer)
    encoder.save(folder)
    return TextEncoder.load(folder)


def test_states_are_the_last_hidden_states_of_the_padded_prompt(text_encoder):
    states = text_encoder.encode(["a cat on", ""])
    start, end = len(PIECES), len(PIECES) + 1
    padded = [start, 5, 9, 10, *[end] * 5]
    expected = text_encoder.tower(torch.tensor([padded])).last_hidden_state
    assert states.shape == (2, text_encoder.num_tokens, text_encoder.width)
    assert torch.allclose(states[:1], expected, atol=1e-6)


def test_a_long_prompt_is_cut(text_encoder):
    long, longer = text_encoder.encode(["a " * 7, "a " * 30]).unbind()
    assert torch.allclose(long, longer)


def test_a_text_encoder_comes_back_bit_for_bit(text_encoder, tmp_path):
    text_encoder.save(tmp_path / "again")
    back = TextEncoder.load(tmp_path / "again")
    assert torch.equal(back.encode(["a cat"]), text_encoder.encode(["a cat"]))
    assert not any(p.requires_grad for p in back.parameters())


@pytest.mark.parametrize("prompts", ["a cat", []])
def test_prompts_must_be_a_sequence(prompts, text_encoder):
    with pytest.raises(ValueError, match="prompts must be a non-empty sequence of strings"):
        text_encoder.encode(prompts)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"text_encoder/config\.json is missing"):
        TextEncoder.load(tmp_path)
