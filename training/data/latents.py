"""Reads what `lavie encode` wrote: latents and text states in place of pixels and words.

A start of a clip is a row group of its own, so a sample is one range request, as it is with shards.

Letters: C latent channels, F frames, h w latents' height and width, N captions, L tokens, D width.
"""

from __future__ import annotations

import io
import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from curation.corpus import layout
from curation.corpus.manifest import canonical_json
from curation.corpus.parts import read_table
from curation.corpus.shards import manifest_digest
from curation.corpus.store import Store
from curation.errors import TornPart, TrainingDataError
from training.data.companions import latent_space_of
from training.data.filtering import ClipRequirements, IndexReader, Kind
from training.data.samples import Medium, Row, SampleKey
from training.run_config import SampleConfig, TrainConfig

NAME, VERSION = "latents", 1
"""Name and version of the layer; the version is raised whenever the same plan would give other numbers."""
PLAN, DROPPED, INDEX, MANIFEST = "plan.json", "dropped.parquet", "index.parquet", "manifest.json"
DTYPES = {"fp16": "<f2", "fp32": "<f4"}
"""Number formats, little-endian."""
MAX_FOOTERS = 64
"""Footers of files that are kept: more than the shards of three windows."""
_FOOTER_BYTES = 64 * 1024


def layer_id(digest: str) -> str:
    """Name of the layer's folder."""
    return layout.layer_id(NAME, version=VERSION, digest=digest)


def shards_name(shards: Mapping[str, Any]) -> str:
    """What the plan of a layer says of its shards: their first export, so that the layer can grow.

    Shards of format 1 that have not grown are named by their manifest, as they were at that time.

    Args:
        shards: their manifest.
    """
    is_first = shards["format_version"] == 1
    return str(shards["digest"] if is_first else shards["generations"][0]["export"])


@dataclass(frozen=True, slots=True)
class EncodedLayer:
    """One finished layer of latents and text states."""

    store: Store
    selection: str
    plan: dict[str, Any]
    """Contents of plan.json: all that its digest names."""
    digest: str
    """Digest of the plan, as `lavie encode` printed it."""
    manifest_digest: str
    """Digest of the manifest."""
    shards: str
    """Contents of the shards that were there when the layer was last brought up to them."""

    @property
    def folder(self) -> str:
        """In the store."""
        return layout.encoded(self.selection, layer_id(self.digest))

    def index(self, requirements: ClipRequirements) -> IndexReader:
        """Deals the rows of its index."""
        return EncodedIndexReader(
            self.store, f"{self.folder}/{INDEX}", self.manifest_digest, requirements
        )

    def check(self, config: TrainConfig, *, shards: Mapping[str, Any]) -> None:
        """Raise where a run asks for something else than was encoded.

        Args:
            config: of the run.
            shards: manifest of the shards.

        Raises:
            TrainingDataError: names the setting, what was encoded and what is asked for; or says that
                the shards have grown since.
        """
        sample, settings, latents = config.sample, self.plan["settings"], latent_space_of(config)
        sizes = sorted(tuple(size) for size in settings["sizes_px"])
        asked: list[tuple[str, Any, Any]] = [
            ("the shards", self.plan["shards"], shards_name(shards)),
            ("num_frames", settings["num_frames"], sample.num_frames),
            ("fps", settings["fps"], sample.fps),
            ("pace", settings.get("pace", "nearest"), sample.pace),  # all there was before
            ("fit", "cover", sample.fit),
            ("crop", "center", sample.crop),
            ("image_clips", False, sample.image_clips),
            ("latent_scale", self.plan["latent_scale"], latents.scale),
            ("latent_channels", self.plan["latent_channels"], latents.channels),
            ("downsampling", self.plan["downsampling"], latents.downsampling),
        ]
        asked += [
            (f"sizes_px of phase {phase.name!r}", sizes, sorted(phase.sizes_px))
            for phase in config.phases
        ]
        wrong = [f"{name} {was!r}, asked for {now!r}" for name, was, now in asked if was != now]
        if wrong:
            raise TrainingDataError(
                f"{self.store.root}/{self.folder} was encoded with other settings than the run's: "
                f"{'; '.join(wrong)}. Encode anew (`lavie encode`), or train on pixels "
                "(no data.sources.*.encoded)"
            )
        if self.shards != shards["contents"]:
            raise TrainingDataError(
                f"{self.store.root}/{self.folder} does not hold all of the shards, which have grown or "
                f"been selected anew since: run the same `lavie encode` again, it does only what is new"
            )


