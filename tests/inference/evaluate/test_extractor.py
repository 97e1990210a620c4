"""Loading a feature extractor: only the one that was meant, and only as a row a clip."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from curation.errors import LavieError
from inference.evaluate.extractor import TorchScriptExtractor, features_of


class ChannelMeans(nn.Module):
    """The mean of each channel; ten times it where asked."""

    def forward(self, video_BCTHW: Tensor, times_ten: bool = False) -> Tensor:
        means_BC = video_BCTHW.mean(dim=(2, 3, 4))
        return means_BC * 10 if times_ten else means_BC


class OneNumber(nn.Module):
    def forward(self, video_BCTHW: Tensor) -> Tensor:
        return video_BCTHW.mean()


def saved(net: nn.Module, path: Path) -> tuple[Path, str]:
    torch.jit.script(net).save(str(path))
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def test_clips_become_rows_in_their_order(tmp_path: Path) -> None:
    path, sha256 = saved(ChannelMeans(), tmp_path / "means.pt")
    extractor = TorchScriptExtractor(path, sha256=sha256, value_range="0..255")
    clips = [torch.full((3, 2, 4, 4), float(i)) for i in range(5)]
    features_ND = features_of(extractor, clips, batch=2)
    assert features_ND.tolist() == [[i] * 3 for i in range(5)]
    assert extractor.sha256 == sha256


@pytest.mark.parametrize(
    ("value_range", "black", "white"), [("-1..1", -1, 1), ("0..1", 0, 1), ("0..255", 0, 255)]
)
def test_pixels_come_in_the_range_that_the_extractor_expects(
    tmp_path: Path, value_range: str, black: float, white: float
) -> None:
    path, sha256 = saved(ChannelMeans(), tmp_path / "means.pt")
    extractor = TorchScriptExtractor(path, sha256=sha256, value_range=value_range)
    pair = torch.stack([torch.zeros(3, 1, 2, 2), torch.full((3, 1, 2, 2), 255.0)])
    assert extractor(pair)[:, 0].tolist() == [black, white]


def test_flags_are_passed_as_keywords(tmp_path: Path) -> None:
    path, sha256 = saved(ChannelMeans(), tmp_path / "means.pt")
    extractor = TorchScriptExtractor(
        path, sha256=sha256, value_range="0..255", flags=("times_ten",)
    )
    assert extractor(torch.ones(1, 3, 1, 2, 2)).tolist() == [[10, 10, 10]]


def test_another_digest_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    path.write_bytes(b"not even TorchScript")
    with pytest.raises(ValueError, match=r"expected 0{64}; not loaded"):
        TorchScriptExtractor(path, sha256="0" * 64)


def test_a_digest_must_be_given_whole(tmp_path: Path) -> None:
    path, sha256 = saved(ChannelMeans(), tmp_path / "means.pt")
    with pytest.raises(ValueError, match="64 hexadecimal digits"):
        TorchScriptExtractor(path, sha256=sha256[:8])


def test_a_file_that_is_no_torchscript_is_named(tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    path.write_bytes(b"something else")
    sha256 = hashlib.sha256(b"something else").hexdigest()
    with pytest.raises(ValueError, match=r"other\.pt holds no TorchScript"):
        TorchScriptExtractor(path, sha256=sha256)


def test_a_network_that_gives_one_number_for_all_clips_is_refused(tmp_path: Path) -> None:
    path, sha256 = saved(OneNumber(), tmp_path / "one.pt")
    extractor = TorchScriptExtractor(path, sha256=sha256)
    with pytest.raises(LavieError, match="one row"):
        extractor(torch.zeros(2, 3, 1, 4, 4))
