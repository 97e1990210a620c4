"""Caption against keyframes by CLIP, and against tags where there is no CLIP."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from curation.errors import MissingColumn
from curation.stations.alignment import Alignment, AlignmentConfig, SentenceEncoder, tag_agreement
from curation.stations.clip_model import ClipModel
from curation.stations.embeddings import Embeddings, EmbeddingsConfig
from curation.stations.station import check_order, check_output
from curation.weights.catalog import MINILM, MINILM_TOKENIZER


def clip_of(folder):
    return ClipModel(architecture=str(folder), precision="fp32")


def with_captions(embedded: pa.Table, captions: list[str | None]) -> pa.Table:
    return embedded.append_column("caption", pa.array(captions, pa.string()))


@pytest.fixture
def embedded(tiny_clip_folder, keyframe_clips, noise_picture):
    pictures = [[noise_picture(1), noise_picture(2)], [noise_picture(3)], []]
    clips = keyframe_clips(pictures)
    station = Embeddings(EmbeddingsConfig(engine="open_clip", clip=clip_of(tiny_clip_folder)))
    station.setup()
    return station(clips), pictures


def test_similarity_is_open_clips_own_cosine(tiny_clip_folder, embedded, noise_picture):
    import open_clip
    import torch

    table, pictures = embedded
    clips = with_captions(table, ["a fox in the snow", "two dogs", "nothing to see"])
    station = Alignment(AlignmentConfig(clip=clip_of(tiny_clip_folder)))
    station.setup()
    added = station(clips)
    check_output(station, clips, added)
    rows = added.to_pylist()

    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tiny_clip_folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{tiny_clip_folder}")
    model.eval()
    with torch.inference_mode():
        text = model.encode_text(tokenizer(["a fox in the snow"]), normalize=True)
        cosines = [
            float(model.encode_image(preprocess(p)[None], normalize=True) @ text.T)
            for p in pictures[0]
        ]
    # The keyframes went through JPEG, so the pictures are not quite those.
    assert rows[0]["clip_similarity"] == pytest.approx(np.mean(cosines), abs=0.02)
    assert rows[0]["clip_similarity_min"] == pytest.approx(min(cosines), abs=0.02)
    assert rows[1]["clip_similarity"] == rows[1]["clip_similarity_min"]
    assert rows[2]["clip_similarity"] is None
    assert {row["alignment_model"] for row in rows} == {tiny_clip_folder.name}
    assert {row["tag_agreement"] for row in rows} == {None}


def test_a_clip_without_caption_has_no_similarity(tiny_clip_folder, embedded):
    station = Alignment(AlignmentConfig(clip=clip_of(tiny_clip_folder)))
    station.setup()
    added = station(with_captions(embedded[0], [None, None, None]))
    assert added["clip_similarity"].null_count == 3


def test_the_same_caption_twice_is_embedded_once_and_batches_change_nothing(
    tiny_clip_folder, embedded
):
    clips = with_captions(embedded[0], ["a fox", "a fox", "a hen"])
    results = []
    for batch_size in (1, 64):
        settings = AlignmentConfig(clip=clip_of(tiny_clip_folder), batch_size=batch_size)
        station = Alignment(settings)
        station.setup()
        results.append(station(clips)["clip_similarity"].to_pylist()[:2])
        assert len(station.embeddings(["a", "b", "a"])) == 2
    assert results[0] == pytest.approx(results[1], abs=1e-5)


def test_embeddings_of_another_network_are_refused(tiny_clip_folder, embedded):
    table = embedded[0].set_column(
        embedded[0].schema.get_field_index("embedding_model"),
        "embedding_model",
        pa.array(["efficientnet-lite0"] * 3),
    )
    station = Alignment(AlignmentConfig(clip=clip_of(tiny_clip_folder)))
    with pytest.raises(MissingColumn, match="embeddings are of 'efficientnet-lite0'"):
        station(with_captions(table, [None] * 3))


def test_a_river_with_other_embeddings_is_refused_before_any_work(tiny_clip_folder):
    from curation.stations.captions import Captions

    lite = Embeddings(EmbeddingsConfig(engine="efficientnet_lite0"))
    aligned = Alignment(AlignmentConfig(clip=clip_of(tiny_clip_folder)))
    with pytest.raises(MissingColumn, match="alignment"):
        check_order([lite, Captions(), aligned])


def test_agreement_is_the_mean_cosine_weighted_by_tag_score():
    vectors = {
        "caption": np.array([1.0, 0.0], np.float32),
        "x": np.array([1.0, 0.0], np.float32),
        "y": np.array([0.0, 1.0], np.float32),
    }
    row = {"caption": "caption", "tags": ["x", "y"], "tag_scores": [0.6, 0.2]}
    assert tag_agreement(row, vectors) == pytest.approx(0.75)


@pytest.fixture
def sentences(real_weight):
    for weight in (MINILM, MINILM_TOKENIZER):
        real_weight(weight)


@pytest.mark.embedded
def test_sentence_embeddings_are_those_of_the_model_card(sentences):
    happy, dog, very, sunny = SentenceEncoder()(
        [
            "That is a happy person",
            "That is a happy dog",
            "That is a very happy person",
            "Today is a sunny day",
        ]
    )
    # Hugging Face's documentation of sentence similarity prints these for this model.
    assert happy @ dog == pytest.approx(0.6946, abs=2e-4)
    assert happy @ very == pytest.approx(0.9429, abs=2e-4)
    assert happy @ sunny == pytest.approx(0.2569, abs=2e-4)


@pytest.mark.embedded
def test_without_clip_agreement_tells_right_captions_from_wrong_ones(sentences):
    seen = [
        ("A brown dog runs over a lawn with a ball", ["golden retriever", "tennis ball"]),
        ("Waves break on a rocky coast at dusk", ["seashore", "promontory"]),
        ("A chef slices vegetables in a kitchen", ["cleaver", "cucumber"]),
        ("A rock band plays on stage under red light", ["electric guitar", "stage"]),
    ]
    station = Alignment(AlignmentConfig(engine="tags"))
    station.setup()
    agreement = np.zeros((4, 4))
    for shift in range(4):
        clips = pa.table(
            {
                "clip_id": [f"clip-{i}" for i in range(4)],
                "caption": [seen[(i + shift) % 4][0] for i in range(4)],
                "caption_engine": ["given"] * 4,
                "tags": [tags for _, tags in seen],
                "tag_scores": pa.array([[0.5, 0.3]] * 4, pa.list_(pa.float32())),
            }
        )
        added = station(clips)
        check_output(station, clips, added)
        assert added["clip_similarity"].null_count == 4
        for i, value in enumerate(added["tag_agreement"].to_pylist()):
            agreement[i, (i + shift) % 4] = value
    right = np.diag(agreement)
    wrong = agreement[~np.eye(4, dtype=bool)]
    assert (right[:, None] > wrong).mean() > 0.9


@pytest.mark.embedded
def test_a_caption_made_of_tags_is_not_held_against_them(sentences):
    station = Alignment(AlignmentConfig(engine="tags"))
    station.setup()
    clips = pa.table(
        {
            "clip_id": ["a", "b"],
            "caption": ["A video of a fox.", "A fox"],
            "caption_engine": ["tags", "given"],
            "tags": [["fox"], []],
            "tag_scores": pa.array([[0.5], []], pa.list_(pa.float32())),
        }
    )
    assert station(clips)["tag_agreement"].to_pylist() == [None, None]


def test_settings_out_of_range_are_refused_by_name():
    with pytest.raises(ValueError, match=r"alignment\.batch_size"):
        AlignmentConfig(batch_size=0)
    with pytest.raises(ValueError, match=r"alignment\.engine"):
        AlignmentConfig(engine="clip_score")
