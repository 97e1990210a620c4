"""evaluate: FVD, KVD, CLIPSIM of a folder of videos, and its export for VBench."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.progress import track

from curation.errors import UsageError
from curation.stations.clip_model import ClipModel, load_clip
from curation.weights.catalog import digest, find
from inference.evaluate.protocols import ClipsimProtocol, FrechetProtocol, msrvtt, ucf101
from pipelines.places import check_new, named_file

if TYPE_CHECKING:
    from inference.evaluate.extractor import Extractor
    from inference.evaluate.reference import Reference
    from inference.evaluate.result import VideoFolder


def _tracked(paths: list[Path], what: str) -> Iterable[Path]:
    return track(paths, description=what, console=Console(stderr=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluate:
    """Measure a folder of videos, or give them the names that VBench looks for."""

    protocol: Literal["ucf101", "msrvtt", "vbench"]
    """ucf101: FVD, KVD by --reference. msrvtt: CLIPSIM by captions. vbench: copies named for VBench."""
    videos: Path
    """Folder of the videos to measure; subfolders count."""
    out: Path
    """The result: a new JSON file, or for vbench a new folder."""
    reference: Path | None = None
    """ucf101: folder of reference videos, their features (.safetensors) or statistics (.npz: mu, sigma)."""
    save_reference: Path | None = None
    """ucf101: new .safetensors file to keep the features of the reference videos in."""
    extractor: Path | None = None
    """ucf101: TorchScript of the feature extractor (I3D, VideoMAE-v2). It is a program that will run!"""
    extractor_sha256: str = ""
    """ucf101: sha256 that --extractor must have; checked before anything of it is read."""
    captions: Path | None = None
    """msrvtt: JSON object of video names and captions; None: prompts that sampling left beside videos."""
    prompts: Path | None = None
    """vbench: file of prompts, one a line; or VBench's own list (.json)."""
    allow_unreadable: int = 0
    """Videos that may be left out because they cannot be read; the result names them."""
    frechet: FrechetProtocol = field(default_factory=ucf101)
    """ucf101: choices of the measurement; the result names those that differ from the paper's."""
    clipsim: ClipsimProtocol = field(default_factory=msrvtt)
    """msrvtt: choices of the measurement; the result names those that differ from the paper's."""
    clip: ClipModel = field(
        default_factory=lambda: ClipModel(architecture="ViT-B-32", pretrained="openai")
    )
    """msrvtt: the CLIP that scores."""

    def __post_init__(self) -> None:
        """Raise ValueError for flags that the protocol misses or does not know."""
        needed = {
            "ucf101": ("reference", "extractor", "extractor_sha256"),
            "msrvtt": (),
            "vbench": ("prompts",),
        }[self.protocol]
        of_protocol = {
            "reference": "ucf101",
            "save_reference": "ucf101",
            "extractor": "ucf101",
            "extractor_sha256": "ucf101",
            "captions": "msrvtt",
            "prompts": "vbench",
        }
        for name, owner in of_protocol.items():
            flag = f"--{name.replace('_', '-')}"
            if name in needed and not getattr(self, name):
                raise ValueError(f"--protocol {self.protocol} needs {flag}")
            if owner != self.protocol and getattr(self, name):
                raise ValueError(f"{flag} belongs to --protocol {owner}, got {self.protocol}")
        if self.allow_unreadable < 0:
            raise ValueError(f"--allow-unreadable must be at least 0, got {self.allow_unreadable}")

    def run(self) -> int:
        """Measure, write the result and print its numbers."""
        from inference.evaluate.videos import list_videos

        check_new(self.out, "--out")
        if self.save_reference is not None:
            check_new(self.save_reference, "--save-reference")
        with named_file("--videos"):
            list_videos(self.videos)
        if self.protocol == "vbench":
            return self._export()
        result = self._measure_frechet() if self.protocol == "ucf101" else self._clipsim()
        self._report(result)
        return 0

    def _measure_frechet(self) -> dict[str, Any]:
        import torch

        from inference.evaluate.extractor import SHA256, TorchScriptExtractor
        from inference.evaluate.reference import made_by, save_reference
        from inference.evaluate.result import measure_frechet

        assert self.extractor is not None  # by __post_init__
        assert self.reference is not None
        if self.save_reference is not None and not self.reference.is_dir():
            raise UsageError("--save-reference needs a folder of videos as --reference")
        if not SHA256.fullmatch(self.extractor_sha256):
            raise UsageError(
                f"--extractor-sha256: 64 hexadecimal digits in lower case are due, "
                f"got {self.extractor_sha256!r}"
            )
        with named_file("--extractor"):
            extractor = TorchScriptExtractor(
                self.extractor,
                sha256=self.extractor_sha256,
                value_range=self.frechet.value_range,
                flags=self.frechet.extractor_flags,
                device="cuda" if torch.cuda.is_available() else "cpu",
            )
        Console(stderr=True).print(
            f"running the program in {self.extractor}, sha256 {extractor.sha256}",
            soft_wrap=True,
            highlight=False,
        )
        reference = self._reference(self.reference, extractor)
        if self.save_reference is not None:
            made = made_by(self.frechet, extractor.sha256)
            save_reference(reference, self.save_reference, made)
        return measure_frechet(self._folder(self.videos), reference, extractor, self.frechet)

    def _reference(self, path: Path, extractor: Extractor) -> Reference:
        """What is compared with; a file that is none is said as its flag's, a bug while measuring is not."""
        from inference.evaluate.result import reference_of
        from inference.evaluate.videos import list_videos

        if path.is_dir():
            with named_file("--reference"):
                list_videos(path)
            return reference_of(path, extractor, self.frechet, self._folder(path))
        with named_file("--reference"):
            return reference_of(path, extractor, self.frechet, self._folder(path))

    def _folder(self, folder: Path) -> VideoFolder:
        from inference.evaluate.result import VideoFolder

        return VideoFolder(folder=folder, allow_unreadable=self.allow_unreadable, track=_tracked)

    def _clipsim(self) -> dict[str, Any]:
        from inference.evaluate.clipsim import ClipScorer
        from inference.evaluate.result import captions_for, measure_clipsim

        with named_file("--videos" if self.captions is None else "--captions"):
            captions = captions_for(self.videos, self.captions)
        weights = self.clip.weights()
        for weight in weights:
            find(weight)
        scorer = ClipScorer(
            **load_clip(self.clip)._asdict(),
            name=self.clip.label,
            sha256={weight.name: digest(weight) for weight in weights},
        )
        return measure_clipsim(self._folder(self.videos), captions, scorer, self.clipsim)

    def _export(self) -> int:
        from inference.evaluate.vbench import export, read_prompts

        assert self.prompts is not None  # by __post_init__
        with named_file("--prompts"):
            prompts = read_prompts(self.prompts)
        with named_file("--videos"):
            num_videos = export(prompts, self.videos, self.out)
        self._say(f"{num_videos} videos for VBench in {self.out}")
        return 0

    def _report(self, result: dict[str, Any]) -> None:
        from inference.evaluate.result import write_result

        write_result(result, self.out)
        for name, metric in result["metrics"].items():
            self._say(_in_words(name, metric, result["published"].get(name, {})))
        for line in result["deviations"]:
            self._say(f"not the paper's protocol: {line}")
        self._say(f"all choices: {self.out}")

    @staticmethod
    def _say(text: str) -> None:
        Console().print(text, soft_wrap=True, highlight=False, markup=False)


def _in_words(name: str, metric: dict[str, Any], published: dict[str, float]) -> str:
    """One line for a metric: value, confidence, LaVie's own number."""
    if metric["value"] is None:
        return f"{name.upper()}: not measured, {metric['reason']}"
    line = f"{name.upper()}: {metric['value']:.4f}"
    if confidence := metric.get("confidence"):
        line += f" (95 %: {confidence['low']:.4f} to {confidence['high']:.4f})"
    return line + (f"; LaVie's paper: {published['LaVie']:g}" if "LaVie" in published else "")
