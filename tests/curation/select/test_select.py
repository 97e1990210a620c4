"""Selections of small synthetic corpora, against a reference that decides one clip at a time."""

import json
import math
import uuid
from dataclasses import asdict, replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curation.corpus import layout
from curation.corpus.gap import Gap
from curation.corpus.ledger import Ledger
from curation.corpus.manifest import CorpusInfo, canonical_json
from curation.corpus.parts import read_table, to_parquet
from curation.corpus.schema import LAYERS, SELECTION, SHARD_ROWS, SOURCES, layer_schema, schema
from curation.corpus.selection import read_funnel, read_rules, read_verdicts, selected_parts
from curation.corpus.store import Store
from curation.errors import CorpusError, MissingColumn, MissingPart, TornPart
from curation.select import (
    Balance,
    Buckets,
    Clusters,
    Dedup,
    Rule,
    SelectConfig,
    SelectResources,
    Splits,
    Tier,
    change_rules,
    parse_rule,
    select,
    without_missing,
)
from curation.select.rule_presets import PRESETS

NO_DEDUP = Dedup(copies=False, look_alikes=False)
LAYER_IDS = {name: f"{name}@1-0123456789ab" for name in LAYERS}


def full_table(rows, fields):
    """A table of all the fields, null where a row says nothing."""
    return pa.Table.from_pylist(
        [{field.name: row.get(field.name) for field in fields} for row in rows], schema=fields
    )


def write_corpus(
    folder, parts, layers=("aesthetics", "captions", "caption_text", "taxonomy", "overlay_text")
):
    """A corpus whose parts are lists of (source, clips of the source), both plain dictionaries."""
    store = Store(str(folder))
    for number, sources in enumerate(parts):
        rows = [source for source, _ in sources]
        clips = [
            {"width": 1280, "height": 720, "duration_s": 4.0, "num_frames": 96}
            | {"perceptual_hashes": []}
            | clip
            | {"source_row": row}
            for row, (_, clips) in enumerate(sources)
            for clip in clips
        ]
        store.write(layout.sources(number), to_parquet(full_table(rows, schema(SOURCES))))
        for name in ("probe", "scenes", *layers):
            table = full_table(rows if name == "probe" else clips, layer_schema(name))
            store.write(layout.layer(LAYER_IDS[name], number), to_parquet(table))
    ids = {name: LAYER_IDS[name] for name in ("probe", "scenes", *layers)}
    info = CorpusInfo(num_parts=len(parts), layers=ids)
    info.write(store)
    return store, info


def clip(number, **columns):
    return {"clip_id": str(uuid.UUID(int=number))} | columns


def one_source(*clips):
    return [[({"uri": "a.mp4", "source_sha256": "a"}, list(clips))]]


def verdicts(store, info, name="s"):
    tables = [read_verdicts(store, name, part) for part in range(info.num_parts)]
    return pa.concat_tables(tables).to_pylist()


def kept_numbers(store, info, name="s"):
    return [uuid.UUID(v["clip_id"]).int for v in verdicts(store, info, name) if v["keep"]]


def all_bytes(store, name):
    return {file: store.read(file) for file in store.files(layout.selection(name))}


# --- one rule at a time ---


@pytest.mark.parametrize(
    ("rule", "values", "kept"),
    [
        (Rule(column="aesthetic_score", min=4.0), [3.9, 4.0, 4.1, None, math.nan], [1, 2]),
        (Rule(column="aesthetic_score", max=4.0), [3.9, 4.0, 4.1, None, math.nan], [0, 1]),
        (
            Rule(column="aesthetic_score", min=4.0, keep_null=True),
            [3, 4, None, math.nan],
            [1, 2, 3],
        ),
        (Rule(column="caption_words", min=3, max=5), [2, 3, 5, 6, None], [1, 2]),
        (Rule(column="category", one_of=("Music", "it's")), ["Music", "it's", "Ads", None], [0, 1]),
        (Rule(column="category", none_of=("Ads",)), ["Music", "Ads", None], [0]),
        (Rule(column="category", none_of=("Ads",), keep_null=True), ["Music", "Ads", None], [0, 2]),
        (Rule(column="tags", one_of=("cat", "dog")), [["cat"], ["cow", "dog"], [], None], [0, 1]),
        (Rule(column="tags", none_of=("cat",)), [["cat", "dog"], ["dog"], [], None], [1, 2]),
        (Rule(column="aspect", min=1.5), [], []),
    ],
)
def test_a_rule_keeps_the_values_that_it_allows(tmp_path, rule, values, kept):
    clips = [clip(i, **{rule.column: value}) for i, value in enumerate(values)]
    store, info = write_corpus(tmp_path, one_source(*clips))
    select(store, info, "s", SelectConfig(rules=(rule,), dedup=NO_DEDUP))
    assert kept_numbers(store, info) == kept


def test_a_bound_is_compared_at_the_precision_of_its_column(tmp_path):
    # 0.07 as float32 is a little over 0.07: it must still pass max=0.07
    clips = [clip(0, text_area_share=0.07), clip(1, text_area_share=float(np.float32(0.0700001)))]
    store, info = write_corpus(tmp_path, one_source(*clips))
    rule = Rule(column="text_area_share", max=0.07)
    select(store, info, "s", SelectConfig(rules=(rule,), dedup=NO_DEDUP))
    assert kept_numbers(store, info) == [0]


def test_shape_rules_use_the_short_side_and_the_aspect(tmp_path):
    sizes = [(1280, 720), (720, 1280), (1440, 1080), (640, 360)]
    clips = [clip(i, width=w, height=h) for i, (w, h) in enumerate(sizes)]
    store, info = write_corpus(tmp_path, one_source(*clips))
    rules = (Rule(column="short_side", min=720), Rule(column="aspect", min=1.55))
    select(store, info, "s", SelectConfig(rules=rules, dedup=NO_DEDUP))
    failed = [v["failed_rules"] for v in verdicts(store, info)]
    assert failed == [[], ["aspect"], ["aspect"], ["short_side"]]


def test_a_video_rule_lets_pictures_pass(tmp_path):
    clips = [clip(0, duration_s=0.0), clip(1, duration_s=1.0), clip(2, duration_s=3.0)]
    store, info = write_corpus(tmp_path, one_source(*clips))
    rule = Rule(column="duration_s", min=2.0, media="video")
    funnel = select(store, info, "s", SelectConfig(rules=(rule,), dedup=NO_DEDUP))
    assert kept_numbers(store, info) == [0, 2]
    assert funnel.kept.images == 1
    assert [v["bucket"] for v in verdicts(store, info)] == [
        "16x9-720p-image",
        None,
        "16x9-720p-2to4s",
    ]


def test_columns_of_the_source_are_seen_by_its_clips(tmp_path):
    parts = [
        [({"licence": "CC-BY"}, [clip(0), clip(1)]), ({"licence": "none"}, [clip(2)])],
        [({"licence": "none"}, []), ({"licence": "CC-BY"}, [clip(3)])],
    ]
    store, info = write_corpus(tmp_path, parts)
    rule = Rule(column="licence", one_of=("CC-BY",))
    select(store, info, "s", SelectConfig(rules=(rule,), dedup=NO_DEDUP))
    assert kept_numbers(store, info) == [0, 1, 3]


