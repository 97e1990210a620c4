"""Which sources a run opens, and what it refuses of them."""

from __future__ import annotations

import pytest

from curation.corpus.manifest import canonical_json
from curation.corpus.shards import manifest_digest, read_manifest
from curation.corpus.store import Store
from curation.errors import TrainingDataError
from training.data.sources import open_sources


@pytest.fixture
def captioned_by(reindexed):
    """``captioned_by({"tags": 3})``: a corpus whose manifest counts its captions so; None: not at all."""

    def make(engines):
        corpus = reindexed(lambda rows: rows)
        store = Store(str(corpus))
        manifest = read_manifest(store, "default")
        del manifest["caption_engines"]
        manifest |= {} if engines is None else {"caption_engines": engines}
        manifest["digest"] = manifest_digest(manifest)
        store.write("shards/default/manifest.json", canonical_json(manifest))
        return corpus

    return make


def test_captions_made_of_tags_are_refused_with_their_number_and_the_ways_out(run_of, captioned_by):
    corpus = captioned_by({"given": 40, "tags": 6})
    with pytest.raises(TrainingDataError, match=r"6 of the 46 captioned clips") as refused:
        open_sources(run_of(corpus))
    assert "selection 'default'" in str(refused.value)
    assert "--allow-stopgap-captions" in str(refused.value)
    (opened,) = open_sources(run_of(corpus, allow_stopgap_captions=True))
    assert opened.name.startswith(str(corpus))


def test_captions_of_which_nobody_knows_who_wrote_them_are_refused_as_such(run_of, captioned_by):
    for engines, number in ((None, 46), ({"given": 40, "unknown": 6}, 6)):
        with pytest.raises(TrainingDataError, match=f"of {number} clips, so stop-gap ones"):
            open_sources(run_of(captioned_by(engines)))
    assert open_sources(run_of(captioned_by(None), allow_stopgap_captions=True))


def test_captions_that_people_and_models_wrote_are_trained_on(run_of, captioned_by):
    assert open_sources(run_of(captioned_by({"given": 40, "endpoint": 6})))
    assert open_sources(
        run_of(captioned_by({}))
    )  # no caption at all is refused where clips are dealt


def test_one_stopgap_source_among_several_is_named(run_of, small_corpus, captioned_by):
    corpus = captioned_by({"tags": 46})
    config = run_of(corpus)
    good, bad = run_of(small_corpus).data.sources[0], config.data.sources[0]
    with pytest.raises(TrainingDataError, match=str(corpus)):
        open_sources(run_of(corpus, sources=(good, bad)))
