"""Which CLIP, from where, under which name."""

from __future__ import annotations

import pytest

from curation.stations.clip_model import ClipModel, load_clip
from curation.weights.catalog import CLIP_L14_OPENAI


def test_a_known_tag_takes_the_registered_weights():
    assert ClipModel().weights() == [CLIP_L14_OPENAI]
    assert ClipModel().label == "ViT-L-14/openai"


def test_a_folder_is_its_two_files_under_its_own_name(tiny_clip_folder):
    clip = ClipModel(architecture=str(tiny_clip_folder))
    assert [weight.path for weight in clip.weights()] == [
        str(tiny_clip_folder / "open_clip_config.json"),
        str(tiny_clip_folder / "open_clip_model.safetensors"),
    ]
    assert clip.label == "tiny-clip"


def test_loading_follows_the_folders_preprocessing(tiny_clip_folder):
    from PIL import Image

    loaded = load_clip(ClipModel(architecture=str(tiny_clip_folder), precision="fp32"))
    grey = loaded.preprocess(Image.new("RGB", (64, 64), (255, 0, 0)))
    assert grey.shape == (3, 32, 32)
    assert grey[0, 0, 0].item() == pytest.approx((1.0 - 0.5) / 0.2)
    assert grey[1, 0, 0].item() == pytest.approx(-0.4 / 0.3)
    assert not loaded.model.training


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"precision": "int3"}, "precision"),
        ({"architecture": ""}, "architecture"),
        ({"architecture": "a/folder", "checkpoint": "x"}, "checkpoint"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(change, words):
    with pytest.raises(ValueError, match=words):
        ClipModel(**change)