def test_of_a_rejected_scene_no_other_rule_is_asked_and_the_funnel_says_the_same(tmp_path):
    clips = [clip(0, scene_reject="too_short", aesthetic_score=1.0), clip(1, aesthetic_score=5.0)]
    store, info = write_corpus(tmp_path, one_source(*clips))
    rule = Rule(column="aesthetic_score", min=4.0, name="pleasing")
    funnel = select(store, info, "s", SelectConfig(rules=(rule,), dedup=NO_DEDUP))
    assert [v["failed_rules"] for v in verdicts(store, info)] == [["scene_reject"], []]
    assert [step.removed_alone.clips for step in funnel.steps] == [1, 0]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.5, 1.0])
def test_quantiles_are_numpys_inverted_cdf_over_clips_that_are_scenes(tmp_path, share):
    rng = np.random.default_rng(7)
    values = rng.normal(size=201).astype(np.float32)
    clips = [clip(i, aesthetic_score=float(v)) for i, v in enumerate(values)]
    clips += [clip(1000, aesthetic_score=-99.0, scene_reject="too_short"), clip(1001)]
    store, info = write_corpus(tmp_path, one_source(*clips))
    rule = Rule(column="aesthetic_score", min_quantile=share)
    select(store, info, "s", SelectConfig(rules=(rule,), dedup=NO_DEDUP))
    bound = np.quantile(values, share, method="inverted_cdf")
    assert kept_numbers(store, info) == np.flatnonzero(values >= bound).tolist()
    assert read_rules(store, "s")["quantiles"][0]["min"] == pytest.approx(float(bound))


def test_a_quantile_over_no_value_fails_every_clip(tmp_path):
    store, info = write_corpus(tmp_path, one_source(clip(0), clip(1)))
    rule = Rule(column="aesthetic_score", min_quantile=0.5)
    funnel = select(store, info, "s", SelectConfig(rules=(rule,), dedup=NO_DEDUP))
    assert funnel.kept.clips == 0


# --- many rules at random, against a reference ---

POOL = (
    Rule(column="aesthetic_score", min=4.0, max=6.0),
    Rule(column="motion_mean", min=0.2, media="video", keep_null=True),
    Rule(column="caption_words", min=3),
    Rule(column="category", none_of=("Ads",), keep_null=True),
    Rule(column="text_area_share", max_quantile=0.8),
    Rule(column="brightness_mean", min_quantile=0.1, max_quantile=0.9, media="video"),
    Rule(column="aspect", min=1.0),
    Rule(column="source_fps", max=60.0, keep_null=True),
)


def random_parts(rng, num_parts=3):
    numbers = iter(range(10_000))

    def maybe(value, share=0.15):
        return None if rng.random() < share else value

    def make_clip():
        return clip(
            next(numbers),
            scene_reject=maybe("too_short", 0.9),
            duration_s=float(rng.choice([0.0, 2.5, 5.0, 20.0])),
            width=int(rng.choice([640, 1280, 1920])),
            height=int(rng.choice([360, 720, 1080])),
            aesthetic_score=maybe(float(np.float32(rng.uniform(3, 7)))),
            motion_mean=maybe(float(np.float32(rng.uniform(0, 1)))),
            brightness_mean=maybe(float(np.float32(rng.integers(0, 20)))),
            caption_words=int(rng.integers(0, 12)),
            category=maybe(str(rng.choice(["Ads", "Music", "Travel"]))),
            caption=maybe(str(rng.choice(["a fox", "A fox", "a fox ", "", " "]))),
            text_area_share=maybe(float(np.float32(rng.uniform(0, 0.3)))),
        )

    return [
        [
            (
                {"uri": "u", "source_sha256": str(rng.integers(0, 6)), "source_fps": maybe(25.0)},
                [make_clip() for _ in range(rng.integers(0, 7))],
            )
            for _ in range(rng.integers(0, 6))
        ]
        for _ in range(num_parts)
    ]


def value_of(rule, one):
    if rule.column == "aspect":
        return one["width"] / one["height"]
    return one.get(rule.column)


def applies(rule, one):
    return rule.media == "all" or (one["duration_s"] == 0) == (rule.media == "image")


def inverted_cdf(rule, clips, share):
    values = [value_of(rule, c) for c in clips if c["scene_reject"] is None and applies(rule, c)]
    values = [v for v in values if v is not None]
    return np.quantile(values, share, method="inverted_cdf") if values else None


def passes(rule, one, clips):
    value = value_of(rule, one)
    if not applies(rule, one):
        return True
    if value is None:
        return rule.keep_null
    low = [rule.min] if rule.min is not None else []
    high = [rule.max] if rule.max is not None else []
    if rule.min_quantile is not None:
        low.append(inverted_cdf(rule, clips, rule.min_quantile))
    if rule.max_quantile is not None:
        high.append(inverted_cdf(rule, clips, rule.max_quantile))
    allowed = all(value >= bound for bound in low if bound is not None)
    allowed &= all(value <= bound for bound in high if bound is not None)
    return allowed and (not rule.one_of or value in rule.one_of) and value not in rule.none_of


