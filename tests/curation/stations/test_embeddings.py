"""The embeddings station against open_clip's and timm's own ways."""

from __future__ import annotations

import numpy as np
import pytest

from curation.errors import MissingWeights
from curation.stations.clip_model import ClipModel
from curation.stations.embeddings import (
    Embeddings,
    EmbeddingsConfig,
    lite0_input,
    mean_direction,
    with_unit_length,
)
from curation.stations.keyframe_images import open_keyframe
from curation.stations.station import check_output
from curation.weights.catalog import EFFICIENTNET_LITE0
from curation.weights.torchvision_shim import ensure_torchvision


@pytest.fixture
def clips(keyframe_clips, noise_picture):
    lengths = [2, 0, 3, 1]
    pictures = iter(noise_picture(seed) for seed in range(sum(lengths)))
    return keyframe_clips([[next(pictures) for _ in range(n)] for n in lengths])


def station_of(clip: ClipModel, **changes) -> Embeddings:
    station = Embeddings(EmbeddingsConfig(clip=clip, **changes))
    station.setup()
    return station


def test_clip_embeddings_are_those_that_open_clip_gives_picture_by_picture(clips, tiny_clip_folder):
    station = station_of(ClipModel(architecture=str(tiny_clip_folder), precision="fp32"))
    added = station(clips)
    check_output(station, clips, added)

    import open_clip
    import torch

    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{tiny_clip_folder}")
    model.eval()
    for frames, units, norms in zip(
        clips["keyframes"].to_pylist(),
        added["frame_embeddings"].to_pylist(),
        added["frame_norms"].to_pylist(),
        strict=True,
    ):
        assert len(frames) == len(units) == len(norms)
        for data, unit, norm in zip(frames, units, norms, strict=True):
            with torch.no_grad():
                wanted = model.encode_image(preprocess(open_keyframe(data))[None])[0].numpy()
            np.testing.assert_allclose(np.array(unit) * norm, wanted, atol=2e-5)
            np.testing.assert_allclose(np.linalg.norm(unit), 1.0, atol=1e-6)
    assert added["embedding_model"].to_pylist() == ["tiny-clip"] * 4


def test_the_clip_embedding_is_the_mean_direction_and_empty_without_keyframes(
    clips, tiny_clip_folder
):
    added = station_of(ClipModel(architecture=str(tiny_clip_folder), precision="fp32"))(clips)
    first = np.array(added["frame_embeddings"][0].as_py())
    wanted = first.sum(axis=0) / np.linalg.norm(first.sum(axis=0))
    np.testing.assert_allclose(added["embedding"][0].as_py(), wanted, atol=1e-6)
    assert added["embedding"][1].as_py() == []
    assert added["frame_embeddings"][1].as_py() == []
    assert added["frame_norms"][1].as_py() == []


