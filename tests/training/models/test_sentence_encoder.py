"""The sentence encoder as a text tower, against the one that curation compares captions with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from curation.errors import MissingWeights
from curation.stations.alignment import SentenceEncoder as Pooled
from training.models.sentence_encoder import fetched_sentence_encoder
from training.models.text_encoder import TextEncoder, read_text_width

PROMPTS = ("A rabbit.", "A purple bird sits on a bare branch before a lilac sky.", "")


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder(*fetched_sentence_encoder())


def test_pooled_states_are_the_sentence_vectors_of_curation(encoder):
    states_BLD = encoder.encode(PROMPTS)
    assert states_BLD.shape == (3, 32, 384)
    is_word_BL = states_BLD.abs().sum(dim=-1) > 0
    sums_BD = states_BLD.sum(dim=1) / is_word_BL.sum(dim=1, keepdim=True)
    units_BD = (sums_BD / sums_BD.norm(dim=1, keepdim=True)).numpy()
    assert np.abs(units_BD - Pooled()(PROMPTS)).max() < 1e-6


def test_padding_has_no_state_and_long_prompts_are_cut(encoder):
    states_BLD = encoder.encode(["A rabbit.", "word " * 50])
    assert [int((row.abs().sum(dim=-1) > 0).sum()) for row in states_BLD] == [5, 32]


def test_its_folder_is_small_and_names_the_tensors(encoder, tmp_path: Path):
    encoder.save(tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < 1_000_000
    assert read_text_width(tmp_path) == 384
    assert torch.equal(TextEncoder.load(tmp_path).encode(PROMPTS), encoder.encode(PROMPTS))


def test_a_folder_that_names_other_tensors_is_refused(encoder, tmp_path: Path):
    encoder.save(tmp_path)
    config = tmp_path / "text_encoder" / "config.json"
    values = json.loads(config.read_text())
    values["weights"]["sha256"] = "0" * 64
    config.write_text(json.dumps(values))
    with pytest.raises(ValueError, match="must name the tensors of sha256 53aa"):
        TextEncoder.load(tmp_path)


def test_without_the_tensors_the_command_that_brings_them_is_named(encoder, tmp_path, monkeypatch):
    encoder.save(tmp_path / "model")
    monkeypatch.setenv("LAVIE_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr("importlib.metadata.distribution", _not_installed)
    with pytest.raises(MissingWeights, match=r"lavie weights fetch all-minilm-l6-v2\.safetensors"):
        TextEncoder.load(tmp_path / "model")


def _not_installed(name: str):
    import importlib.metadata

    raise importlib.metadata.PackageNotFoundError(name)
