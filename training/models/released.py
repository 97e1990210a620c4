"""The released weights: LaVie's three checkpoints and the image models they stand on.

This knows what exists and reads it; finding, fetching and checking bytes is the command's,
`lavie weights`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from training.models.schedule import Stage
from training.models.unet_config import UNetConfig

if TYPE_CHECKING:
    from training.models.unet import UNet

HUB = "https://huggingface.co"
LAVIE, SD14, X4 = "lavie", "stable-diffusion-1.4", "x4-upscaler"

CONFIGS = {
    "base": UNetConfig.base,
    "interpolation": UNetConfig.interpolation,
    "super_resolution": UNetConfig.super_resolution,
}
CHECKPOINT_OF: dict[Stage, str] = {
    "base": "lavie_base.pt",
    "interpolation": "lavie_interpolation.pt",
    "super_resolution": "lavie_vsr.pt",
}
COMPANIONS_OF: dict[Stage, str] = {"base": SD14, "interpolation": SD14, "super_resolution": X4}
"""Group whose autoencoder and text encoder belong to a stage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasedFile:
    """One file of a release."""

    name: str
    """Where it lies below the folder of weights: its group and path, or its name alone."""
    group: str
    """Release that it belongs to."""
    repository: str
    """Repository on the Hugging Face hub."""
    path: str
    """Path in the repository."""
    licence: str
    """SPDX identifier, or LicenseRef- and a name."""
    size_bytes: int = 0
    """Its length; 0 where we have not been able to measure one."""
    sha256: str = ""
    """Its digest; empty where we have not been able to measure one."""

    @property
    def url(self) -> str:
        """Where to download it."""
        return f"{HUB}/{self.repository}/resolve/main/{self.path}"


def _lavie(name: str, size_bytes: int, sha256: str) -> ReleasedFile:
    return ReleasedFile(
        name=name,
        group=LAVIE,
        repository="Vchitect/LaVie",
        path=name,
        # README: open for academic research and free commercial use, on application
        licence="LicenseRef-LaVie-weights",
        size_bytes=size_bytes,
        sha256=sha256,
    )


COMPANION_FILES = (
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/merges.txt",
    "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
)


def released_files() -> tuple[ReleasedFile, ...]:
    """Every file that training or sampling can need, LaVie's own first."""
    lavie = (
        _lavie(
            "lavie_base.pt",
            3_636_842_083,
            "043d383d8b35289e98862cf7c6249f198db641f8690f283679942fc5af32ef2f",
        ),
        _lavie(
            "lavie_interpolation.pt",
            3_636_857_733,
            "fa076554e18b30ecce4606b0dbb5f3ad2ef5a1255c5dd7a05b92ccb614dd6830",
        ),
        _lavie(
            "lavie_vsr.pt",
            2_764_614_443,
            "7e138c19a4ccb8dfc6c53f507016457555b6efeab8e37a15ff4bfa74de8c3c04",
        ),
    )
    image_models = (
        (SD14, "CompVis/stable-diffusion-v1-4", "LicenseRef-CreativeML-OpenRAIL-M"),
        (X4, "stabilityai/stable-diffusion-x4-upscaler", "LicenseRef-OpenRAIL++-M"),
    )
    companions = tuple(
        ReleasedFile(
            name=f"{group}/{path}",
            group=group,
            repository=repository,
            path=path,
            licence=licence,
        )
        for group, repository, licence in image_models
        for path in COMPANION_FILES
    )
    return lavie + companions


def load_released(checkpoint: Path, stage: Stage, config: UNetConfig | None = None) -> UNet:
    """Read one of LaVie's checkpoints.

    Args:
        checkpoint: ``lavie_base.pt``, ``lavie_interpolation.pt`` or ``lavie_vsr.pt``: tensors under
            "ema", or bare. Nothing but tensors is ever unpickled.
        stage: Which network it is.
        config: The network's configuration where it is not the released size.

    Returns:
        The network on the CPU, in the dtype of the file (fp32), ready to train.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds something else than tensors, or other keys; the message lists them.
    """
    import torch

    from training.models.state import fill, read_tensors
    from training.models.unet import UNet

    if stage not in CONFIGS:
        raise ValueError(f"stage must be one of {', '.join(CONFIGS)}, got {stage!r}")
    with torch.device("meta"):
        net = UNet(CONFIGS[stage]() if config is None else config)
    fill(net, read_tensors(checkpoint), str(checkpoint))
    return net
