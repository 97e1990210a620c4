"""Clips that are like a clip, a picture or a text, by the stored embeddings.

Every embedding of the corpus is read once, part by part, and the closest so far are held: no index that
could be out of date, and memory that does not grow with the corpus.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from curation.corpus.clip_ids import CLIP_ID
from curation.corpus.selection import read_verdicts
from curation.corpus.settings import settings_from
from curation.errors import MissingColumn
from curation.media.containers import sniff
from curation.media.image import PILLOW_FORMATS, upright_rgb
from curation.select.cluster_corpus import embeddings_of
from curation.select.scan import Corpus
from curation.stations.clip_model import ClipText
from curation.stations.embeddings import Embeddings, EmbeddingsConfig

SNIFFED_BYTES = 4096
"""Of a picture, to tell its format from."""

Vector = NDArray[np.float32]


class Found(NamedTuple):
    """A clip that was found: cosine of its embedding with what was asked, and where it stands."""

    cosine: float
    part: int
    row: int


def closest(
    corpus: Corpus,
    asked_D: Vector,
    num: int,
    *,
    selection: str | None = None,
    but: str | None = None,
) -> list[Found]:
    """The clips whose embeddings have the largest cosine, the first ones of the corpus before equal others.

    Args:
        corpus: where to look; parts that are not complete are left out.
        asked_D: unit length.
        num: how many at most.
        selection: only clips that it keeps.
        but: clip id that is left out.

    Raises:
        MissingColumn: if the corpus has no embeddings.
        ValueError: if they are of another length.
    """
    _check_embeddings(corpus)

    def read(part: int) -> list[Found]:
        vectors_ND = embeddings_of(corpus, part)
        if vectors_ND.shape[1] not in (0, len(asked_D)):
            raise ValueError(
                f"embeddings of the corpus have {vectors_ND.shape[1]} numbers, got {len(asked_D)}"
            )
        is_asked = vectors_ND.any(axis=1)
        if selection is not None:
            keep = read_verdicts(corpus.store, selection, part, ["keep"])["keep"]
            is_asked &= keep.to_numpy()
        if but is not None:
            ids = corpus.read_columns(part, ["clip_id"])["clip_id"]
            is_asked &= pc.not_equal(ids, but).to_numpy()
        rows = np.flatnonzero(is_asked)
        cosines = vectors_ND[rows] @ asked_D
        best = np.argsort(-cosines, kind="stable")[:num]
        return [Found(float(cosines[i]), part, int(rows[i])) for i in best]

    found: list[Found] = []
    for _, some in corpus.in_order(read):
        found = heapq.nlargest(num, [*found, *some], key=lambda each: each.cosine)
    return found


def vector_of_clip(corpus: Corpus, clip_id: str) -> Vector:
    """The stored embedding of a clip.

    Raises:
        MissingColumn: if the corpus has no embeddings.
        ValueError: if there is no such clip, or it has no embedding.
    """
    _check_embeddings(corpus)

    def read(part: int) -> Vector | None:
        ids = corpus.read_columns(part, ["clip_id"])["clip_id"]
        row = pc.index(ids, clip_id.lower()).as_py()
        return None if row < 0 else embeddings_of(corpus, part, np.array([row]))[0]

    for _, vector_D in corpus.in_order(read):
        if vector_D is not None:
            if not vector_D.any():
                raise ValueError(f"clip {clip_id} has no embedding, as its scene was rejected")
            return vector_D
    raise ValueError(f"the corpus has no clip {clip_id}")


def vector_of_picture(path: Path, config: EmbeddingsConfig) -> Vector:
    """The embedding of a picture, by the network that embedded the corpus.

    Raises:
        ValueError: if the file is no picture.
        BadSource: if it cannot be decoded.
        MissingWeights: if the network is not here.
    """
    from PIL import Image

    with path.open("rb") as file:
        container = sniff(file.read(SNIFFED_BYTES))
        if container not in PILLOW_FORMATS:
            raise ValueError(f"{path} is no JPEG, PNG or WebP picture")
        file.seek(0)
        picture_HWC, _ = upright_rgb(file, container)
    station = Embeddings(config)
    station.setup()
    return station.of_picture(Image.fromarray(picture_HWC))


def vector_of_text(text: str, config: EmbeddingsConfig) -> Vector:
    """The embedding of a text, by the CLIP that embedded the corpus.

    Raises:
        ValueError: if another network did, which knows no texts.
        MissingWeights: if the network is not here.
    """
    if config.engine != "open_clip":
        raise ValueError(
            f"{text!r} is neither a clip id nor a file, and embeddings by {config.model_label} know no "
            "texts; a corpus that was curated with --embeddings.engine open_clip can be asked for them"
        )
    vector_D: Vector = ClipText(config.clip)([text])[0]
    return vector_D


def vector_of(corpus: Corpus, like: str, settings: Mapping[str, Any]) -> Vector:
    """What a user asks for as a unit vector: a clip id, else a file, else a text.

    Args:
        corpus: that is asked.
        like: as it was typed.
        settings: those of `lavie curate`, as corpus.json has them.

    Raises:
        ValueError: if it is none of these, or was embedded otherwise than the settings say.
    """
    if CLIP_ID.fullmatch(like):
        return vector_of_clip(corpus, like)
    config = settings_from(EmbeddingsConfig, settings["embeddings"])
    model = embedding_model(corpus)
    if model not in (None, config.model_label):
        raise ValueError(
            f"the corpus was embedded by {model}, but its last run says {config.model_label}; give a clip id"
        )
    if Path(like).is_file():
        return vector_of_picture(Path(like), config)
    if "/" in like or Path(like).suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"):
        raise ValueError(f"there is no file {like}")
    return vector_of_text(like, config)


def embedding_model(corpus: Corpus) -> str | None:
    """The network of the stored embeddings; None where there are none yet."""
    _check_embeddings(corpus)
    for part in corpus.gap.complete:
        models = corpus.read_columns(part, ["embedding_model"])["embedding_model"]
        if len(models):
            return str(models[0].as_py())
    return None


def _check_embeddings(corpus: Corpus) -> None:
    if "embeddings" not in corpus.info.layers:
        raise MissingColumn(
            "the corpus has no embeddings; `lavie curate` makes them with the station 'embeddings'"
        )
