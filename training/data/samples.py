"""One sample from planned rows: read, decoded, cropped, captioned; unreadable clips replaced.

Every random choice has a stream of its own, keyed by (step, position in the global batch, number of
the medium in the sample): 0 is the clip, 1 to M are its images.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from curation.corpus.shards import read_sample
from curation.corpus.store import Store
from curation.errors import BadSource, TrainingDataError
from training.data.batch import Batch, Draw, Kind, Sample, stack
from training.data.catalog import Pool
from training.data.curriculum import PlannedStep
from training.data.pace import Pace
from training.data.picture import View, moving_view, view
from training.data.random_numbers import generator
from training.data.reading import read_frames, read_image, read_still
from training.run_config import SampleConfig, TrainConfig

MAX_UNREADABLE = 20
"""Clips in a row that may be unreadable for one place; so many are no accident."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class SampleKey:
    """What a draw is for."""

    seed: int
    """The run's."""
    step: int
    """Step of the run; -1 for held-out samples."""
    position: int
    """In the global batch."""
    number: int
    """Number of the medium in the sample: 0 is the clip, 1 to M are the images."""

    def draw(self, stream: str) -> np.random.Generator:
        """The generator of one stream."""
        return generator(self.seed, stream, self.step, self.position, self.number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Medium:
    """Frames of one clip or image, and what is said of it."""

    clip_id: str
    captions: tuple[str, ...]
    caption_weights: tuple[float, ...]
    frames_FCHW: Tensor | None = None
    mean_CFhw: Tensor | None = None
    logvar_CFhw: Tensor | None = None
    texts_NLD: Tensor | None = None
    """States of all captions."""


class Reader(Protocol):
    """Reads the media of one source; raises `BadSource` where that cannot be."""

    def clip(self, row: Row, kind: str, size_px: tuple[int, int], at: SampleKey) -> Medium:
        """T frames of a clip, or of a crop that moves over an image."""

    def image(self, row: Row, kind: str, size_px: tuple[int, int], at: SampleKey) -> Medium:
        """One frame of a clip, or an image."""

    def dropped_text(self) -> Tensor | None:
        """States of the caption that replaces dropped ones, ``[L, D]``, where texts are encoded."""


class ShardReader:
    """Pixels and words, from the shards of one selection.

    Args:
        store: the corpus.
        selection: name of the selection.
        config: what a sample is.
    """

    def __init__(self, store: Store, selection: str, config: SampleConfig) -> None:
        self._store = store
        self._selection = selection
        self._config = config

    def clip(self, row: Row, kind: str, size_px: tuple[int, int], at: SampleKey) -> Medium:
        """T frames from a random start, or a crop that moves over an image."""
        config = self._config
        data, medium = self._sample(row)
        if kind == "image":
            shown = moving_view(
                *(row["height"], row["width"], size_px),
                fit=config.fit,
                num_frames=config.num_frames,
                draw=at.draw("crop"),
            )
            return medium(read_image(data, shown))
        times_s = Pace.of(config).times_s(row, at.draw("start").random())
        return medium(read_frames(data, times_s, self._view(row, size_px, at)))

    def image(self, row: Row, kind: str, size_px: tuple[int, int], at: SampleKey) -> Medium:
        """A random frame of a clip (see `read_still`), or an image."""
        data, medium = self._sample(row)
        shown = self._view(row, size_px, at)
        if kind == "image":
            return medium(read_image(data, shown))
        return medium(read_still(data, at.draw("start"), shown))

    def dropped_text(self) -> Tensor | None:
        """None: words are encoded by the trainer."""
        return None

    def _view(self, row: Row, size_px: tuple[int, int], at: SampleKey) -> View:
        config = self._config
        middle = config.fit == "cover" and config.crop == "center"
        draw = None if middle else at.draw("crop")
        return view(row["height"], row["width"], size_px, fit=config.fit, draw=draw)

    def _sample(self, row: Row) -> tuple[bytes, Any]:
        """The media file, and what makes a `Medium` of its frames."""
        key = row["media_name"].rpartition(".")[0]
        try:
            sample = read_sample(self._store, self._selection, row | {"key": key})
        except ValueError as error:  # the .json is none, or the .txt no UTF-8
            raise BadSource("undecodable", f"{row['media_name']}: {error}") from error
        captions, weights = captions_of(sample.facts, sample.caption)

        def medium(frames_FCHW: Tensor) -> Medium:
            return Medium(
                clip_id=row["clip_id"],
                captions=captions,
                caption_weights=weights,
                frames_FCHW=frames_FCHW,
            )

        return sample.media, medium


def captions_of(facts: Row, caption: str) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Captions that may be drawn and how often; the .txt where the .json has no list of them."""
    listed = [
        (text, float(weight))
        for text, weight in zip(
            facts.get("captions", ()), facts.get("caption_weights", ()), strict=False
        )
        if text.strip() and weight > 0
    ]
    listed = listed or [(caption, 1.0)]
    return tuple(text for text, _ in listed), tuple(weight for _, weight in listed)


class SampleMaker:
    """Makes the samples of a run.

    Args:
        config: of the run.
        readers: one for each of its sources.
    """

    def __init__(self, config: TrainConfig, readers: Sequence[Reader]) -> None:
        self._config = config
        self._readers = readers

    def batch(self, step: int, positions: Sequence[int], planned: PlannedStep, draw: Draw) -> Batch:
        """Samples at some positions of a step's global batch."""
        sample, pool = self._config.sample, planned.order.pool
        made = []
        for position, place in zip(positions, planned.places(positions), strict=True):
            rows = planned.order.candidates(planned.epoch, int(place))
            clips = [] if planned.kind == "images" else [((pool, row) for row in rows)]
            images = [
                planned.images.candidates(
                    *(step, position, number), size_px=pool.size_px, fit=sample.fit
                )
                for number in range(1, sample.images_per_video + 1)
                if planned.images is not None
            ]
            made.append(
                self.sample(
                    step, position, clips, images, pool=pool, dropout=sample.caption_dropout
                )
            )
        return self.stack(made, draw, kind=planned.kind, pool=pool.name)

    def stack(self, samples: Sequence[Sample], draw: Draw, *, kind: Kind, pool: str) -> Batch:
        """Samples with the draws of the stage."""
        return stack(samples, [draw(each.step, each) for each in samples], kind=kind, pool=pool)

    def sample(
        self,
        step: int,
        position: int,
        clips: Sequence[Iterable[tuple[Pool, int]]],
        images: Sequence[Iterable[tuple[Pool, int]]],
        *,
        pool: Pool,
        dropout: float,
    ) -> Sample:
        """One sample.

        Args:
            step: of the run; -1 for held-out samples.
            position: in the global batch.
            clips: for one clip or none: the rows it may come from, best first.
            images: for each image likewise.
            pool: that the sample belongs to; gives its size.
            dropout: how often a caption is replaced.
        """
        replaced: list[str] = []
        media: list[Medium] = []
        texts: list[tuple[str, Tensor | None]] = []
        for number, candidates in [*enumerate(clips), *enumerate(images, start=1)]:
            at = SampleKey(self._config.seed, step, position, number)
            used = {medium.clip_id for medium in media}
            medium, reader = self._first_readable(candidates, pool.size_px, at, used, replaced)
            media.append(medium)
            texts.append(self._caption(medium, reader, at, dropout))
        ids = tuple(medium.clip_id for medium in media)
        states = [state for _, state in texts if state is not None]
        return Sample(
            step=step,
            position=position,
            size_px=pool.size_px,
            clip_id=ids[0] if clips else "",
            image_ids=ids[len(clips) :],
            captions=tuple(caption for caption, _ in texts),
            frames_FCHW=_joined([medium.frames_FCHW for medium in media], dim=0),
            mean_CFhw=_joined([medium.mean_CFhw for medium in media], dim=1),
            logvar_CFhw=_joined([medium.logvar_CFhw for medium in media], dim=1),
            text_KLD=torch.stack(states) if states else None,
            num_video_frames=self._config.sample.num_frames if clips else 0,
            num_images=len(images),
            image_as_clip=bool(clips) and pool.kind == "image",
            replaced=tuple(replaced),
        )

    def _first_readable(
        self,
        candidates: Iterable[tuple[Pool, int]],
        size_px: tuple[int, int],
        at: SampleKey,
        used: set[str],
        replaced: list[str],
    ) -> tuple[Medium, Reader]:
        """The first candidate that can be read; those that cannot are put into ``replaced``."""
        failed: list[str] = []
        reserve: tuple[Pool, Row] | None = None
        for pool, number in candidates:
            row = pool.row(number)
            if (
                at.number and row["clip_id"] in used
            ):  # an image is of another clip where there is one
                reserve = reserve or (pool, row)
                continue
            try:
                return self._read(pool, row, size_px, at)
            except BadSource as error:
                failed.append(f"{row['clip_id']} ({error})")
                replaced.append(row["clip_id"])
            if len(failed) == MAX_UNREADABLE:
                break
        if reserve is not None and not failed:
            return self._read(*reserve, size_px, at)
        what = "image" if at.number else "clip"
        if failed:
            raise TrainingDataError(
                f"{len(failed)} {what}s in a row could not be read at step {at.step}, position "
                f"{at.position}: {'; '.join(failed[:3])}. `lavie verify` tells which files changed"
            )
        raise TrainingDataError(
            f"no {what} of {size_px[0]}x{size_px[1]} was found for step {at.step}, position "
            f"{at.position}: all are too small, or weigh too little beside the heaviest; take "
            f"smaller sizes_px, or balance the selection less"
        )

    def _read(
        self, pool: Pool, row: Row, size_px: tuple[int, int], at: SampleKey
    ) -> tuple[Medium, Reader]:
        reader = self._readers[pool.source]
        read = reader.image if at.number else reader.clip
        return read(row, pool.kind, size_px, at), reader

    def _caption(
        self, medium: Medium, reader: Reader, at: SampleKey, dropout: float
    ) -> tuple[str, Tensor | None]:
        """One of a medium's captions, or what replaces it; and its states where they are encoded."""
        if dropout > 0 and at.draw("caption_dropout").random() < dropout:
            return self._config.sample.dropped_caption, reader.dropped_text()
        ends = np.cumsum(medium.caption_weights)
        drawn = at.draw("caption").random() * ends[-1]
        chosen = min(int(np.searchsorted(ends, drawn, side="right")), len(ends) - 1)
        state = None if medium.texts_NLD is None else medium.texts_NLD[chosen]
        return medium.captions[chosen], state


def _joined(tensors: Sequence[Tensor | None], *, dim: int) -> Tensor | None:
    there = [tensor for tensor in tensors if tensor is not None]
    return torch.cat(there, dim=dim) if there else None