def open_layer(store: Store, selection: str, digest: str) -> EncodedLayer:
    """The layer of one digest, if it was finished.

    Raises:
        TrainingDataError: if there is none; names those that there are.
        TornPart: if its bytes are not those that were written.
    """
    folder = layout.encoded(selection, layer_id(digest))
    try:
        data = store.read(f"{folder}/{MANIFEST}")
    except FileNotFoundError as error:
        there = [
            name.partition("-")[2]
            for name in store.folders(f"encoded/{selection}")
            if store.exists(f"encoded/{selection}/{name}/{MANIFEST}")
        ]
        raise TrainingDataError(
            f"{store.root} holds no finished latents {digest!r} of selection {selection!r} "
            f"(there are: {', '.join(there) or 'none'}); `lavie encode` makes them and prints "
            "their digest"
        ) from error
    content: dict[str, Any] = json.loads(data)
    if canonical_json(content) != data or content.get("digest") != manifest_digest(content):
        raise TornPart(
            f"{store.root}/{folder}/{MANIFEST}: its bytes are not those that were written"
        )
    shards = content.get("shards", content["plan"]["shards"])
    return EncodedLayer(store, selection, content["plan"], digest, content["digest"], shards)


class EncodedIndexReader(IndexReader):
    """Deals the rows of the index of latents: what could be encoded can be trained on."""

    columns = (
        "clip_id",
        "media",
        "shard",
        "encode_reject",
        "row_group",
        "num_starts",
        "height",
        "width",
        "duration_s",
        "frame_rate",
        "sampling_weight",
        "split",
        "source_sha256",
    )

    def known(self, table: pa.Table) -> pa.Table:
        """All rows: those that were not encoded have their reasons."""
        return table

    def kinds(self, table: pa.Table) -> NDArray[Any]:
        """Kind of each row's media."""
        return np.asarray(table["media"].to_pylist())

    def reasons(self, table: pa.Table, kind: Kind, size: NDArray[np.int64]) -> NDArray[np.str_]:
        """Why a clip was not encoded, or an empty text."""
        return np.asarray(pc.fill_null(table["encode_reject"], "").to_pylist(), np.str_)

    def rates(self, table: pa.Table) -> NDArray[np.float64]:
        """As they were encoded; an index that does not say so has frames at the asked rate."""
        if "frame_rate" not in table.column_names:
            return np.full(table.num_rows, self.requirements.pace.fps)
        return np.asarray(pc.fill_null(table["frame_rate"], 0).to_numpy(), np.float64)


class _Span(io.RawIOBase):
    """A file of which only one span is here; whoever reads elsewhere has a bug."""

    def __init__(self, data: bytes, begin: int, size_bytes: int) -> None:
        super().__init__()
        self._data, self._begin, self._size, self._at = data, begin, size_bytes, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        end = self._size if size < 0 else min(self._at + size, self._size)
        first = self._at - self._begin
        assert 0 <= first <= end - self._begin <= len(self._data), "outside the span"
        self._at = end
        return self._data[first : end - self._begin]


