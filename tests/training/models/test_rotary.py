import math

import pytest
import torch

from training.models.rotary import RelativeBias, RotaryEmbedding, relative_buckets


def t5_bucket(distance: int) -> int:
    """T5's rule for 16 buckets a direction, 8 of them exact, maximum distance 32."""
    if distance < 8:
        return distance
    return min(15, 8 + math.floor(8 * math.log2(distance / 8) / 2))


def test_buckets_follow_the_rule_of_t5_with_later_keys_in_the_upper_half():
    buckets = relative_buckets(300)
    for query, key in [(i, j) for i in range(0, 300, 13) for j in range(300)]:
        expected = t5_bucket(abs(query - key)) + (16 if key > query else 0)
        assert buckets[query, key] == expected


def test_buckets_at_the_distances_of_a_short_clip():
    row = relative_buckets(32)[:, 0].tolist()
    near = [0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 9, 9, 10, 10, 11, 11]
    assert row[:16] == near
    assert row[16:] == [12, 12, 12, 12, 13, 13, 13, 14, 14, 14, 14, 15, 15, 15, 15, 15]


def test_bias_is_indexed_head_query_key():
    bias = RelativeBias(2)
    table = bias.relative_attention_bias.weight.detach()
    got = bias(4).detach()
    assert got.shape == (2, 4, 4)
    assert torch.equal(got[:, 3, 1], table[2])
    assert torch.equal(got[:, 1, 3], table[18])


def test_scores_of_rotated_vectors_depend_on_the_distance_in_time_only():
    rotary = RotaryEmbedding()
    q, k = torch.randn(40), torch.randn(40)
    frames = 50
    turned_q = rotary(q.expand(1, frames, 40))[0].double()
    turned_k = rotary(k.expand(1, frames, 40))[0].double()
    scores = turned_q @ turned_k.T
    assert torch.allclose(scores.diagonal(5), scores[0, 5].expand(45), atol=1e-4)


def test_rotation_turns_neighbouring_pairs_and_passes_the_tail():
    rotary = RotaryEmbedding()
    x = torch.zeros(1, 2, 40)
    x[..., 2], x[..., 33] = 1, 5
    turned = rotary(x)[0, 1]
    angle = 10_000 ** (-2 / 32)
    assert turned[2] == pytest.approx(math.cos(angle))
    assert turned[3] == pytest.approx(math.sin(angle))
    assert turned[33] == 5
    assert turned.count_nonzero() == 3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_frequencies_stay_fp32_when_the_network_is_cast(dtype):
    rotary = RotaryEmbedding()
    before = rotary.freqs.clone()
    rotary.to(dtype)
    assert torch.equal(rotary.freqs, before)
    x = torch.randn(1, 61, 40)
    rounded = x.to(dtype)
    exact = rotary(rounded.float())
    assert (rotary(rounded).float() - exact).abs().max() <= exact.abs().max() * 2**-8


def test_tables_made_once_turn_as_tables_of_each_call():
    rotary = RotaryEmbedding()
    x = torch.randn(2, 3, 16, 40)
    assert torch.equal(rotary(x, rotary.tables(16)), rotary(x))


def test_the_bias_lies_as_fused_kernels_want_it():
    assert RelativeBias(5)(16).stride() == (16 * 16, 16, 1)
