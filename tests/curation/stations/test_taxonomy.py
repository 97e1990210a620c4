"""Categories and tags out of stored embeddings, against the whole networks."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from curation.errors import MissingColumn
from curation.stations.clip_model import ClipModel
from curation.stations.embeddings import Embeddings, EmbeddingsConfig, lite0_input
from curation.stations.keyframe_images import open_keyframe
from curation.stations.station import check_order, check_output
from curation.stations.taxonomy import (
    CATEGORIES,
    TEMPLATES,
    Taxonomy,
    TaxonomyConfig,
    imagenet_names,
    softmax,
)
from curation.weights.catalog import EFFICIENTNET_LITE0


def embedded(settings: EmbeddingsConfig, clips: pa.Table) -> pa.Table:
    station = Embeddings(settings)
    station.setup()
    return station(clips)


@pytest.fixture
def clips(keyframe_clips, noise_picture):
    return keyframe_clips([[noise_picture(1), noise_picture(2)], [], [noise_picture(3)]])


def test_categories_are_those_of_clip_run_by_hand(clips, tiny_clip_folder):
    clip = ClipModel(architecture=str(tiny_clip_folder), precision="fp32")
    embeddings = embedded(EmbeddingsConfig(clip=clip), clips)
    station = Taxonomy(TaxonomyConfig(clip=clip))
    station.setup()
    added = station(embeddings)
    check_output(station, embeddings, added)

    import open_clip
    import torch

    name = f"local-dir:{tiny_clip_folder}"
    model, preprocess = open_clip.create_model_from_pretrained(name)
    model.eval()
    tokenizer = open_clip.get_tokenizer(name)
    with torch.no_grad():
        texts = []
        for words in CATEGORIES.values():
            prompts = [t.format(w) for w in words for t in TEMPLATES]
            features = model.encode_text(tokenizer(prompts), normalize=True).mean(dim=0)
            texts.append(features / features.norm())
        frames = [open_keyframe(data) for data in clips["keyframes"][0].as_py()]
        images = model.encode_image(torch.stack([preprocess(f) for f in frames]), normalize=True)
        logits = model.logit_scale.exp() * images @ torch.stack(texts).T
        wanted = logits.softmax(dim=1).mean(dim=0).numpy()
    assert added["category"][0].as_py() == list(CATEGORIES)[int(wanted.argmax())]
    assert added["category_score"][0].as_py() == pytest.approx(float(wanted.max()), abs=1e-4)
    assert added["category"][1].as_py() is None
    assert added["category_score"][1].as_py() is None
    assert added["tags"].to_pylist() == [[], [], []]
    assert added.equals(station(embeddings))


@pytest.mark.embedded
def test_tags_are_those_of_the_whole_network_on_the_pictures(clips, real_weight):
    path = real_weight(EFFICIENTNET_LITE0)
    embeddings = embedded(EmbeddingsConfig(engine="efficientnet_lite0"), clips)
    station = Taxonomy(TaxonomyConfig(engine="imagenet", num_tags=3, min_tag_score=0.0))
    station.setup()
    added = station(embeddings)
    check_output(station, embeddings, added)

    import torch
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0").eval()
    network.load_state_dict(torch.load(path, weights_only=True))
    pixels = np.stack([lite0_input(open_keyframe(d)) for d in clips["keyframes"][0].as_py()])
    with torch.no_grad():
        wanted = network(torch.from_numpy(pixels)).softmax(dim=1).mean(dim=0).numpy()
    best = np.argsort(-wanted)[:3]
    assert added["tags"][0].as_py() == [imagenet_names()[k] for k in best]
    np.testing.assert_allclose(added["tag_scores"][0].as_py(), wanted[best], atol=1e-4)
    assert added["tags"][1].as_py() == []
    assert added["category"].to_pylist() == [None, None, None]


def test_the_class_names_stand_in_the_order_of_imagenet():
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    ours = imagenet_names()
    theirs = [info.index_to_description(i).lower() for i in range(1000)]
    assert len(ours) == 1000
    same = [name.lower() in described for name, described in zip(ours, theirs, strict=True)]
    # The two lists word some classes differently ('cab' and 'taxi'), and one shift would ruin all.
    assert np.mean(same) > 0.95
    assert ours[331] == "hare"


def test_tags_under_the_threshold_are_left_out_and_equal_ones_stand_in_class_order():
    station = Taxonomy(TaxonomyConfig(engine="imagenet", num_tags=5, min_tag_score=0.2))
    station._names = ["a", "b", "c", "d"]
    station._weight_KD = np.zeros((4, 2), np.float32)
    station._bias_K = np.log(np.array([0.1, 0.3, 0.3, 0.3], np.float32))
    table = pa.table(
        {
            "clip_id": ["x"],
            "frame_embeddings": pa.array([[[1.0, 0.0]]], pa.list_(pa.list_(pa.float32()))),
            "frame_norms": pa.array([[2.0]], pa.list_(pa.float32())),
            "embedding_model": ["efficientnet-lite0"],
        }
    )
    added = station(table)
    assert added["tags"].to_pylist() == [["b", "c", "d"]]
    assert added["tag_scores"].to_pylist()[0] == pytest.approx([0.3, 0.3, 0.3], abs=1e-6)


def test_an_empty_table_gives_an_empty_layer():
    station = Taxonomy(TaxonomyConfig(engine="imagenet"))
    table = pa.table(
        {
            "clip_id": pa.array([], pa.string()),
            "frame_embeddings": pa.array([], pa.list_(pa.list_(pa.float32()))),
            "frame_norms": pa.array([], pa.list_(pa.float32())),
            "embedding_model": pa.array([], pa.string()),
        }
    )
    check_output(station, table, station(table))


def test_embeddings_of_another_network_are_refused_before_any_work_and_in_it():
    taxonomy = Taxonomy(TaxonomyConfig(engine="imagenet"))
    with pytest.raises(MissingColumn, match="'efficientnet-lite0'"):
        check_order([Embeddings(), taxonomy])
    table = pa.table(
        {
            "clip_id": ["x"],
            "frame_embeddings": [[[1.0]]],
            "frame_norms": [[1.0]],
            "embedding_model": ["ViT-L-14/openai"],
        }
    )
    with pytest.raises(MissingColumn, match="'ViT-L-14/openai'"):
        taxonomy(table)


def test_softmax_neither_overflows_nor_loses_the_sum():
    probabilities = softmax(np.array([[1000.0, 1000.0, -1000.0]], np.float32))
    np.testing.assert_allclose(probabilities, [[0.5, 0.5, 0.0]])


@pytest.mark.parametrize(
    "change", [{"engine": "x"}, {"num_tags": 0}, {"min_tag_score": 2.0}, {"num_threads": 0}]
)
def test_settings_out_of_range_are_refused_by_name(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        TaxonomyConfig(**change)