def test_the_same_table_gives_the_same_bytes_and_batch_size_changes_digits_only(
    clips, tiny_clip_folder
):
    clip = ClipModel(architecture=str(tiny_clip_folder), precision="fp32")
    one = station_of(clip, batch_size=2)
    assert one(clips).equals(one(clips))
    other = station_of(clip, batch_size=5)(clips)
    for a, b in zip(
        one(clips)["embedding"].to_pylist(), other["embedding"].to_pylist(), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_bf16_weights_keep_the_direction(clips, tiny_clip_folder):
    exact = station_of(ClipModel(architecture=str(tiny_clip_folder), precision="fp32"))(clips)
    short = station_of(ClipModel(architecture=str(tiny_clip_folder), precision="bf16"))(clips)
    for a, b in zip(exact["embedding"].to_pylist(), short["embedding"].to_pylist(), strict=True):
        if a:
            assert np.dot(a, b) > 0.999


@pytest.mark.slow
def test_a_checkpoint_given_as_a_path_is_read_as_its_tag_was_trained(
    keyframe_clips, noise_picture, tmp_path
):
    ensure_torchvision()
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    trained = open_clip.create_model("ViT-B-32", force_quick_gelu=True).eval()
    path = tmp_path / "b32.safetensors"
    save_file(trained.state_dict(), path)
    clips = keyframe_clips([[noise_picture(1)]])
    clip = ClipModel(
        architecture="ViT-B-32", pretrained="openai", checkpoint=str(path), precision="fp32"
    )
    added = station_of(clip)(clips)
    picture = open_keyframe(clips["keyframes"][0].as_py()[0])
    preprocess = open_clip.image_transform(224, is_train=False)
    with torch.no_grad():
        wanted = trained.encode_image(preprocess(picture)[None])[0].numpy()
    np.testing.assert_allclose(
        added["frame_embeddings"][0].as_py()[0], wanted / np.linalg.norm(wanted), atol=1e-4
    )
    assert added["embedding_model"][0].as_py() == "ViT-B-32/openai"


@pytest.mark.embedded
def test_efficientnet_lite0_gives_timms_features(keyframe_clips, noise_picture, real_weight):
    path = real_weight(EFFICIENTNET_LITE0)
    clips = keyframe_clips([[noise_picture(1), noise_picture(2, (180, 320))], []])
    station = Embeddings(EmbeddingsConfig(engine="efficientnet_lite0"))
    station.setup()
    added = station(clips)
    check_output(station, clips, added)

    import timm
    import torch

    # timm's own port of the network, with the same numbers: its layers come in the same order.
    other = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    ours = torch.load(path, weights_only=True)
    names = [name for name in other.state_dict() if "num_batches" not in name]
    values = [value for name, value in ours.items() if "num_batches" not in name]
    assert [other.state_dict()[n].shape for n in names] == [v.shape for v in values]
    other.load_state_dict(dict(zip(names, values, strict=True)), strict=False)
    pixels = np.stack([lite0_input(open_keyframe(d)) for d in clips["keyframes"][0].as_py()])
    with torch.no_grad():
        wanted = other.forward_head(other.forward_features(torch.from_numpy(pixels)), True).numpy()
    units, norms = added["frame_embeddings"][0].as_py(), added["frame_norms"][0].as_py()
    np.testing.assert_allclose(np.array(units) * np.array(norms)[:, None], wanted, atol=2e-3)
    assert added["embedding_model"].to_pylist() == ["efficientnet-lite0"] * 2
    assert added.equals(station(clips))


def test_the_lite0_input_is_what_the_lite_models_take(keyframe_clips):
    from PIL import Image

    pixels = lite0_input(Image.new("RGB", (640, 360), (127, 255, 0)))
    assert pixels.shape == (3, 224, 224)
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels[:, 0, 0], [0.0, 1.0, -127 / 128])


def test_unit_length_and_mean_direction_by_hand():
    units, norms = with_unit_length(np.array([[3.0, 4.0], [0.0, 0.0]], np.float32))
    np.testing.assert_allclose(units, [[0.6, 0.8], [0.0, 0.0]], atol=1e-7)
    np.testing.assert_allclose(norms, [5.0, 0.0])
    mean = mean_direction(np.array([[1.0, 0.0], [0.0, 1.0]], np.float32))
    np.testing.assert_allclose(mean, [0.5**0.5] * 2, atol=1e-6)


def test_a_missing_or_unknown_checkpoint_is_said_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setenv("LAVIE_CACHE", str(tmp_path))
    with pytest.raises(MissingWeights, match="no source of weights is known"):
        Embeddings(EmbeddingsConfig(clip=ClipModel(pretrained="no-such-tag"))).weights()
    station = Embeddings(EmbeddingsConfig(clip=ClipModel(checkpoint=str(tmp_path / "gone.pt"))))
    with pytest.raises(MissingWeights, match=r"gone\.pt"):
        station.setup()


@pytest.mark.parametrize(
    "change", [{"engine": "resnet"}, {"batch_size": 0}, {"num_threads": 0}, {"gpu_share": -1.0}]
)
def test_settings_out_of_range_are_refused_by_name(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        EmbeddingsConfig(**change)
