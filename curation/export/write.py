"""One shard: its clips are cut and packed, and it is committed."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from curation.corpus import layout
from curation.corpus.manifest import CorpusInfo
from curation.corpus.parts import read_clips, to_parquet
from curation.corpus.schema import SELECTION, SHARD_ROWS, schema
from curation.corpus.scratch import scratch_folder
from curation.corpus.selection import read_verdicts
from curation.corpus.shards import KEY_GRAMMAR
from curation.corpus.store import Store
from curation.errors import BadSource
from curation.export.clips import ADMITTED, Clip, ExportConfig, Media, ReadStream, cut, read_stream
from curation.export.facts import clip_columns, facts_digest, sample_facts
from curation.export.shard_plan import ShardPlan
from curation.export.tar import ShardTar
from curation.media.colour import Colour
from curation.media.containers import IMAGE_DEMUXERS
from curation.media.guard import Guard
from curation.media.orientation import Orientation
from curation.sources import SeenFolders, WebClient, fetched

INDEX_SCHEMA = schema(SHARD_ROWS)
_OF_THE_SOURCE = ("source_row", "num_clock_jumps", "picture_area")
"""Columns that cutting needs and the .json does not tell."""
_NOT_TOLD = ("part", "key", "export", "facts_generation", "tried_before", *_OF_THE_SOURCE)


class ShardWriter:
    """Makes one shard after another.

    Args:
        store: the corpus.
        info: contents of corpus.json.
        selection: name of the selection that was planned.
        config: as it was planned with.

    What is cut goes to `out`, which is the corpus unless it is set to another store. Sources on web servers
    are asked for by `web`, with the default settings unless it is set.
    """

    seen = SeenFolders()
    """Folders of the sources where the export was planned; whoever plans on a cluster sets it."""
    moved: Mapping[str, str] = MappingProxyType({})
    """Address of a source that is not there any more -> where the same bytes lie; set likewise."""

    def __init__(
        self, store: Store, info: CorpusInfo, selection: str, config: ExportConfig
    ) -> None:
        self.store = self.out = store
        self.info = info
        self.selection = selection
        self.config = config
        self.web = WebClient()
        self._facts = ("clip_id", *clip_columns(info.layers))
        self._encoder = ""
        self._guard: Guard | None = None

    def is_done(self, plan: ShardPlan) -> bool:
        """Whether the shard was committed by an earlier run of the same plan."""
        return self.store.exists(f"{layout.shards(self.selection)}/{plan.name}.parquet")

    def setup(self) -> None:
        """Find the encoder; once, in the process and thread that will do the work."""
        import imageio_ffmpeg

        self._encoder = f"ffmpeg {imageio_ffmpeg.get_ffmpeg_version()}"
        self._guard = Guard(ADMITTED)

    def close(self) -> None:
        """End the child process that reads sources."""
        if self._guard is not None:
            self._guard.close()

    def __call__(self, plan: ShardPlan) -> dict[str, int]:
        """Cut the clips of one shard, write its tar, then its index rows, which commit it.

        Returns:
            Counts of "clips" and "failed", and of "failed: <reason>" for each reason.
        """
        rows = self._rows(plan)
        folder = layout.shards(self.selection)
        with scratch_folder("lavie-shard-") as scratch:
            path = scratch / "shard.tar"
            with ShardTar(path) as tar:
                index = list(self._pack(tar, plan, _keyed(rows), scratch))
            made: dict[str, Any] = {"export": plan.export, "encoder": self._encoder, "tar": None}
            if any(row["shard"] for row in index):
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                made["tar"] = {"sha256": digest, "size_bytes": path.stat().st_size}
                self.out.put_file(f"{folder}/{plan.name}.tar", path)
        table = pa.Table.from_pylist(index, schema=INDEX_SCHEMA)
        self.out.write(f"{folder}/{plan.name}.parquet", to_parquet(table, made_by=made))
        return _counts(index)

    def _rows(self, plan: ShardPlan) -> list[dict[str, Any]]:
        """Columns of the shard's clips, with `part` and `source_row` to tell the sources apart."""
        columns = [*_OF_THE_SOURCE, *clip_columns(self.info.layers)]
        found: list[dict[str, Any]] = []
        for part, pairs in groupby(plan.clips.to_pylist(), key=lambda pair: pair["part"]):
            wanted = pa.array([pair["row"] for pair in pairs], pa.int32())
            clips = read_clips(self.store, self.info.layers, part, columns)
            verdicts = read_verdicts(self.store, self.selection, part, clip_ids=clips["clip_id"])
            for column in SELECTION[1:]:
                clips = clips.append_column(column.name, verdicts[column.name])
            found += [row | {"part": part} for row in clips.take(wanted).to_pylist()]
        own = {"export": plan.export, "facts_generation": plan.generation, "tried_before": None}
        own |= {"bucket": plan.bucket}
        as_cut: Sequence[Mapping[str, Any]] = plan.as_cut or [{}] * len(found)
        return [{**row, **own, **then} for row, then in zip(found, as_cut, strict=True)]

    def _pack(
        self, tar: ShardTar, plan: ShardPlan, rows: Iterable[dict[str, Any]], scratch: Path
    ) -> Iterator[dict[str, Any]]:
        """Index rows of one shard, in its order; clips that cannot be cut give a row too."""
        for _, group in groupby(rows, key=lambda row: (row["part"], row["source_row"])):
            clips = list(group)
            try:
                yield from self._pack_source(tar, plan, clips, scratch)
            except BadSource as error:  # before the first of its clips
                self.seen.check(clips[0]["uri"])
                for row in clips:
                    yield _failed(plan, row, error)

    def _pack_source(
        self, tar: ShardTar, plan: ShardPlan, rows: list[dict[str, Any]], scratch: Path
    ) -> Iterator[dict[str, Any]]:
        """Index rows of one source's clips.

        Raises:
            BadSource: before the first row, if the source cannot be fetched or has changed.
        """
        assert self._guard is not None, "setup() comes first"
        uri, sha256 = rows[0]["uri"], rows[0]["source_sha256"]
        place = self.moved.get(uri, uri)
        with fetched(place, max_bytes=ADMITTED.max_bytes, scratch=scratch, web=self.web) as source:
            if source.sha256 != sha256:
                raise BadSource("changed", f"sha256 is {source.sha256}, {sha256} was curated")
            stream = ReadStream(0)
            has_jumps = bool(rows[0]["num_clock_jumps"])
            if rows[0]["container"] not in IMAGE_DEMUXERS and (
                has_jumps or self.config.cut == "exact"
            ):
                stream = read_stream(source.file, self.config, self._guard, has_jumps=has_jumps)
            for row in rows:
                clip = stream.placed(_clip(row, crop=self.config.crop_borders))
                try:
                    media = cut(source.file, clip, self.config, self._guard, scratch)
                except BadSource as error:
                    yield _failed(plan, row, error)
                else:
                    yield self._add(tar, plan, row, media)

    def _add(
        self, tar: ShardTar, plan: ShardPlan, row: dict[str, Any], media: Media
    ) -> dict[str, Any]:
        """Put one sample into the tar; returns its index row."""
        key = row["key"]
        facts = sample_facts(
            {name: value for name, value in row.items() if name not in _NOT_TOLD},
            media,
            media_sha256=hashlib.sha256(media.data).hexdigest(),
            export=row["export"],
        )
        text = (row.get("caption") or "").encode()
        notes = json.dumps(facts, sort_keys=True, allow_nan=False).encode()
        index = _index_row(plan, row) | {
            "shard": f"{plan.name}.tar",
            "key": key,
            "media_name": f"{key}.{media.extension}",
            "num_frames": media.num_frames,
            "fps": media.fps,
            "duration_s": media.duration_s,
            "width": media.width,
            "height": media.height,
            "facts_digest": facts_digest({name: row[name] for name in self._facts}),
            "facts_generation": row["facts_generation"],
        }
        members = (
            ("media", media.extension, media.data),
            ("json", "json", notes),
            ("txt", "txt", text),
        )
        for part, extension, data in members:
            index[f"{part}_offset"] = tar.add(f"{key}.{extension}", data)
            index[f"{part}_size"] = len(data)
        return index


