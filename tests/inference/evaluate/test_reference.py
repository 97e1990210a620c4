"""References kept in files: what comes back, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from inference.evaluate.protocols import View, ucf101
from inference.evaluate.reference import Reference, load_reference, made_by, save_reference

SHA256 = "a" * 64


@pytest.fixture
def features_ND() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)


def test_kept_features_come_back_with_their_facts(tmp_path: Path, features_ND: np.ndarray) -> None:
    made = made_by(ucf101(), SHA256)
    save_reference(Reference.of(features_ND, {"count": 6}), tmp_path / "r.safetensors", made)
    read = load_reference(tmp_path / "r.safetensors", made)
    np.testing.assert_array_equal(read.features, features_ND)
    np.testing.assert_allclose(read.gaussian.covariance, np.cov(features_ND.T), rtol=1e-6)
    assert read.facts["count"] == 6
    assert len(read.facts["file_sha256"]) == 64


def test_features_of_another_extractor_or_view_are_refused(
    tmp_path: Path, features_ND: np.ndarray
) -> None:
    made = made_by(ucf101(), SHA256)
    save_reference(Reference.of(features_ND, {}), tmp_path / "r.safetensors", made)
    with pytest.raises(ValueError, match=r"extractor_sha256 is a{64}, the protocol has b{64}"):
        load_reference(tmp_path / "r.safetensors", made_by(ucf101(), "b" * 64))
    other = replace(ucf101(), reference=View(num_frames=8))
    with pytest.raises(ValueError, match="view is"):
        load_reference(tmp_path / "r.safetensors", made_by(other, SHA256))


def test_statistics_of_other_projects_are_read_without_features(
    tmp_path: Path, features_ND: np.ndarray
) -> None:
    sigma = np.cov(features_ND.T)
    np.savez(tmp_path / "r.npz", mu=features_ND.mean(axis=0), sigma=sigma)
    read = load_reference(tmp_path / "r.npz", made_by(ucf101(), SHA256))
    assert read.features is None
    np.testing.assert_array_equal(read.gaussian.covariance, sigma)
    assert read.facts["made"] == "not said by the file"


def test_pickled_arrays_are_not_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "r.npz", mu=np.array([{}]), sigma=np.array([{}]), allow_pickle=True)
    with pytest.raises(ValueError, match="holds no arrays mu and sigma"):
        load_reference(tmp_path / "r.npz", {})


@pytest.mark.parametrize(
    "arrays",
    [
        {"mu": np.zeros(3)},
        {"mu": np.zeros(3), "sigma": np.zeros((2, 2))},
        {"mu": np.zeros(2), "sigma": np.full((2, 2), np.nan)},
    ],
    ids=["no sigma", "widths", "nan"],
)
def test_statistics_that_are_none_are_refused(
    tmp_path: Path, arrays: dict[str, np.ndarray]
) -> None:
    np.savez(tmp_path / "r.npz", **arrays)
    with pytest.raises(ValueError, match="sigma"):
        load_reference(tmp_path / "r.npz", {})


@pytest.mark.parametrize("name", ["r.npz", "r.safetensors"])
def test_a_torn_file_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        load_reference(tmp_path / name, {})


def test_a_pickle_by_its_suffix_is_refused(tmp_path: Path) -> None:
    (tmp_path / "stats.pkl").write_bytes(b"\x80\x04N.")
    with pytest.raises(ValueError, match=r"folder, \.npz or \.safetensors"):
        load_reference(tmp_path / "stats.pkl", {})