def reference(parts, config):
    """Failed rules and tier of each clip, decided one clip at a time."""
    everything = [
        (source | c, (number, row))
        for number, sources in enumerate(parts)
        for row, (source, clips) in enumerate(sources)
        for c in clips
    ]
    clips = [c for c, _ in everything]
    failed = [["scene_reject"] if c["scene_reject"] else [] for c in clips]
    for rule in config.rules:
        for names, one in zip(failed, clips, strict=True):
            names += [] if one["scene_reject"] or passes(rule, one, clips) else [rule.label]
    first = {}
    for number, sources in enumerate(parts):
        for row, (source, _) in enumerate(sources):
            first.setdefault(source["source_sha256"], (number, row))
    for names, (one, place) in zip(failed, everything, strict=True):
        is_copy = first[one["source_sha256"]] != place and not one["scene_reject"]
        names += ["duplicate_source"] if is_copy else []
    tiers = []
    for one in clips:
        met = [t.name for t in config.tiers if all(passes(r, one, clips) for r in t.rules)]
        tiers.append(met[-1] if met else None)
    limits = (
        ("max_per_source", config.balance.max_per_source, lambda i: everything[i][1]),
        (
            "max_per_caption",
            config.balance.max_per_caption,
            lambda i: (clips[i]["caption"] or "").strip() and clips[i]["caption"],
        ),
        ("max_per_category", config.balance.max_per_category, lambda i: clips[i]["category"]),
    )
    levels = [None, *(t.name for t in config.tiers)]
    for label, limit, group_of in limits:
        kept = [i for i, names in enumerate(failed) if not names]
        for group in {group_of(i) for i in kept} - {None, ""} if limit else ():
            inside = [i for i in kept if group_of(i) == group]
            inside.sort(
                key=lambda i: (
                    -levels.index(tiers[i]),
                    clips[i]["aesthetic_score"] is None,
                    -(clips[i]["aesthetic_score"] or 0),
                    -clips[i]["width"] * clips[i]["height"],
                    i,
                )
            )
            for i in inside[limit:]:
                failed[i].append(label)
    return [(names, tier if not names else None) for names, tier in zip(failed, tiers, strict=True)]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    seed=st.integers(0, 2**32 - 1),
    rules=st.lists(st.sampled_from(POOL), max_size=5, unique=True),
    per_source=st.sampled_from([None, 1, 2]),
    per_category=st.sampled_from([None, 2]),
    per_caption=st.sampled_from([None, 1, 2]),
)
def test_verdicts_are_those_of_a_clip_by_clip_reference(
    tmp_path_factory, seed, rules, per_source, per_category, per_caption
):
    parts = random_parts(np.random.default_rng(seed))
    store, info = write_corpus(tmp_path_factory.mktemp("corpus"), parts)
    config = SelectConfig(
        rules=tuple(rules),
        tiers=(
            Tier(name="fair", rules=(Rule(column="aesthetic_score", min=4.5),)),
            Tier(name="high", rules=(Rule(column="aesthetic_score", min_quantile=0.7),)),
        ),
        dedup=Dedup(look_alikes=False),
        balance=Balance(
            max_per_source=per_source,
            max_per_category=per_category,
            max_per_caption=per_caption,
        ),
        quality_column="aesthetic_score",
    )
    funnel = select(store, info, "s", config)
    found = verdicts(store, info)
    expected = reference(parts, config)
    assert [(v["failed_rules"], v["tier"]) for v in found] == expected
    assert [v["keep"] for v in found] == [not names for names, _ in expected]
    check_funnel(funnel, [names for names, _ in expected], sum(len(p) for p in parts))


def check_funnel(funnel, failed, num_sources):
    """The funnel is what one counts by hand from the clips' failed rules."""
    assert funnel.sources == num_sources
    assert funnel.clips.clips == len(failed)
    assert funnel.kept.clips == sum(not names for names in failed)
    assert funnel.clips == funnel.kept + funnel.rejected
    left = failed
    for step in funnel.steps:
        before, left = left, [names for names in left if step.rule not in names]
        assert step.left.clips == len(left)
        assert step.removed_here.clips == len(before) - len(left)
        assert step.removed_alone.clips == sum(step.rule in names for names in failed)
        assert step.removed_only.clips == sum(names == [step.rule] for names in failed)
    assert sum(amount.clips for amount in funnel.buckets.values()) == funnel.kept.clips


def test_the_order_of_rules_changes_the_funnel_but_no_verdict(tmp_path):
    parts = random_parts(np.random.default_rng(3))
    store, info = write_corpus(tmp_path, parts)
    for name, rules in (("forward", POOL), ("backward", POOL[::-1])):
        select(store, info, name, SelectConfig(rules=rules, dedup=Dedup(look_alikes=False)))
    forward, backward = verdicts(store, info, "forward"), verdicts(store, info, "backward")
    for one, other in zip(forward, backward, strict=True):
        assert sorted(one["failed_rules"]) == sorted(other["failed_rules"])
        assert one["keep"] == other["keep"]
    steps = [read_funnel(store, name)["steps"] for name in ("forward", "backward")]
    assert [s["rule"] for s in steps[0]] != [s["rule"] for s in steps[1]]
    assert steps[0][-1]["left"] == steps[1][-1]["left"]


# --- copies, look-alikes, balance, buckets ---


def hashes(rng):
    return rng.integers(0, 2**64, size=8, dtype=np.uint64).tolist()


def test_of_look_alikes_the_larger_then_the_better_then_the_first_id_is_kept(tmp_path):
    rng = np.random.default_rng(0)
    a, b, c = hashes(rng), hashes(rng), hashes(rng)
    clips = [
        clip(1, perceptual_hashes=a, width=640, height=360, aesthetic_score=9.0),
        clip(2, perceptual_hashes=a, aesthetic_score=1.0),
        clip(3, perceptual_hashes=b, aesthetic_score=4.0),
        clip(4, perceptual_hashes=[b[0] ^ 1, *b[1:]], aesthetic_score=5.0),
        clip(6, perceptual_hashes=c, aesthetic_score=5.0),
        clip(5, perceptual_hashes=c, aesthetic_score=5.0),
        clip(7, perceptual_hashes=hashes(rng)),
    ]
    store, info = write_corpus(tmp_path, one_source(*clips))
    funnel = select(store, info, "s", SelectConfig(quality_column="aesthetic_score"))
    assert kept_numbers(store, info) == [2, 4, 5, 7]
    groups = [v["duplicate_group"] for v in verdicts(store, info)]
    assert groups == [*(str(uuid.UUID(int=n)) for n in (2, 2, 4, 4, 5, 5)), None]
    assert funnel.duplicate_groups == 3


def write_shard(store, config, info, *numbers, told=None):
    """Shards of the selection "s" that hold some clips: their plan, and the rows of one."""
    store.write(
        "shards/s/plan.json",
        canonical_json(
            {
                "export": "abc",
                "selection": "s",
                "selection_sha256": "0",
                "layers": info.layers,
                "rules": {"version": 1, "config": asdict(config)},
            }
        ),
    )
    rows = [
        clip(number, shard="wide/000000.tar") | (told or {}).get(number, {}) for number in numbers
    ]
    table = full_table(rows, schema(SHARD_ROWS))
    store.write("shards/s/wide/000000.parquet", to_parquet(table, made_by={"export": "abc"}))


def test_of_look_alikes_one_that_is_exported_is_kept_before_a_better_new_one(tmp_path):
    rng = np.random.default_rng(0)
    a, b, c = hashes(rng), hashes(rng), hashes(rng)
    clips = [
        clip(1, perceptual_hashes=a),
        clip(2, perceptual_hashes=a, width=1920, height=1080),
        clip(3, perceptual_hashes=b),
        clip(4, perceptual_hashes=b, width=1920, height=1080),
        clip(5, perceptual_hashes=c),
    ]
    store, info = write_corpus(tmp_path, one_source(*clips))
    config = SelectConfig()
    select(store, info, "s", config)
    assert kept_numbers(store, info) == [2, 4, 5]
    write_shard(store, config, info, 1, 5)
    select(store, info, "s", config)
    assert kept_numbers(store, info) == [1, 4, 5]
    assert [v["duplicate_group"] for v in verdicts(store, info)][:2] == [str(uuid.UUID(int=1))] * 2