def _keyed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with a `key` that no other row of the shard has.

    It is the clip_id. The same bytes listed under two names give the same clip_ids; if both were
    selected, the later ones get a number behind it.
    """
    seen: Counter[str] = Counter()
    keyed = []
    for row in rows:
        clip_id = row["clip_id"]
        key = f"{clip_id}-{seen[clip_id]}" if clip_id in seen else clip_id
        assert re.fullmatch(KEY_GRAMMAR, key), f"clip_id {clip_id!r} is no key"
        seen[clip_id] += 1
        keyed.append(row | {"key": key})
    return keyed


def _clip(row: dict[str, Any], *, crop: bool) -> Clip:
    area = tuple(row["picture_area"] or ()) if crop else ()
    is_cropped = bool(area) and area != (0, 0, row["width"], row["height"])
    return Clip(
        area=area if is_cropped else None,
        container=row["container"],
        start_pts=row["start_pts"],
        end_pts=row["end_pts"],
        time_base=Fraction(row["time_base_num"], row["time_base_den"]),
        num_frames=row["num_frames"],
        width=row["width"],
        height=row["height"],
        colour=Colour.of_text(row["colour"]),
        interlaced=row["interlaced"],
        pixel_format=row["pixel_format"],
        orientation=Orientation(bool(row["mirrored"]), row["rotation_deg"] or 0),
    )


def _index_row(plan: ShardPlan, row: dict[str, Any]) -> dict[str, Any]:
    """What is known of a clip whether or not it could be cut."""
    return dict.fromkeys(INDEX_SCHEMA.names) | {
        "clip_id": row["clip_id"],
        "bucket": plan.bucket,
        "caption": row.get("caption"),
        "caption_engine": row.get("caption_engine"),
        "tier": row["tier"],
        "sampling_weight": row["sampling_weight"],
        "split": row["split"],
        "source_sha256": row["source_sha256"],
        "tried_before": row["tried_before"],
    }


def _failed(plan: ShardPlan, row: dict[str, Any], error: BadSource) -> dict[str, Any]:
    return _index_row(plan, row) | {
        "export_reject": error.reason,
        "export_reject_detail": error.detail,
    }


def _counts(index: list[dict[str, Any]]) -> dict[str, int]:
    failed = [row["export_reject"] for row in index if row["export_reject"]]
    counts = {"clips": len(index) - len(failed), "failed": len(failed)}
    return counts | {f"failed: {reason}": failed.count(reason) for reason in sorted(set(failed))}
