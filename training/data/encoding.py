"""Writes latents and text states of exported clips, a file a shard: what `lavie encode` runs.

Frames are taken by the loader's own rules (frame rate, nearest timestamps, scaling, middle crop), so
training on latents sees what training on pixels would, but for the starts, of which there are few.

Letters: C latent channels, F frames, H W pixels, h w latents, L tokens, D width.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor

from curation.corpus import layout
from curation.corpus.manifest import canonical_json
from curation.corpus.parts import LAYER_METADATA, read_table, to_parquet
from curation.corpus.schema import ENCODED, ENCODED_INDEX, ENCODED_ROWS, schema
from curation.corpus.scratch import scratch_folder
from curation.corpus.shards import manifest_digest, read_index, read_manifest, read_sample
from curation.corpus.store import Store
from curation.errors import BadSource, CorpusError, TornPart
from training.data.encode_config import EncodeConfig
from training.data.filtering import INDEX_COLUMNS, READ_ROWS, ClipRequirements, IndexReader, Kind
from training.data.latents import (
    DROPPED,
    DTYPES,
    INDEX,
    MANIFEST,
    NAME,
    PLAN,
    VERSION,
    layer_id,
    shards_name,
)
from training.data.pace import Pace
from training.data.picture import view
from training.data.reading import read_frames, read_image
from training.data.samples import captions_of
from training.data.sources import check_captions
from training.models.autoencoder import Autoencoder
from training.models.text_encoder import TextEncoder

DROPPED_CAPTIONS = ("", "None")
"""What dropped captions become: in base, and in the other two stages."""
COMPANION_FOLDERS = ("vae", "text_encoder", "tokenizer")


def requirements(config: EncodeConfig) -> ClipRequirements:
    """Which clips can be encoded: those that can be trained on."""
    return ClipRequirements(
        sizes_px=config.sizes_px,
        pace=Pace.of(config),
        fit="cover",
        kinds=("video", "image"),
        holdout_share=0.0,
        holdout_by="clip",
        seed=0,
    )


def frame_times(row: dict[str, Any], config: EncodeConfig) -> list[list[float]]:
    """When the frames of each start of a clip are shown, in seconds from its first."""
    starts = range(config.starts)
    shares = [0.5] if config.starts == 1 else [number / (config.starts - 1) for number in starts]
    times = [Pace.of(config).times_s(row, share) for share in shares]
    return [own for number, own in enumerate(times) if own not in times[:number]]


def companions_digest(folder: Path) -> dict[str, str]:
    """Folder name -> sha256 over the files of the autoencoder, the text encoder and its tokenizer.

    Raises:
        FileNotFoundError: if one of the folders is not there.
    """
    found = {}
    for name in COMPANION_FOLDERS:
        files = sorted(path for path in (folder / name).rglob("*") if path.is_file())
        if not files:
            raise FileNotFoundError(f"{folder / name} holds no files")
        digest = hashlib.sha256()
        for path in files:
            with path.open("rb") as file:
                own = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(f"{path.relative_to(folder).as_posix()} {own}\n".encode())
        found[name] = digest.hexdigest()
    return found


@dataclass(frozen=True, slots=True)
class Companions:
    """The frozen models."""

    autoencoder: Autoencoder
    text_encoder: TextEncoder

    @classmethod
    def load(cls, folder: Path) -> Companions:
        """Read vae/, text_encoder/ and tokenizer/, in fp32, onto the GPU if there is one."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return cls(Autoencoder.load(folder / "vae").to(device), TextEncoder.load(folder).to(device))

    def latents(self, frames_FCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of uint8 frames, unscaled, fp32 ``[C, F, h, w]``."""
        device = self.autoencoder.vae.device
        video_BCTHW = (frames_FCHW.to(device).float() / 127.5 - 1).transpose(0, 1)[None]
        mean, std = self.autoencoder.encode_moments(video_BCTHW)
        return mean[0].cpu(), (2 * std[0].log()).cpu()

    def plan(self) -> dict[str, Any]:
        """Shapes and scale of what they give."""
        return {
            **self.autoencoder.latents.to_plan(),
            "num_tokens": self.text_encoder.num_tokens,
            "text_width": self.text_encoder.width,
        }


def begin_layer(
    store: Store,
    selection: str,
    config: EncodeConfig,
    folder: Path,
    *,
    allow_stopgap_captions: bool = False,
) -> tuple[str, list[str]]:
    """Write what is known before the first shard: the plan, and the captions for dropped ones.

    Returns:
        The layer's digest, and the names of the shards without extension, ``<bucket>/000000``.

    Raises:
        CorpusError: if the shards are not finished.
        TrainingDataError: if they hold stop-gap captions and those are not allowed.
        FileNotFoundError: if a companion is not there.
        ValueError: if a size does not suit the autoencoder.
    """
    manifest = read_manifest(store, selection)
    if not allow_stopgap_captions:
        check_captions(manifest, store.root)
    digests = companions_digest(folder)
    models = Companions.load(folder)
    _check_sizes(config, models.autoencoder.downsampling)
    plan = {
        "made_by": {"name": NAME, "version": VERSION},
        "settings": json.loads(json.dumps(asdict(config))),
        "frames": "nearest timestamps at the pace; starts evenly spaced; covering, middle crop, bicubic",
        "shards": shards_name(manifest),
        "companions": digests,
        **models.plan(),
    }
    data = canonical_json(plan)
    digest = hashlib.sha256(data).hexdigest()[:12]
    place = layout.encoded(selection, layer_id(digest))
    if not store.exists(f"{place}/{PLAN}"):
        rows = [
            {"caption": text, "text_states": _bytes(state, config)}
            for text, state in zip(
                DROPPED_CAPTIONS, models.text_encoder.encode(DROPPED_CAPTIONS), strict=True
            )
        ]
        names = pa.schema([("caption", pa.string()), ("text_states", pa.binary())])
        store.write(f"{place}/{DROPPED}", to_parquet(pa.Table.from_pylist(rows, schema=names)))
        store.write(f"{place}/{PLAN}", data)
    return digest, sorted(
        name.removesuffix(".parquet")
        for name in manifest["files"]
        if name.endswith(".parquet") and "/" in name
    )


def _check_sizes(config: EncodeConfig, downsampling: int) -> None:
    for height, width in config.sizes_px:
        if height % downsampling or width % downsampling:
            raise ValueError(
                f"sizes_px must be multiples of {downsampling}, the autoencoder's downsampling, "
                f"got {height}x{width}"
            )


class ShardEncoder:
    """Encodes one shard after another.

    Args:
        store: the corpus.
        selection: name of the selection.
        config: as the layer was begun with.
        digest: of the layer.
        folder: of the companions, on every machine that encodes.
    """

    def __init__(
        self, store: Store, selection: str, config: EncodeConfig, digest: str, folder: Path
    ) -> None:
        self._store = store
        self._selection = selection
        self._config = config
        self._digest = digest
        self._companions = folder
        self._models: Companions | None = None

    @property
    def folder(self) -> str:
        """Of the layer, in the store."""
        return layout.encoded(self._selection, layer_id(self._digest))

    def setup(self) -> None:
        """Load the models; once, in the process that will do the work."""
        self._models = Companions.load(self._companions)

    def __call__(self, shard: str) -> dict[str, int]:
        """Encode the clips of one shard; its index rows are written last and commit it.

        Returns:
            Counts of "clips", and of "left out: <reason>" for each reason.
        """
        rows = read_table(self._store, f"{layout.shards(self._selection)}/{shard}.parquet")
        rows = rows.filter(pc.is_valid(rows["shard"]))
        with scratch_folder("lavie-encode-") as scratch:
            path = scratch / "latents.parquet"
            index = self._encode(path, shard, rows)
            made: dict[str, Any] = {"layer": self._digest, "files": {}}
            if any(row["shard"] for row in index):
                with path.open("rb") as file:
                    sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                entry = {"sha256": sha256, "size_bytes": path.stat().st_size}
                made["files"] = {f"{shard}.parquet": entry}
                self._store.put_file(f"{self.folder}/{shard}.parquet", path)
        table = pa.Table.from_pylist(index, schema=schema(ENCODED_ROWS))
        self._store.write(f"{self.folder}/{shard}.index.parquet", to_parquet(table, made_by=made))
        left_out = Counter(row["encode_reject"] for row in index if row["encode_reject"])
        return {
            "clips": len(index) - left_out.total(),
            **{f"left out: {reason}": number for reason, number in left_out.items()},
        }

    def _encode(self, path: Path, shard: str, rows: pa.Table) -> list[dict[str, Any]]:
        """Write the latents of one shard; returns its index rows."""
        reader = IndexReader(self._store, "", "", requirements(self._config))
        table = rows.select(list(INDEX_COLUMNS))
        kinds, sizes = reader.kinds(table), reader.sizes(table)
        reasons = {kind: reader.reasons(table, kind, sizes) for kind in reader.requirements.kinds}
        index, num_groups, pace = [], 0, Pace.of(self._config)
        with pq.ParquetWriter(
            path, schema(ENCODED), compression="zstd", write_page_checksum=True
        ) as writer:
            for number, row in enumerate(rows.to_pylist()):
                kind: Kind = "video" if kinds[number] == "video" else "image"
                size_px = self._config.sizes_px[sizes[number]]
                reason = str(reasons[kind][number])
                encoded: list[dict[str, Any]] = []
                if not reason:
                    try:
                        encoded = list(self._starts(row, kind, size_px))
                    except BadSource as error:
                        reason = error.reason
                for start in encoded:
                    one = pa.Table.from_pylist([start], schema=schema(ENCODED))
                    writer.write_table(one, row_group_size=1)
                index.append(
                    {
                        "clip_id": row["clip_id"],
                        "media": kind,
                        "shard": f"{shard}.parquet" if encoded else None,
                        "encode_reject": reason or None,
                        "row_group": num_groups if encoded else None,
                        "num_starts": len(encoded),
                        "height": size_px[0],
                        "width": size_px[1],
                        "duration_s": row["duration_s"],
                        "frame_rate": None if kind == "image" else float(pace.rate(row["fps"])),
                        "sampling_weight": row["sampling_weight"],
                        "source_sha256": row["source_sha256"],
                    }
                )
                num_groups += len(encoded)
        return index

    def _starts(
        self, row: dict[str, Any], kind: Kind, size_px: tuple[int, int]
    ) -> Iterator[dict[str, Any]]:
        """Rows of one clip: latents of each start, states of its captions."""
        assert self._models is not None, "setup() comes first"
        config = self._config
        sample = read_sample(self._store, self._selection, row)
        captions, weights = captions_of(sample.facts, sample.caption)
        states = [_bytes(state, config) for state in self._models.text_encoder.encode(captions)]
        shown = view(row["height"], row["width"], size_px, fit="cover", draw=None)
        for times_s in [[0.0]] if kind == "image" else frame_times(row, config):
            if kind == "image":
                frames_FCHW = read_image(sample.media, shown)
            else:
                frames_FCHW = read_frames(sample.media, times_s, shown)
            mean, logvar = self._models.latents(frames_FCHW)
            yield {
                "clip_id": row["clip_id"],
                "start_s": times_s[0],
                "num_frames": mean.shape[1],
                "latent_height": mean.shape[2],
                "latent_width": mean.shape[3],
                "mean": _bytes(mean, config),
                "logvar": _bytes(logvar, config),
                "captions": list(captions),
                "caption_weights": list(weights),
                "text_states": states,
            }


def _bytes(numbers: Tensor, config: EncodeConfig) -> bytes:
    stored = numbers.detach().cpu().numpy().astype(DTYPES[config.dtype])
    assert np.isfinite(stored).all(), "latents and text states fit into half precision"
    return stored.tobytes()


def finish_layer(
    store: Store, selection: str, digest: str, shards: Sequence[str]
) -> dict[str, Any]:
    """Write index.parquet, then manifest.json; returns the manifest.

    Raises:
        CorpusError: if shards are missing.
        TornPart: if a shard's rows are not of this layer.
    """
    folder = layout.encoded(selection, layer_id(digest))
    there = set(store.files(folder, recursive=True))
    missing = [name for name in shards if f"{folder}/{name}.index.parquet" not in there]
    if missing:
        raise CorpusError(
            f"{len(missing)} of {len(shards)} shards are missing under {store.root}/{folder}, the "
            f"first is {missing[0]}; run `lavie encode` again"
        )
    shards_manifest = read_manifest(store, selection)
    files: dict[str, Any] = {}
    reasons: Counter[str] = Counter()
    num_clips = 0
    today = _Today(store, selection)
    with scratch_folder("lavie-index-") as scratch:
        path = scratch / INDEX
        with pq.ParquetWriter(
            path, schema(ENCODED_INDEX), compression="zstd", write_page_checksum=True
        ) as index:
            held: list[pa.Table] = []
            for name in shards:
                rows, entries = _rows_of(store, folder, name, digest)
                files |= entries
                reasons.update(r for r in rows["encode_reject"].to_pylist() if r is not None)
                num_clips += rows.num_rows
                held.append(today.of(name, rows))
                if sum(table.num_rows for table in held) >= READ_ROWS:
                    index.write_table(pa.concat_tables(held))
                    held = []
            if held:
                index.write_table(pa.concat_tables(held))
        store.put_file(f"{folder}/{INDEX}", path)
    manifest: dict[str, Any] = {
        "plan": json.loads(store.read(f"{folder}/{PLAN}")),
        "shards": shards_manifest["contents"],
        "num_clips": num_clips - reasons.total(),
        "left_out": dict(sorted(reasons.items())),
        "files": files,
    }
    manifest["digest"] = manifest_digest(manifest)
    store.write(f"{folder}/{MANIFEST}", canonical_json(manifest))
    return manifest


class _Today:
    """What the index of the shards says today of clips that were encoded earlier.

    Args:
        store: the corpus.
        selection: name of the selection.
    """

    def __init__(self, store: Store, selection: str) -> None:
        columns = ["clip_id", "shard", "still_selected", "split", "sampling_weight"]
        self._index = read_index(store, selection, columns, dropped=True)
        shards = self._index["shard"].combine_chunks().dictionary_encode()
        self._of_shard = {name: code for code, name in enumerate(shards.dictionary.to_pylist())}
        # The rows of a shard follow each other, and the shards are numbered as they come.
        self._bounds = np.searchsorted(
            shards.indices.to_numpy(), np.arange(len(self._of_shard) + 1)
        )

    def of(self, shard: str, rows: pa.Table) -> pa.Table:
        """Index rows of one shard's latents, as the selection is now.

        Raises:
            TornPart: if they are not of the clips that the shard holds.
        """
        code = self._of_shard.get(f"{shard}.tar")
        begin, end = (0, 0) if code is None else self._bounds[code : code + 2]
        now = self._index.slice(begin, end - begin)
        if not now["clip_id"].equals(rows["clip_id"]):
            raise TornPart(f"the latents of {shard} are not of the clips that the shard holds")
        place = rows.column_names.index("sampling_weight")
        field = rows.schema.field(place)
        rows = rows.set_column(place, field, now["sampling_weight"])
        for name in ("split", "still_selected"):
            rows = rows.append_column(name, now[name])
        return rows.cast(schema(ENCODED_INDEX))


def _rows_of(store: Store, folder: str, shard: str, digest: str) -> tuple[pa.Table, dict[str, Any]]:
    """Index rows of one shard, and the manifest's entries for its files."""
    rows = read_table(store, f"{folder}/{shard}.index.parquet")
    made = json.loads((rows.schema.metadata or {}).get(LAYER_METADATA, b"{}"))
    if made.get("layer") != digest:
        raise TornPart(f"{store.root}/{folder}/{shard}.index.parquet: not of this layer")
    return rows.replace_schema_metadata(None).cast(schema(ENCODED_ROWS)), made["files"]
