"""Selections that ask for more than a corpus was measured for."""

from __future__ import annotations

import pytest

from curation.corpus.manifest import CorpusInfo
from curation.errors import MissingColumn
from curation.select import Balance, Rule, SelectConfig, Tier, check_selection, without_missing
from curation.select.rule_presets import PRESETS

FEW = ("probe", "scenes", "keyframes")
INFO = CorpusInfo(num_parts=1, layers={name: f"{name}@1-0123456789ab" for name in FEW})


@pytest.mark.parametrize("name", PRESETS)
def test_every_recipe_fits_a_corpus_of_the_decoding_pass_alone_and_says_what_it_skipped(name):
    recipe = PRESETS[name]()
    config = without_missing(recipe, FEW)
    check_selection(INFO, "s", config)
    kept = {rule.label for rule in config.rules} | {f"tier {tier.name}" for tier in config.tiers}
    asked = {rule.label for rule in recipe.rules} | {f"tier {tier.name}" for tier in recipe.tiers}
    skipped = {one.name for one in config.skipped}
    assert not kept & skipped
    assert kept | skipped >= asked
    assert all(one.station not in FEW for one in config.skipped)
    sources = {rule.label: rule.source for rule in recipe.rules}
    assert all(one.source == sources[one.name] for one in config.skipped if one.name in sources)


def test_what_is_missing_is_named_in_one_sentence_with_the_flag():
    with pytest.raises(MissingColumn) as refused:
        check_selection(INFO, "s", PRESETS["paper"]())
    said = str(refused.value)
    for name in ("overlay_text", "aesthetic_score", "caption_words", "tier fair", "tier high"):
        assert f"{name}: column" in said
    for name in ("aesthetics", "overlay_text", "caption_text", "--skip-missing"):
        assert name in said
    assert "\n" not in said
    assert "num_frames" not in said  # the scenes have it


def test_a_tier_goes_as_a_whole_and_limits_with_the_column_they_count_by():
    config = SelectConfig(
        rules=(Rule(column="num_frames", min=16), Rule(column="nsfw_score", max=0.8)),
        tiers=(
            Tier(
                name="high",
                rules=(Rule(column="short_side", min=720), Rule(column="aesthetic_score", min=6)),
            ),
            Tier(name="large", rules=(Rule(column="short_side", min=1080),)),
        ),
        balance=Balance(
            max_per_source=9, max_per_category=5, max_per_caption=3, weight_by_category=True
        ),
        quality_column="aesthetic_score",
    )
    left = without_missing(config, FEW)
    assert [rule.label for rule in left.rules] == ["num_frames"]
    assert [tier.name for tier in left.tiers] == ["large"]
    assert left.balance == Balance(max_per_source=9)
    assert left.quality_column is None
    assert [one.name for one in left.skipped] == [
        *("nsfw_score", "tier high", "quality_column", "max_per_caption", "balance by category")
    ]


def test_a_corpus_that_has_it_all_is_asked_for_it_all():
    config = PRESETS["paper"]()
    layers = ("aesthetics", "overlay_text", "captions", "caption_text", *FEW)
    assert without_missing(config, layers) is config
