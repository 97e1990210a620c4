"""LAION's heads against the embeddings that came with them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curation.errors import LavieError, MissingColumn
from curation.stations.aesthetics import HEADS, Aesthetics, AestheticsConfig, load_head
from curation.stations.clip_model import ClipModel
from curation.stations.embeddings import Embeddings, EmbeddingsConfig
from curation.stations.station import check_order, check_output, made_by

LAION = Path(__file__).parents[3].parent / "shared" / "weights" / "laion"
needs_heads = pytest.mark.skipif(not LAION.is_dir(), reason=f"LAION's heads are not in {LAION}")


def table(rows: list[list[np.ndarray]], model: str) -> pa.Table:
    """Clips with these embeddings, made unit length as the embeddings station leaves them."""
    units = [[v / np.linalg.norm(v) for v in row] for row in rows]
    return pa.table(
        {
            "clip_id": [f"clip-{i}" for i in range(len(rows))],
            "frame_embeddings": pa.array(units, pa.list_(pa.list_(pa.float32()))),
            "embedding_model": [model] * len(rows),
        }
    )


def rated(tower: str) -> list[np.ndarray]:
    return [
        np.load(LAION / f"vit_{tower}_embeddings" / f"rating{i}.npy").astype(np.float32).ravel()
        for i in range(10)
    ]


def scored(head: str, tower: str, monkeypatch) -> list[float]:
    monkeypatch.setenv("LAVIE_WEIGHTS", str(LAION))
    station = Aesthetics(AestheticsConfig(head=head))
    station.setup()
    clips = table([[v] for v in rated(tower)], HEADS[head].embedding_model)
    added = station(clips)
    check_output(station, clips, added)
    assert added["aesthetic_score"].equals(added["aesthetic_min"])
    return added["aesthetic_score"].to_pylist()


@needs_heads
def test_v2_gives_the_published_scores(monkeypatch):
    scores = scored("v2_l14", "l_14", monkeypatch)
    wanted = [1.66, 2.36, 3.07, 3.67, 4.24, 4.70, 5.07, 5.37, 5.58, 5.75]
    np.testing.assert_allclose(scores, wanted, atol=0.006)


@needs_heads
def test_v1_gives_the_published_range_in_rising_order(monkeypatch):
    scores = scored("v1_l14", "l_14", monkeypatch)
    assert scores == sorted(scores)
    np.testing.assert_allclose([scores[0], scores[-1]], [-2.46, 11.30], atol=0.006)


@needs_heads
def test_v1_of_the_small_tower_keeps_the_order_of_the_ratings(monkeypatch):
    scores = scored("v1_b32", "b_32", monkeypatch)
    assert scores == sorted(scores)


@needs_heads
def test_a_clip_has_mean_and_least_of_its_keyframes_and_null_without_any(monkeypatch):
    monkeypatch.setenv("LAVIE_WEIGHTS", str(LAION))
    station = Aesthetics()
    station.setup()
    low, high = rated("l_14")[0], rated("l_14")[9]
    added = station(table([[low, high], []], "ViT-L-14/openai"))
    assert added["aesthetic_score"][0].as_py() == pytest.approx((1.66 + 5.75) / 2, abs=0.01)
    assert added["aesthetic_min"][0].as_py() == pytest.approx(1.66, abs=0.01)
    assert added["aesthetic_score"][1].as_py() is None
    assert added["aesthetic_min"][1].as_py() is None


def test_layers_without_activations_are_multiplied_out_exactly(tmp_path):
    import torch

    torch.manual_seed(0)
    layers = torch.nn.Sequential(
        *(torch.nn.Linear(8, 12), torch.nn.Dropout(0.2), torch.nn.Linear(12, 5)),
        *(torch.nn.Dropout(0.2), torch.nn.Linear(5, 1)),
    ).eval()
    state = {f"layers.{name}": value for name, value in layers.state_dict().items()}
    torch.save(state, tmp_path / "head.pth")
    x = torch.randn(7, 8)
    ours = load_head(tmp_path / "head.pth", width=8)(x.numpy())
    np.testing.assert_allclose(ours, layers(x)[:, 0].detach().numpy(), atol=1e-6)


def test_a_head_of_another_width_is_refused(tmp_path):
    import torch

    torch.save(torch.nn.Linear(8, 1).state_dict(), tmp_path / "head.pth")
    with pytest.raises(ValueError, match="takes 8 numbers"):
        load_head(tmp_path / "head.pth", width=512)
    torch.save(torch.nn.Linear(8, 2).state_dict(), tmp_path / "two.pth")
    with pytest.raises(ValueError, match="end in one number"):
        load_head(tmp_path / "two.pth", width=8)


def test_a_head_of_ones_own_scores_the_embeddings_that_it_was_trained_on(tmp_path):
    import torch

    torch.manual_seed(0)
    layer = torch.nn.Linear(16, 1)
    torch.save(layer.state_dict(), tmp_path / "own.pth")
    config = AestheticsConfig(checkpoint=str(tmp_path / "own.pth"), trained_on="my-clip")
    station = Aesthetics(config)
    station.setup()
    frames = [torch.randn(16), torch.randn(16)]
    wanted = [layer(frame / frame.norm()).item() for frame in frames]
    added = station(table([[frame.numpy() for frame in frames]], "my-clip"))
    assert added["aesthetic_score"][0].as_py() == pytest.approx(sum(wanted) / 2, abs=1e-5)
    assert added["aesthetic_min"][0].as_py() == pytest.approx(min(wanted), abs=1e-5)
    with pytest.raises(MissingColumn, match="'my-clip', these are of 'ViT-L-14/openai'"):
        station(table([[np.ones(16, np.float32)]], "ViT-L-14/openai"))
    with pytest.raises(MissingColumn, match="takes embeddings of 16 numbers"):
        station(table([[np.ones(8, np.float32)]], "my-clip"))
    (tmp_path / "own.pth").write_bytes(b"no head")
    with pytest.raises(LavieError, match="not a head in LAION's format"):
        station.setup()
    with pytest.raises(ValueError, match="go together"):
        AestheticsConfig(checkpoint="own.pth")


def test_where_an_own_head_lies_is_no_part_of_the_layers_name(tmp_path):
    layers = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "own.pth").write_bytes(b"the same")
        config = AestheticsConfig(
            checkpoint=str(tmp_path / folder / "own.pth"), trained_on="my-clip"
        )
        layers.append(made_by(Aesthetics(config)))
    assert layers[0] == layers[1]
    # What names the layers of earlier corpora stays as it was.
    assert asdict(Aesthetics(AestheticsConfig(head="v1_l14")).settings) == {"head": "v1_l14"}


def test_a_head_that_would_run_code_is_not_loaded(tmp_path):
    import pickle

    import torch

    marker = tmp_path / "ran"

    class Runs:
        def __reduce__(self):
            return (Path.touch, (marker,))

    torch.save({"weight": Runs()}, tmp_path / "head.pth")
    with pytest.raises(pickle.UnpicklingError):
        load_head(tmp_path / "head.pth", width=8)
    assert not marker.exists()


@pytest.mark.parametrize(
    "embeddings",
    [
        EmbeddingsConfig(engine="efficientnet_lite0"),
        EmbeddingsConfig(clip=ClipModel(architecture="ViT-B-32")),
        EmbeddingsConfig(clip=ClipModel(architecture="ViT-L-14", pretrained="laion2b_s32b_b82k")),
    ],
)
def test_embeddings_of_another_network_are_refused_before_any_work(embeddings):
    with pytest.raises(MissingColumn, match="'ViT-L-14/openai'"):
        check_order([Embeddings(embeddings), Aesthetics()])


def test_the_default_stations_fit_each_other():
    check_order([Embeddings(), Aesthetics()])


def test_embeddings_of_another_network_in_the_corpus_are_refused(monkeypatch):
    with pytest.raises(MissingColumn, match="'efficientnet-lite0'"):
        Aesthetics()(table([[np.ones(1280, np.float32)]], "efficientnet-lite0"))
