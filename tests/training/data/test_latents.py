import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from curation.corpus.parts import read_table
from curation.corpus.shards import read_index, read_manifest, read_sample
from curation.corpus.store import Store
from curation.errors import CorpusError, TornPart, TrainingDataError
from training.data.encode_config import EncodeConfig
from training.data.encoding import ShardEncoder, begin_layer, companions_digest, finish_layer
from training.data.latents import EncodedReader, RowGroups, open_layer
from training.data.loader import TrainingData
from training.data.picture import view
from training.data.reading import read_frames
from training.models.autoencoder import Autoencoder
from training.models.text_encoder import TextEncoder
from training.models.tiny import tiny_autoencoder, tiny_text_encoder
from training.run_config import Phase, Source

CONFIG = EncodeConfig(sizes_px=((32, 48), (48, 32)), num_frames=8, starts=2)


@pytest.fixture(scope="module")
def companions(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("companions")
    tiny_autoencoder("base").save(folder / "vae")
    tiny_text_encoder().save(folder)
    return folder


@pytest.fixture(scope="module")
def encoded(small_corpus, companions, tmp_path_factory) -> tuple[Path, str]:
    """A copy of the small corpus, encoded, and the digest of its latents."""
    corpus = tmp_path_factory.mktemp("encoded") / "corpus"
    shutil.copytree(small_corpus, corpus)
    return corpus, encode(corpus, companions, CONFIG)


def encode(corpus: Path, companions: Path, config: EncodeConfig) -> str:
    torch.set_num_threads(1)  # as `lavie encode` has it; else the last bits differ
    store = Store(str(corpus))
    digest, shards = begin_layer(store, "default", config, companions)
    encoder = ShardEncoder(store, "default", config, digest, companions)
    encoder.setup()
    for shard in shards:
        encoder(shard)
    finish_layer(store, "default", digest, shards)
    return digest


@pytest.fixture(scope="module")
def of_latents(encoded, run_of, cache) -> Callable[..., TrainingData]:
    corpus, digest = encoded

    def make(**changes: object) -> TrainingData:
        source = Source(corpus=str(corpus), encoded=digest)
        config = run_of(corpus, **({"sources": (source,), "crop": "center"} | changes))
        return TrainingData(config, cache=cache)

    return make


def test_latents_are_those_of_the_frames_that_the_loader_reads(encoded, companions):
    corpus, digest = encoded
    store = Store(str(corpus))
    layer = open_layer(store, "default", digest)
    vae, tower = Autoencoder.load(companions / "vae"), TextEncoder.load(companions)
    rows = {row["clip_id"]: row for row in read_index(store, "default").to_pylist()}
    rows_of = read_table(store, f"{layer.folder}/index.parquet").to_pylist()
    index = {row["clip_id"]: row for row in rows_of}
    reader = EncodedReader(layer, run_sample())
    clip = next(row for row in rows.values() if row["width"] == 96)
    room_s = (clip["num_frames"] - 1) / clip["fps"] - 7 / 8
    sample = read_sample(store, "default", clip)
    for start in (0, 1):
        times = [start * room_s + n / 8 for n in range(8)]
        shown = view(clip["height"], clip["width"], (48, 32), fit="cover", draw=None)
        frames = read_frames(sample.media, times, shown)
        mean, std = vae.encode_moments((frames.float() / 127.5 - 1).transpose(0, 1)[None])
        stored = reader._medium(reader._row(index[clip["clip_id"]], start), slice(None))
        assert stored.mean_CFhw.shape == (4, 8, 6, 4)
        assert torch.allclose(stored.mean_CFhw, mean[0], atol=2e-3)
        assert torch.allclose(stored.logvar_CFhw, 2 * std[0].log(), atol=2e-2)
    assert stored.captions == (sample.caption,)
    assert torch.allclose(stored.texts_NLD, tower.encode([sample.caption]), atol=2e-3)


def run_sample():
    from training.run_config import SampleConfig

    return SampleConfig(num_frames=8, dropped_caption="None")


def test_the_same_settings_give_the_same_bytes(encoded, small_corpus, companions, tmp_path):
    corpus, digest = encoded
    shutil.copytree(small_corpus, tmp_path / "again")
    assert encode(tmp_path / "again", companions, CONFIG) == digest
    mine, theirs = (
        root / f"encoded/default/latents@1-{digest}" for root in (tmp_path / "again", corpus)
    )
    files = sorted(path.relative_to(mine) for path in mine.rglob("*") if path.is_file())
    assert len(files) == 4 + 2 * 12
    assert all((mine / path).read_bytes() == (theirs / path).read_bytes() for path in files)


def test_another_setting_model_or_selection_is_another_layer(encoded, companions, tmp_path):
    corpus, digest = encoded
    store = Store(str(corpus))
    other = tmp_path / "other"
    tiny_autoencoder("base", seed=1).save(other / "vae")
    tiny_text_encoder().save(other)
    digests = {digest}
    for config in (
        replace(CONFIG, num_frames=7),
        replace(CONFIG, dtype="fp32"),
        replace(CONFIG, starts=1),
        replace(CONFIG, fps=9.0),
        replace(CONFIG, sizes_px=((32, 48),)),
    ):
        digests.add(begin_layer(store, "default", config, companions)[0])
    digests.add(begin_layer(store, "default", CONFIG, other)[0])
    assert len(digests) == 7
    assert companions_digest(other)["vae"] != companions_digest(companions)["vae"]
    assert companions_digest(other)["tokenizer"] == companions_digest(companions)["tokenizer"]


def test_batches_of_latents_have_the_shapes_of_the_frames_and_are_joint(of_latents):
    data = of_latents()
    for step in range(12):
        batch = data.batch(step, range(4), draw=lambda *_: {})
        height, width = batch.size_px
        assert batch.frames_BFCHW is None
        assert batch.mean_BCFhw.shape == (4, 4, 10, height // 8, width // 8)
        assert batch.logvar_BCFhw.shape == batch.mean_BCFhw.shape
        assert batch.text_BKLD.shape == (4, 3, 77, 32)
        assert batch.mean_BCFhw.dtype == batch.text_BKLD.dtype == torch.float32


def test_latents_stand_in_the_same_order_as_pixels(of_latents, run_of, encoded, cache):
    pixels = TrainingData(run_of(encoded[0], crop="center"), cache=cache)
    latents = of_latents()
    assert [latents.clip_ids(step) for step in range(12)] == [
        pixels.clip_ids(step) for step in range(12)
    ]
    for step in range(4):
        one, other = (d.batch(step, range(4), draw=lambda *_: {}) for d in (latents, pixels))
        assert [texts[0] for texts in one.captions] == [texts[0] for texts in other.captions]


def test_states_are_those_of_the_caption_dropped_ones_included(of_latents, companions):
    tower = TextEncoder.load(companions)
    data = of_latents(caption_dropout=0.4)
    dropped = 0
    for step in range(6):
        batch = data.batch(step, range(4), draw=lambda *_: {})
        for captions, states in zip(batch.captions, batch.text_BKLD, strict=True):
            dropped += captions.count("")
            assert torch.allclose(states, tower.encode(captions), atol=2e-3)
    assert dropped > 5


def test_both_starts_come_up(of_latents, encoded):
    data = of_latents(images_per_video=0, phases=(Phase(steps=200, sizes_px=CONFIG.sizes_px),))
    seen: dict[str, set[bytes]] = {}
    for step in range(40):
        batch = data.batch(step, range(4), draw=lambda *_: {})
        for clip, mean in zip(batch.clip_ids, batch.mean_BCFhw, strict=True):
            seen.setdefault(clip, set()).add(mean.numpy().tobytes())
    assert max(map(len, seen.values())) == 2
    assert np.mean([len(starts) for starts in seen.values()]) > 1.5


def test_held_out_latents_are_apart_from_trained_ones(of_latents):
    data = of_latents(phases=(Phase(steps=100, sizes_px=CONFIG.sizes_px),))
    batches = list(data.held_out(num_samples=10, draw=lambda *_: {}))
    held = {clip for batch in batches for clip in batch.clip_ids if clip}
    assert held
    assert not held & {clip for step in range(100) for clip in data.clip_ids(step)}
    assert {batch.kind for batch in batches} == {"video", "images"}


WRONG = {
    "frames": ({"num_frames": 6}, "num_frames 8, asked for 6"),
    "pace": ({"pace": "nearest"}, "pace 'even', asked for 'nearest'"),
    "rate": ({"fps": 7.0}, "fps 8.0, asked for 7.0"),
    "crop": ({"crop": "random"}, "crop 'center', asked for 'random'"),
    "size": ({"phases": (Phase(sizes_px=((32, 48),)),)}, "sizes_px of phase 'only'"),
    "stage": ({"stage": "super_resolution"}, "latent_scale 0.18215, asked for 0.08333"),
}


@pytest.mark.parametrize(("changes", "message"), WRONG.values(), ids=list(WRONG))
def test_a_run_with_other_settings_than_were_encoded_is_refused(changes, message, of_latents):
    with pytest.raises(TrainingDataError, match=message):
        of_latents(**changes)


def test_latents_that_are_not_there_are_refused_with_those_that_are(encoded, run_of, cache):
    corpus, digest = encoded
    config = run_of(corpus, sources=(Source(corpus=str(corpus), encoded="0123456789ab"),))
    with pytest.raises(TrainingDataError, match=rf"there are: {digest}.*lavie encode"):
        TrainingData(config, cache=cache)


def test_latents_of_shards_that_were_exported_anew_are_refused(of_latents, encoded):
    corpus, digest = encoded
    store = Store(str(corpus))
    layer, manifest = open_layer(store, "default", digest), read_manifest(store, "default")
    other = [manifest["generations"][0] | {"export": "another"}]
    with pytest.raises(TrainingDataError, match="the shards"):
        layer.check(of_latents()._config, shards=manifest | {"generations": other})


def test_latents_of_shards_that_have_changed_since_are_brought_up_to_them_without_encoding(
    encoded, reindexed, companions, run_of, cache
):
    before, digest = encoded
    fallen = read_index(Store(str(before)), "default").to_pylist()[0]["clip_id"]
    corpus = reindexed(
        lambda rows: [row | {"still_selected": row["clip_id"] != fallen} for row in rows]
    )
    shutil.copytree(before / "encoded", corpus / "encoded")
    source = Source(corpus=str(corpus), encoded=digest)
    config = run_of(corpus, sources=(source,), crop="center")
    with pytest.raises(TrainingDataError, match="run the same `lavie encode` again"):
        TrainingData(config, cache=cache)
    store = Store(str(corpus))
    again, shards = begin_layer(store, "default", CONFIG, companions)
    layer = f"encoded/default/latents@1-{digest}"
    assert again == digest
    assert all(store.exists(f"{layer}/{shard}.index.parquet") for shard in shards)
    finish_layer(store, "default", digest, shards)
    index = read_table(store, f"{layer}/index.parquet").to_pylist()
    assert [row["clip_id"] for row in index if not row["still_selected"]] == [fallen]
    data = TrainingData(config, cache=cache)
    drawn = {clip for step in range(12) for clip in data.clip_ids(step)}
    assert drawn
    assert fallen not in drawn


def test_an_interrupted_layer_is_not_read_and_goes_on_where_it_stopped(
    small_corpus, companions, tmp_path
):
    corpus = tmp_path / "corpus"
    shutil.copytree(small_corpus, corpus)
    store = Store(str(corpus))
    digest, shards = begin_layer(store, "default", CONFIG, companions)
    encoder = ShardEncoder(store, "default", CONFIG, digest, companions)
    encoder.setup()
    encoder(shards[0])
    with pytest.raises(CorpusError, match=r"11 of 12 shards are missing"):
        finish_layer(store, "default", digest, shards)
    with pytest.raises(TrainingDataError, match="no finished latents"):
        open_layer(store, "default", digest)


def test_a_clip_that_cannot_be_decoded_is_left_out_with_its_reason(broken_corpus, companions):
    corpus, broken = broken_corpus(2)
    config = replace(CONFIG, sizes_px=((32, 48),), starts=1)
    digest = encode(corpus, companions, config)
    store = Store(str(corpus))
    layer = open_layer(store, "default", digest)
    rows = read_table(store, f"{layer.folder}/index.parquet").to_pylist()
    left_out = {row["clip_id"]: row["encode_reject"] for row in rows if row["encode_reject"]}
    assert left_out == dict.fromkeys(broken, "undecodable")


def test_a_flipped_byte_of_latents_is_found(encoded, tmp_path):
    corpus, digest = encoded
    shutil.copytree(corpus, tmp_path / "copy")
    store = Store(str(tmp_path / "copy"))
    name = next(
        name
        for name in store.files(f"encoded/default/latents@1-{digest}", recursive=True)
        if name.endswith("000000.parquet")
    )
    path = Path(store.path(name))
    data = bytearray(path.read_bytes())
    data[2000] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(TornPart, match="row group 0"):
        RowGroups(store).read(name, 0)