class RowGroups:
    """Single row groups of Parquet files by one range request each.

    Args:
        store: the corpus.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._footers: OrderedDict[str, tuple[pq.FileMetaData, int]] = OrderedDict()

    def read(self, name: str, number: int) -> pa.Table:
        """One row group of a file."""
        footer, size_bytes = self._footer(name)
        group = footer.row_group(number)
        columns = [group.column(place) for place in range(group.num_columns)]
        begin = min(_first_byte(column) for column in columns)
        end = max(_first_byte(column) + column.total_compressed_size for column in columns)
        data = self._store.read_range(name, offset=begin, size_bytes=end - begin)
        try:
            with pq.ParquetFile(
                _Span(data, begin, size_bytes), metadata=footer, page_checksum_verification=True
            ) as file:
                return file.read_row_group(number, use_threads=False)
        except (pa.ArrowInvalid, OSError) as error:  # OSError: the reader's word for a bad page
            raise TornPart(f"{self._store.root}/{name}: row group {number}: {error}") from error

    def _footer(self, name: str) -> tuple[pq.FileMetaData, int]:
        """A file's footer and length; the footers of the files used last are kept."""
        if name not in self._footers:
            info = self._store.filesystem.get_file_info(self._store.path(name))
            if not info.is_file:
                raise TornPart(f"{self._store.root}/{name} is missing; run `lavie encode` again")
            tail = self._store.read_range(name, offset=info.size - 8, size_bytes=8)
            length = max(_FOOTER_BYTES, int.from_bytes(tail[:4], "little") + 8)
            begin = max(0, info.size - length)
            data = self._store.read_range(name, offset=begin, size_bytes=info.size - begin)
            footer = pq.read_metadata(_Span(data, begin, info.size))
            self._footers[name] = footer, info.size
            if len(self._footers) > MAX_FOOTERS:
                self._footers.popitem(last=False)
        self._footers.move_to_end(name)
        return self._footers[name]


def _first_byte(column: pq.ColumnChunkMetaData) -> int:
    if column.has_dictionary_page:
        return min(column.dictionary_page_offset, column.data_page_offset)
    return int(column.data_page_offset)


class EncodedReader:
    """Latents and text states of one source.

    Args:
        layer: where they lie.
        config: what a sample is.
    """

    def __init__(self, layer: EncodedLayer, config: SampleConfig) -> None:
        self._layer = layer
        self._config = config
        self._groups = RowGroups(layer.store)
        self._dropped: Tensor | None = None

    def clip(self, row: Row, kind: str, size_px: tuple[int, int], at: SampleKey) -> Medium:
        """Latents of a clip from one of its starts."""
        start = int(at.draw("start").integers(row["num_starts"]))
        return self._medium(self._row(row, start), slice(None))

    def image(self, row: Row, kind: str, size_px: tuple[int, int], at: SampleKey) -> Medium:
        """One frame's latents, a random one of those that were encoded."""
        draw = at.draw("start")
        encoded = self._row(row, int(draw.integers(row["num_starts"])))
        frame = int(draw.integers(encoded["num_frames"]))
        return self._medium(encoded, slice(frame, frame + 1))

    def dropped_text(self) -> Tensor:
        """States of the caption that replaces dropped ones, ``[L, D]``."""
        if self._dropped is None:
            table = read_table(self._layer.store, f"{self._layer.folder}/{DROPPED}")
            found = {row["caption"]: row["text_states"] for row in table.to_pylist()}
            if self._config.dropped_caption not in found:
                raise TrainingDataError(
                    f"dropped_caption must be one of those that `lavie encode` encodes "
                    f"({', '.join(map(repr, found))}), got {self._config.dropped_caption!r}"
                )
            self._dropped = self._text(found[self._config.dropped_caption])
        return self._dropped

    def _row(self, row: Row, start: int) -> Row:
        name = f"{self._layer.folder}/{row['shard']}"
        (encoded,) = self._groups.read(name, row["row_group"] + start).to_pylist()
        if encoded["clip_id"] != row["clip_id"]:
            raise TornPart(f"{self._layer.store.root}/{name}: its rows are not those of the index")
        return dict(encoded)

    def _medium(self, encoded: Row, frames: slice) -> Medium:
        channels = self._layer.plan["latent_channels"]
        shape = (channels, *(encoded[n] for n in ("num_frames", "latent_height", "latent_width")))
        return Medium(
            clip_id=encoded["clip_id"],
            captions=tuple(encoded["captions"]),
            caption_weights=tuple(encoded["caption_weights"]),
            mean_CFhw=self._numbers(encoded["mean"]).reshape(shape)[:, frames],
            logvar_CFhw=self._numbers(encoded["logvar"]).reshape(shape)[:, frames],
            texts_NLD=torch.stack([self._text(states) for states in encoded["text_states"]]),
        )

    def _text(self, data: bytes) -> Tensor:
        plan = self._layer.plan
        return self._numbers(data).reshape(plan["num_tokens"], plan["text_width"])

    def _numbers(self, data: bytes) -> Tensor:
        stored = np.frombuffer(data, DTYPES[self._layer.plan["settings"]["dtype"]])
        return torch.from_numpy(stored.astype(np.float32))