def test_other_rules_under_a_name_that_has_shards_are_refused_with_the_selection_untouched(
    tmp_path,
):
    store, info = write_corpus(tmp_path, one_source(clip(1), clip(2)))
    config = SelectConfig(dedup=NO_DEDUP)
    select(store, info, "s", config)
    write_shard(store, config, info, 1)
    before = all_bytes(store, "s")
    other = replace(config, rules=(Rule(column="aesthetic_score", min=4.5),))
    with pytest.raises(CorpusError, match="another name"):
        select(store, info, "s", other)
    moved = replace(info, layers=info.layers | {"taxonomy": "taxonomy@2-other"})
    with pytest.raises(CorpusError, match=r"layers\.taxonomy"):
        select(store, moved, "s", config)
    assert all_bytes(store, "s") == before
    select(store, info, "t", other)


def test_look_alikes_are_found_across_parts_but_only_among_clips_that_pass(tmp_path):
    same = hashes(np.random.default_rng(0))
    parts = [
        [({"source_sha256": str(n)}, [clip(n, perceptual_hashes=same, aesthetic_score=float(n))])]
        for n in range(4)
    ]
    store, info = write_corpus(tmp_path, parts)
    config = SelectConfig(
        rules=(Rule(column="aesthetic_score", max=2.0),), quality_column="aesthetic_score"
    )
    select(store, info, "s", config)
    found = verdicts(store, info)
    assert [v["failed_rules"] for v in found] == [
        ["duplicate"],
        ["duplicate"],
        [],
        ["aesthetic_score"],
    ]
    assert [v["duplicate_group"] for v in found] == [*[str(uuid.UUID(int=2))] * 3, None]


def test_clips_of_a_copied_source_fail_whatever_it_is_called(tmp_path):
    parts = [
        [
            ({"uri": "a", "source_sha256": "x"}, [clip(1)]),
            ({"uri": "b", "source_sha256": None}, []),
        ],
        [
            ({"uri": "c", "source_sha256": "x"}, [clip(1)]),
            ({"uri": "d", "source_sha256": None}, []),
        ],
    ]
    store, info = write_corpus(tmp_path, parts)
    select(store, info, "s", SelectConfig())
    assert [v["failed_rules"] for v in verdicts(store, info)] == [[], ["duplicate_source"]]


def test_a_copy_of_a_rejected_source_is_the_first_that_counts(tmp_path):
    rejected = {"uri": "a", "source_sha256": "x", "source_reject": "too_slow"}
    copies = [({"uri": name, "source_sha256": "x"}, [clip(1)]) for name in "bc"]
    store, info = write_corpus(tmp_path, [[(rejected, []), *copies]])
    select(store, info, "s", SelectConfig())
    assert [v["failed_rules"] for v in verdicts(store, info)] == [[], ["duplicate_source"]]


def test_sampling_weights_are_one_over_root_of_the_category_and_one_on_average(tmp_path):
    names = ["Music"] * 9 + ["Ads"] * 4 + [None]
    clips = [clip(i, category=name) for i, name in enumerate(names)]
    store, info = write_corpus(tmp_path, one_source(*clips, clip(99, scene_reject="too_short")))
    balance = Balance(weight_by_category=True)
    select(store, info, "s", SelectConfig(balance=balance, dedup=NO_DEDUP))
    weights = [v["sampling_weight"] for v in verdicts(store, info)]
    assert weights[-1] is None
    expected = np.array([1 / 3] * 9 + [1 / 2] * 4)
    assert weights[:-2] == pytest.approx((expected / expected.mean()).tolist())
    assert weights[-2] == 1.0  # without a category there is nothing to balance by


def test_clips_without_a_category_are_exempt_from_its_limit_and_the_funnel_counts_them(tmp_path):
    names = [None] * 6 + ["Music"] * 3
    clips = [clip(i, category=name) for i, name in enumerate(names)]
    store, info = write_corpus(tmp_path, one_source(*clips))
    balance = Balance(max_per_category=2)
    funnel = select(store, info, "s", SelectConfig(balance=balance, dedup=NO_DEDUP))
    assert kept_numbers(store, info) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert funnel.uncategorised == read_funnel(store, "s")["uncategorised"] == 6
    assert "those without one are exempt" in funnel.steps[-1].allows
    assert select(store, info, "s", SelectConfig(dedup=NO_DEDUP)).uncategorised is None


def test_of_one_caption_the_best_are_kept_and_none_is_no_caption(tmp_path):
    words = ["stock footage"] * 5 + ["Stock footage", None, None, None, "", ""]
    clips = [clip(i, caption=text, aesthetic_score=i % 5) for i, text in enumerate(words)]
    store, info = write_corpus(tmp_path, one_source(*clips))
    config = SelectConfig(
        balance=Balance(max_per_caption=2), dedup=NO_DEDUP, quality_column="aesthetic_score"
    )
    funnel = select(store, info, "s", config)
    assert kept_numbers(store, info) == [3, 4, 5, 6, 7, 8, 9, 10]
    step = funnel.steps[-1]
    assert (step.rule, step.removed_here.clips) == ("max_per_caption", 3)
    with pytest.raises(ValueError, match="max_per_caption must be at least 1, got 0"):
        Balance(max_per_caption=0)


def test_clips_of_one_caption_are_counted_and_a_rule_may_ask_how_many(tmp_path):
    texts = ["stock footage"] * 4 + ["Stock footage", "a cat", "a cat", None, " "]
    clips = [clip(i, caption=text) for i, text in enumerate(texts)]
    short = clip(99, caption="a cat", scene_reject="too_short")
    store, info = write_corpus(
        tmp_path,
        [[({"source_sha256": "a"}, [*clips[:5]])], [({"source_sha256": "b"}, [*clips[5:], short])]],
    )
    config = SelectConfig(rules=(parse_rule("caption_count<=2"),), dedup=NO_DEDUP)
    funnel = select(store, info, "s", config)
    assert [v["caption_count"] for v in verdicts(store, info)] == [4] * 4 + [1, 2, 2, 0, 0, None]
    assert kept_numbers(store, info) == [4, 5, 6, 7, 8]
    assert funnel.steps[1].removed_here.clips == 4
    tier = Tier(name="rare", rules=(Rule(column="caption_count", min=1, max_quantile=0.5),))
    select(store, info, "s", SelectConfig(tiers=(tier,), dedup=NO_DEDUP))
    # the counts are 0 0 1 2 2 4 4 4 4: the fifth of the nine is the median
    rare = [uuid.UUID(v["clip_id"]).int for v in verdicts(store, info) if v["tier"] == "rare"]
    assert rare == [4, 5, 6]
    select(store, info, "s", SelectConfig(dedup=NO_DEDUP))
    assert {v["caption_count"] for v in verdicts(store, info)} == {None}
    with pytest.raises(ValueError, match="quality_column must be known of a clip by itself"):
        select(store, info, "s", SelectConfig(quality_column="caption_count"))


