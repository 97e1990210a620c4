"""doctor: what is installed, which model files are here, what each preset still lacks."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from dataclasses import dataclass

import psutil
from rich.console import Console
from rich.table import Table

from curation.decode.decoding_pass import DecodingPass
from curation.media.guard import isolation
from curation.stations.station import Maker
from curation.weights.catalog import GROUPS, cache_dir, missing
from pipelines import river
from pipelines.presets import PRESETS, PresetName

PACKAGES = (
    "ray",
    "torch",
    "open_clip_torch",
    "scenedetect-headless",
    "av",
    "ffmpeg-python",
    "imageio-ffmpeg",
    "onnxruntime",
    "pyarrow",
    "duckdb",
    "webdataset",
    "diffusers",
    "transformers",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Doctor:
    """Say what is installed, which model files are here, what each preset lacks and how to get it."""

    def run(self) -> int:
        """Print the findings; 1 if something is missing that every preset needs."""
        console = Console()
        console.print(_machine(), highlight=False)
        absent = _print_packages(console)
        encoder = _encoder()
        console.print(f"encoder: {encoder}", highlight=False)
        console.print(f"decoding child: {isolation()}", highlight=False)
        console.print(f"cache of model files: {cache_dir()}", highlight=False, soft_wrap=True)
        for name in PRESETS:
            console.print(_preset_state(name), highlight=False, soft_wrap=True)
        return 1 if absent or "libx264" not in encoder else 0


def _machine() -> str:
    memory_gb = psutil.virtual_memory().total / 1e9
    return (
        f"Python {platform.python_version()}, {os.cpu_count()} cores, {memory_gb:.0f} GB, {_gpus()}"
    )


def _gpus() -> str:
    import torch

    if not torch.cuda.is_available():
        return "no GPU that torch can use"
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return ", ".join(names)


def _print_packages(console: Console) -> list[str]:
    """Print versions; returns the packages that are not installed."""
    table = Table("package", "version", title="packages")
    absent = []
    for package in PACKAGES:
        try:
            table.add_row(package, importlib.metadata.version(package))
        except importlib.metadata.PackageNotFoundError:
            absent.append(package)
            table.add_row(package, "[red]missing: pip install lavie[/red]")
    console.print(table)
    return absent


def _encoder() -> str:
    """Version of the ffmpeg that cuts clips, and whether it can write H.264."""
    import imageio_ffmpeg

    binary = imageio_ffmpeg.get_ffmpeg_exe()
    encoders = subprocess.run(
        [binary, "-hide_banner", "-encoders"], capture_output=True, text=True, check=True
    ).stdout
    h264 = "with libx264" if "libx264" in encoders else "without libx264: `--cut exact` cannot work"
    return f"ffmpeg {imageio_ffmpeg.get_ffmpeg_version()} {h264}"


def _preset_state(name: PresetName) -> str:
    """What a preset lacks, and the one command that gets it."""
    config = PRESETS[name]().river
    makers: list[Maker] = [DecodingPass(config.decode), *river.stations(config)]
    absent = missing([weight for maker in makers for weight in maker.weights()])
    if not absent:
        return f"preset {name}: ready"
    command = name if name in GROUPS else " ".join(weight.name for weight in absent)
    return (
        f"preset {name}: lacks {', '.join(weight.name for weight in absent)}; "
        f"get them with `lavie weights fetch {command}`"
    )