@pytest.mark.parametrize(
    ("width", "height", "duration_s", "name"),
    [
        (1280, 720, 4.0, "16x9-720p-4to8s"),
        (1920, 1080, 31.9, "16x9-1080p-16to32s"),
        (720, 1280, 40.0, "9x16-720p-over32s"),
        (500, 500, 1.0, "1x1-480p-under2s"),
        (400, 300, 2.0, "4x3-under320p-2to4s"),
        (960, 1280, 0.0, "3x4-720p-image"),
        (1550, 1000, 8.0, "4x3-720p-8to16s"),
    ],
)
def test_a_bucket_says_shape_size_and_length(tmp_path, width, height, duration_s, name):
    one = clip(0, width=width, height=height, duration_s=duration_s)
    store, info = write_corpus(tmp_path, one_source(one))
    funnel = select(store, info, "s", SelectConfig(dedup=NO_DEDUP))
    assert verdicts(store, info)[0]["bucket"] == name
    assert list(funnel.buckets) == [name]
    of_columns = [np.array([v], np.float32) for v in (width, height, duration_s)]
    assert [Buckets().names()[number] for number in Buckets().numbers(*of_columns)] == [name]


# --- splits ---


def split_of(store, info):
    return {v["clip_id"]: v["split"] for v in verdicts(store, info)}


def films(count, shared):
    """Sources of three clips each; those that share a number have a clip that looks the same."""
    rng = np.random.default_rng(8)
    same = {number: hashes(rng) for number in set(shared.values())}
    sources = []
    for film in range(count):
        clips = [clip(10 * film + n, perceptual_hashes=hashes(rng)) for n in range(3)]
        if film in shared:
            clips[0]["perceptual_hashes"] = same[shared[film]]
        sources.append(({"uri": f"{film}", "source_sha256": f"{film:064x}"}, clips))
    return sources


@pytest.mark.parametrize("look_alikes", [True, False])
def test_a_split_divides_neither_films_nor_films_that_share_a_clip(tmp_path, look_alikes):
    shared = {n: n // 2 for n in range(30)}
    store, info = write_corpus(tmp_path, [films(60, shared)])
    config = SelectConfig(
        splits=Splits(val_share=0.3, test_share=0.3), dedup=Dedup(look_alikes=look_alikes)
    )
    funnel = select(store, info, "s", config)
    of_film = [set() for _ in range(60)]
    for clip_id, split in split_of(store, info).items():
        of_film[uuid.UUID(clip_id).int // 10].add(split)
    named = [splits - {None} for splits in of_film]  # a clip that lost against its like has none
    assert all(len(splits) == 1 for splits in named)
    assert all(named[n] == named[n + 1] for n in range(0, 30, 2))
    assert list(funnel.splits) == ["train", "val", "test"]
    assert sum(amount.clips for amount in funnel.splits.values()) == funnel.kept.clips


def test_what_is_exported_keeps_its_split_when_the_corpus_grows(tmp_path):
    config = SelectConfig(splits=Splits(val_share=0.4, test_share=0.0))
    old = films(12, {})
    store, info = write_corpus(tmp_path, [old])
    select(store, info, "s", config)
    before = split_of(store, info)
    told = {
        10 * film + n: {
            "source_sha256": f"{film:064x}",
            "split": before[clip(10 * film)["clip_id"]],
        }
        for film in range(12)
        for n in range(3)
    }
    write_shard(store, config, info, *told, told=told)
    # a film of the next delivery shows a clip of a film that is trained on, and one of a held-out film
    trained, held_out = (
        next(film for film in range(12) if before[clip(10 * film)["clip_id"]] == split)
        for split in ("train", "val")
    )
    bridge = [
        clip(1000, perceptual_hashes=old[trained][1][1]["perceptual_hashes"]),
        clip(1001, perceptual_hashes=old[held_out][1][1]["perceptual_hashes"]),
        clip(1002, perceptual_hashes=hashes(np.random.default_rng(99))),
    ]
    new = [({"uri": "new", "source_sha256": "f" * 64}, bridge)]
    store, info = write_corpus(tmp_path, [old, new])
    funnel = select(store, info, "s", config)
    after = split_of(store, info)
    assert {clip_id: after[clip_id] for clip_id in before} == before
    assert after[clip(1002)["clip_id"]] is None
    assert funnel.splits[""].clips == 1


def test_verdicts_of_an_earlier_program_have_no_splits(tmp_path):
    store, info = write_corpus(tmp_path, one_source(clip(0)))
    select(store, info, "s", SelectConfig())
    place = f"{layout.selection('s')}/{layout.part_file(0)}"
    store.write(place, to_parquet(read_table(store, place).drop_columns(["split"])))
    assert verdicts(store, info)[0]["split"] is None


# --- clusters ---


def sighted(number, direction, **columns):
    """A clip whose embedding points mostly one way."""
    vector = np.random.default_rng(number).normal(size=8) * 0.02
    vector[direction] += 1
    return clip(number, embedding=(vector / np.linalg.norm(vector)).tolist(), **columns)


WITH_EMBEDDINGS = ("aesthetics", "embeddings")


def test_clusters_weigh_and_keep_their_numbers_when_the_corpus_grows(tmp_path):
    ways = [0] * 9 + [1] * 4 + [2]
    old = [({"source_sha256": "a"}, [sighted(n, way) for n, way in enumerate(ways)])]
    blind = [({"source_sha256": "b"}, [clip(50), sighted(51, 0, scene_reject="too_short")])]
    store, info = write_corpus(tmp_path, [old, blind], WITH_EMBEDDINGS)
    config = SelectConfig(
        clusters=Clusters(num=3, seed=4), balance=Balance(weight_by_cluster=True), dedup=NO_DEDUP
    )
    select(store, info, "s", config)
    before = verdicts(store, info)
    of_way = [
        {v["cluster"] for v, w in zip(before[:14], ways, strict=True) if w == way}
        for way in range(3)
    ]
    assert sorted(map(tuple, of_way)) == [(0,), (1,), (2,)]
    weights = [v["sampling_weight"] for v in before]
    expected = np.array([1 / 3] * 9 + [1 / 2] * 4 + [1])
    assert weights[:14] == pytest.approx((expected / expected.mean()).tolist())
    assert weights[14:] == [1.0, None]
    assert [v["cluster"] for v in before[14:]] == [None, None]
    assert all(0 <= v["cluster_distance"] < 0.05 for v in before[:14])
    new = [({"source_sha256": "c"}, [sighted(60 + n, n % 3) for n in range(30)])]
    store, info = write_corpus(tmp_path, [old, blind, new], WITH_EMBEDDINGS)
    select(store, info, "other", config)
    after = verdicts(store, info, "other")
    assert [v["cluster"] for v in after[:16]] == [v["cluster"] for v in before]
    assert [{v["cluster"]} for v in after[16:19]] == of_way
    assert read_rules(store, "other")["layers"]["embeddings"] == LAYER_IDS["embeddings"]


def test_a_split_does_not_divide_neighbours_of_a_cluster(tmp_path):
    sources = [({"source_sha256": f"{n:064x}"}, [sighted(n, n % 4)]) for n in range(80)]
    store, info = write_corpus(tmp_path, [sources], WITH_EMBEDDINGS)
    splits = Splits(val_share=0.3, test_share=0.3)
    apart = SelectConfig(clusters=Clusters(num=4), dedup=NO_DEDUP, splits=splits)
    select(store, info, "s", apart)
    ways = [{v["split"] for v in verdicts(store, info)[way::4]} for way in range(4)]
    assert all(len(split) == 1 for split in ways)
    select(store, info, "s", replace(apart, clusters=Clusters(num=4, neighbour_distance=0.0)))
    ways = [{v["split"] for v in verdicts(store, info)[way::4]} for way in range(4)]
    assert all(len(split) == 3 for split in ways)


def test_of_clips_that_show_the_same_the_best_is_kept_and_the_rest_name_it(tmp_path):
    ways = [0] * 5 + [1] * 2 + [2]
    clips = [sighted(n, way, aesthetic_score=float(n % 4)) for n, way in enumerate(ways)]
    store, info = write_corpus(tmp_path, [[({"source_sha256": "a"}, clips)]], WITH_EMBEDDINGS)
    config = SelectConfig(
        clusters=Clusters(num=3, duplicate_distance=0.05),
        quality_column="aesthetic_score",
        dedup=NO_DEDUP,
    )
    funnel = select(store, info, "s", config)
    found = verdicts(store, info)
    assert kept_numbers(store, info) == [3, 6, 7]
    best = {0: 3, 1: 6, 2: None}
    assert [v["semantic_duplicate_of"] for v in found] == [
        None if v["keep"] else str(uuid.UUID(int=best[way]))
        for v, way in zip(found, ways, strict=True)
    ]
    assert [s.removed_alone.clips for s in funnel.steps if s.rule == "semantic_duplicate"] == [5]
    assert found[0]["failed_rules"] == ["semantic_duplicate"]
    write_shard(store, config, info, 1, 7)
    select(store, info, "s", config)
    assert kept_numbers(store, info) == [1, 6, 7]  # what shards hold stays before what is better


def test_a_look_alike_that_was_dropped_takes_no_other_clip_with_it(tmp_path):
    alike = hashes(np.random.default_rng(1))
    clips = [
        sighted(0, 0, perceptual_hashes=alike, width=640, aesthetic_score=9.0),
        sighted(1, 1, perceptual_hashes=alike, width=1280, aesthetic_score=1.0),
        sighted(2, 0, aesthetic_score=2.0),
    ]
    store, info = write_corpus(tmp_path, [[({"source_sha256": "a"}, clips)]], WITH_EMBEDDINGS)
    config = SelectConfig(
        clusters=Clusters(num=2, duplicate_distance=0.05), quality_column="aesthetic_score"
    )
    select(store, info, "s", config)
    assert [v["keep"] for v in verdicts(store, info)] == [False, True, True]


def test_clips_that_show_the_same_need_clusters_and_embeddings(tmp_path):
    with pytest.raises(ValueError, match="duplicate_distance needs clusters"):
        Clusters(duplicate_distance=0.1)
    store, info = write_corpus(tmp_path, [[({"source_sha256": "a"}, [clip(0)])]])
    config = SelectConfig(clusters=Clusters(num=2, duplicate_distance=0.05))
    without = without_missing(config, info.layers)
    assert without.clusters == Clusters()
    select(store, info, "s", without)
    assert verdicts(store, info)[0]["semantic_duplicate_of"] is None


@pytest.mark.parametrize("num", [0, 3])
def test_a_second_look_finds_a_cropped_copy_in_another_film_and_leaves_shots_of_one_film(
    tmp_path, num
):
    rng = np.random.default_rng(3)
    shots = [hashes(rng) for _ in range(6)]
    bits = [1 << n for n in range(3, 63, 5)]  # twelve bits apart: too far for hashes alone
    near = [[value ^ sum(bits) for value in shot] for shot in shots]
    film = [sighted(n, n, perceptual_hashes=shot) for n, shot in enumerate(shots)]
    film.append(sighted(6, 0, perceptual_hashes=near[0]))  # another span of the first shot
    copies = [
        sighted(10, 0, perceptual_hashes=near[0]),
        sighted(11, 1, perceptual_hashes=near[1]),
        sighted(12, 3, perceptual_hashes=near[2]),  # its hashes are near, its embedding is not
        sighted(13, 3, perceptual_hashes=hashes(rng)),
    ]
    sources = [({"source_sha256": "a"}, film), ({"source_sha256": "b"}, copies)]
    store, info = write_corpus(tmp_path, [sources], WITH_EMBEDDINGS)
    plain = SelectConfig(clusters=Clusters(num=num))
    select(store, info, "s", plain)
    assert kept_numbers(store, info) == [0, 1, 2, 3, 4, 5, 6, 11, 12, 13]  # 10 is 6, bit by bit
    assert {v["split"] for v in verdicts(store, info)} - {None} != set()
    look = replace(plain, dedup=Dedup(second_look=True))
    funnel = select(store, info, "s", look)
    assert kept_numbers(store, info) == [0, 1, 2, 3, 4, 5, 6, 12, 13]
    assert "other sources, where embeddings are close" in funnel.steps[-1].allows
    assert read_rules(store, "s")["layers"]["embeddings"] == LAYER_IDS["embeddings"]
    assert ({v["cluster"] for v in verdicts(store, info)} == {None}) == (num == 0)


def test_clusters_of_a_corpus_without_embeddings_are_refused(tmp_path):
    store, info = write_corpus(tmp_path, one_source(clip(0)))
    with pytest.raises(MissingColumn, match="clusters: column 'embedding' is added by the station"):
        select(store, info, "s", SelectConfig(clusters=Clusters(num=2)))
    with pytest.raises(MissingColumn, match="second look: column 'embedding' is added by"):
        select(store, info, "s", SelectConfig(dedup=Dedup(second_look=True)))
    nothing, info = write_corpus(tmp_path / "blind", one_source(clip(0)), WITH_EMBEDDINGS)
    select(nothing, info, "s", SelectConfig(clusters=Clusters(num=2)))
    assert verdicts(nothing, info)[0]["cluster"] is None
    with pytest.raises(ValueError, match="weight_by_cluster needs clusters"):
        SelectConfig(balance=Balance(weight_by_cluster=True))


# --- what is written ---


def test_the_same_corpus_gives_the_same_bytes_with_any_number_of_threads(tmp_path):
    rng = np.random.default_rng(5)
    parts = random_parts(rng, num_parts=9)
    pool = [hashes(rng) for _ in range(10)]
    for sources in parts:
        for _, clips in sources:
            for one in clips:
                one["perceptual_hashes"] = pool[int(rng.integers(10))]
    store, info = write_corpus(tmp_path, parts)
    config = SelectConfig(rules=POOL[:2], balance=Balance(max_per_source=2))
    seen = []
    for threads in (1, 4, 2):
        select(store, info, "s", config, resources=SelectResources(threads=threads))
        seen.append(all_bytes(store, "s"))
    assert len(seen[0]) == 9 + 2
    assert seen[0] == seen[1] == seen[2]


def test_the_files_have_the_schema_with_its_docs_and_no_clip_is_left_out(tmp_path):
    store, info = write_corpus(tmp_path, random_parts(np.random.default_rng(1)))
    select(store, info, "s", SelectConfig(rules=POOL))
    for part in range(info.num_parts):
        table = read_verdicts(store, "s", part)
        assert table.schema.equals(schema(SELECTION), check_metadata=False)
        assert [f.metadata for f in table.schema] == [f.metadata for f in schema(SELECTION)]
        scenes = read_table(store, layout.layer(LAYER_IDS["scenes"], part), ["clip_id"])
        assert table["clip_id"].equals(scenes["clip_id"])


def test_rules_json_holds_the_whole_configuration_and_the_layers_read(tmp_path):
    store, info = write_corpus(tmp_path, one_source(clip(0)))
    rule = Rule(column="caption_words", min=3, source="LaVie, 2309.15103, section 4")
    select(store, info, "s", SelectConfig(rules=(rule,)))
    content = read_rules(store, "s")
    assert content["config"]["rules"][0]["source"] == rule.source
    assert content["layers"] == {
        name: LAYER_IDS[name] for name in ("caption_text", "probe", "scenes")
    }


def test_rejected_sources_are_counted_by_reason(tmp_path):
    reasons = ["no_video", None, "playlist", "no_video"]
    parts = [[({"source_reject": reason}, []) for reason in reasons]]
    store, info = write_corpus(tmp_path, parts)
    select(store, info, "s", SelectConfig())
    found = read_funnel(store, "s")
    assert found["sources"] == {"in": 4, "used": 1, "rejected": {"no_video": 2, "playlist": 1}}
    assert found["clips"]["clips"] == found["kept"]["clips"] == 0


def test_a_selection_that_was_interrupted_is_not_read_as_one(tmp_path):
    parts = random_parts(np.random.default_rng(2), num_parts=4)
    store, info = write_corpus(tmp_path, parts)
    select(store, info, "s", SelectConfig())
    whole = all_bytes(store, "s")

    class Killed(BaseException):
        """Stands for a kill: no handler of ours catches it."""

    def die(what, done, total):
        if what == "writing" and done == 2:
            raise Killed

    with pytest.raises(Killed):
        select(store, info, "s", SelectConfig(), on_progress=die)
    with pytest.raises(CorpusError, match="no finished selection 's'"):
        read_rules(store, "s")
    select(store, info, "s", SelectConfig())
    assert all_bytes(store, "s") == whole


def test_progress_counts_every_part_of_every_pass(tmp_path):
    store, info = write_corpus(tmp_path, random_parts(np.random.default_rng(4)))
    seen = []
    rule = Rule(column="aesthetic_score", min_quantile=0.5)
    config = SelectConfig(rules=(rule,), dedup=NO_DEDUP, splits=Splits(val_share=0, test_share=0))
    select(store, info, "s", config, on_progress=lambda *event: seen.append(event))
    expected = [(what, n, 3) for what in ("sources", "rules", "writing") for n in (1, 2, 3)]
    assert seen == expected


def test_a_corpus_in_an_object_store_is_selected_the_same(tmp_path, s3_bucket):
    parts = random_parts(np.random.default_rng(8))
    files = []
    for root in (tmp_path, f"{s3_bucket}/corpus"):
        store, info = write_corpus(root, parts)
        select(store, info, "s", SelectConfig(rules=POOL[:3]))
        select(store, info, "s", SelectConfig(rules=POOL[:2]))
        files.append(all_bytes(store, "s"))
    assert files[0] == files[1]


def test_little_memory_gives_the_same_bytes(tmp_path):
    store, info = write_corpus(tmp_path, random_parts(np.random.default_rng(9)))
    seen = []
    for memory_bytes in (128 * 1024**2, 2 * 1024**3):
        resources = SelectResources(memory_bytes=memory_bytes, temp_folder=tmp_path)
        select(store, info, "s", SelectConfig(rules=POOL), resources=resources)
        seen.append(all_bytes(store, "s"))
    assert seen[0] == seen[1]
    assert not list(tmp_path.glob("lavie-select-*"))


# --- what is refused ---


def test_a_rule_on_a_column_that_the_corpus_lacks_stops_before_anything_is_touched(tmp_path):
    store, info = write_corpus(tmp_path, one_source(clip(0)))
    select(store, info, "s", SelectConfig())
    before = all_bytes(store, "s")
    config = SelectConfig(rules=(Rule(column="nsfw_score", max=0.5),))
    with pytest.raises(MissingColumn, match=r"'nsfw_score' is added by the station 'safety'"):
        select(store, info, "s", config)
    with pytest.raises(MissingColumn, match="no column is called 'beauty'"):
        select(store, info, "s", SelectConfig(rules=(Rule(column="beauty", min=1),)))
    assert all_bytes(store, "s") == before


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a b", "x" * 101, "a\n"])
def test_a_name_that_is_no_folder_of_its_own_is_refused(tmp_path, name):
    store, info = write_corpus(tmp_path, one_source(clip(0)))
    with pytest.raises(ValueError, match="name of a selection"):
        select(store, info, name, SelectConfig())


def test_a_layer_of_other_clips_is_a_torn_part(tmp_path):
    store, info = write_corpus(tmp_path, one_source(clip(0), clip(1)))
    other = full_table([clip(2), clip(3)], layer_schema("aesthetics"))
    store.write(layout.layer(LAYER_IDS["aesthetics"], 0), to_parquet(other))
    config = SelectConfig(rules=(Rule(column="aesthetic_score", min=4),))
    with pytest.raises(TornPart, match="not those of the scenes layer"):
        select(store, info, "s", config)


def test_a_damaged_or_missing_part_is_named_and_the_selection_that_there_was_stays(tmp_path):
    store, info = write_corpus(tmp_path, one_source(clip(0)))
    path = layout.layer(LAYER_IDS["aesthetics"], 0)
    config = SelectConfig(rules=(Rule(column="aesthetic_score", min=4),))
    data = store.read(path)
    ledger = Ledger(store)
    ledger.reconcile(layout.layer_folder(LAYER_IDS["aesthetics"]), 1)
    ledger.flush()
    select(store, info, "s", config)
    before = all_bytes(store, "s")
    store.write(path, data[: len(data) // 2])
    with pytest.raises(TornPart, match=path):
        select(store, info, "s", config)
    store.delete(path)
    with pytest.raises(CorpusError, match=f"{path} is missing"):
        select(store, info, "s", config)
    assert all_bytes(store, "s") == before


def test_parts_that_lack_a_layer_are_left_out_and_named_and_the_rest_is_as_if_alone(tmp_path):
    parts = [
        [({"uri": f"{n}.mp4", "source_sha256": str(n)}, [clip(n, aesthetic_score=float(n))])]
        for n in range(4)
    ]
    config = SelectConfig(rules=(Rule(column="aesthetic_score", min_quantile=0.5),))
    store, info = write_corpus(tmp_path / "gap", parts)
    store.delete(layout.layer(LAYER_IDS["captions"], 2))  # no rule reads it, but an export does
    funnel = select(store, info, "s", config)
    others, of_others = write_corpus(tmp_path / "others", [*parts[:2], parts[3]])
    assert select(others, of_others, "s", config) == funnel
    gap = Gap.of_selection(read_rules(store, "s"))
    assert gap.complete == selected_parts(store, info, "s") == [0, 1, 3]
    assert str(gap) == "1 of 4 parts (1 sources): part 2 without captions"
    left = [read_verdicts(store, "s", part).to_pylist() for part in gap.complete]
    assert left == [read_verdicts(others, "s", part).to_pylist() for part in range(3)]
    assert not store.exists(f"{layout.selection('s')}/{layout.part_file(2)}")


def test_a_selection_of_which_a_part_is_made_anew_is_read_by_nobody_until_it_is(tmp_path):
    parts = [
        [({"uri": f"{n}.mp4", "source_sha256": str(n)}, [clip(n, aesthetic_score=float(n))])]
        for n in range(2)
    ]
    config = SelectConfig(rules=(Rule(column="aesthetic_score", min=0),))
    store, info = write_corpus(tmp_path, parts)
    folder, ledger = layout.layer_folder(LAYER_IDS["captions"]), Ledger(store)
    ledger.reconcile(folder, 2)
    select(store, info, "s", config)
    assert selected_parts(store, info, "s") == [0, 1]
    ledger.mark_again(folder, [1])
    with pytest.raises(MissingPart, match=r"not complete now(?s:.)*: part 1 without captions"):
        selected_parts(store, info, "s")
    select(store, info, "s", config)
    assert selected_parts(store, info, "s") == [0]
    with pytest.raises(MissingPart, match="lacks 1 parts that came later"):
        selected_parts(store, replace(info, num_parts=3), "s")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "allows everything"),
        ({"min": 2.0, "max": 1.0}, "min 2.0 is over max 1.0"),
        ({"min": math.nan}, "min must be finite"),
        ({"max_quantile": 1.5}, r"max_quantile must be within 0\.\.1"),
        ({"min_quantile": 0.9, "max_quantile": 0.1}, "min_quantile 0.9 is over"),
        ({"min": 1.0, "one_of": ("a",)}, "mixes numbers and texts"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Rule(column="x", **arguments)


def test_a_text_bound_on_a_number_and_the_reverse_are_refused(tmp_path):
    store, info = write_corpus(tmp_path, one_source(clip(0)))
    for rule in (Rule(column="caption_words", one_of=("3",)), Rule(column="category", min=3)):
        with pytest.raises(ValueError, match=rule.column):
            select(store, info, "s", SelectConfig(rules=(rule,)))


@pytest.mark.parametrize("column", ["tags", "width"])
def test_categories_must_be_texts(tmp_path, column):
    store, info = write_corpus(tmp_path, one_source(clip(0)))
    balance = Balance(max_per_category=1, category_column=column)
    with pytest.raises(ValueError, match="category_column must be a text column"):
        select(store, info, "s", SelectConfig(balance=balance))


def test_rules_need_names_of_their_own():
    rule = Rule(column="x", min=1)
    with pytest.raises(ValueError, match="'x' appears twice"):
        SelectConfig(rules=(rule, rule))
    with pytest.raises(ValueError, match="selection itself uses"):
        SelectConfig(rules=(Rule(column="x", min=1, name="duplicate"),))


# --- rules as typed ---


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("aesthetic_score>=4.5", Rule(column="aesthetic_score", min=4.5)),
        (" motion_mean <= q0.75", Rule(column="motion_mean", max_quantile=0.75)),
        ("motion_mean>=q0.25", Rule(column="motion_mean", min_quantile=0.25)),
        (
            "category!=Ads|Branded Content",
            Rule(column="category", none_of=("Ads", "Branded Content")),
        ),
        ("caption_language=en", Rule(column="caption_language", one_of=("en",))),
    ],
)
def test_a_typed_rule_is_what_it_reads(text, rule):
    found = parse_rule(text)
    for name in ("column", "min", "max", "min_quantile", "max_quantile", "one_of", "none_of"):
        assert getattr(found, name) == getattr(rule, name)


@pytest.mark.parametrize("text", ["", "aesthetic_score", "x>3", "x>=high", "x>=q2", ">=3", "x="])
def test_a_typed_rule_that_says_nothing_is_refused(text):
    with pytest.raises(ValueError, match="rule"):
        parse_rule(text)


def test_rules_are_dropped_by_name_and_added_at_the_end():
    config = SelectConfig(rules=(Rule(column="a", min=1), Rule(column="b", min=1)))
    changed = change_rules(config, add=[parse_rule("fps>=1")], drop=["a"])
    assert [rule.label for rule in changed.rules] == ["b", "fps>=1"]
    with pytest.raises(ValueError, match="no rule is called 'z'; there are a, b"):
        change_rules(config, drop=["z"])


def test_funnel_json_is_plain_and_says_where_numbers_come_from(tmp_path):
    store, info = write_corpus(tmp_path, one_source(clip(0, caption_words=5)))
    select(store, info, "s", SelectConfig(rules=(Rule(column="caption_words", min=3, source="x"),)))
    step = json.loads(store.read("selections/s/funnel.json"))["steps"][1]
    assert (step["rule"], step["allows"], step["source"]) == (
        "caption_words",
        "3 <= caption_words",
        "x",
    )
    assert step["left"] == {"clips": 1, "images": 0, "hours": round(4 / 3600, 6)}


# --- presets ---


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_runs_on_a_corpus_with_all_layers_and_every_rule_says_its_source(
    tmp_path, name
):
    layers = [layer for layer in LAYERS if layer not in ("probe", "scenes", "keyframes")]
    store, info = write_corpus(tmp_path, random_parts(np.random.default_rng(6)), layers=layers)
    config = PRESETS[name]()
    select(store, info, "s", config)
    for rule in (*config.rules, *(rule for tier in config.tiers for rule in tier.rules)):
        assert rule.source, rule.label


def test_the_papers_two_numbers_are_in_its_preset():
    bounds = {rule.column: rule.min for rule in PRESETS["paper"]().rules}
    assert (bounds["caption_words"], bounds["num_frames"]) == (3, 16)


def test_goku_keeps_film_at_24000_through_1001_and_drops_what_is_slower(tmp_path):
    rates = [24000 / 1001, 24.0, 23.95, 23.9, 15.0, None]
    clips = [clip(i, fps=fps) for i, fps in enumerate(rates)]
    store, info = write_corpus(tmp_path, one_source(*clips))
    (rule,) = (rule for rule in PRESETS["goku"]().rules if rule.column == "fps")
    select(store, info, "s", SelectConfig(rules=(rule,), dedup=NO_DEDUP))
    assert kept_numbers(store, info) == [0, 1, 2, 5]


def test_the_embedded_preset_needs_no_clip_embedding(tmp_path):
    layers = ("overlay_text", "captions", "caption_text")
    store, info = write_corpus(tmp_path, one_source(clip(0)), layers=layers)
    select(store, info, "s", PRESETS["embedded"]())
