"""A configuration thought through: which bit stands for which rule, which columns are read."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cached_property
from typing import Any

import pyarrow as pa

from curation.corpus.manifest import CorpusInfo
from curation.corpus.parts import check_columns
from curation.corpus.schema import LAYER_OF, SCHEMA_VERSION
from curation.select.funnel import StepName
from curation.select.missing import check_none_missing
from curation.select.rules import (
    CAPTION_CAP_RULE,
    CATEGORY_CAP_RULE,
    COPY_RULE,
    DUPLICATE_RULE,
    SCENE_RULE,
    SEMANTIC_RULE,
    SOURCE_CAP_RULE,
    Rule,
    SelectConfig,
)
from curation.select.sql import Bounds, check_types, column_type, is_number

VERSION = 4
"""Raised whenever the same configuration would give other verdicts."""


def _check_quality(column: str) -> None:
    kind = column_type(column)
    if column == "caption_count":
        raise ValueError("quality_column must be known of a clip by itself, caption_count is not")
    if not is_number(kind):
        raise ValueError(f"quality_column must hold numbers, {column} is {kind}")


def _check_category(column: str) -> None:
    kind = column_type(column)
    if not pa.types.is_string(kind):
        raise ValueError(f"category_column must be a text column, {column} is {kind}")


class Plan:
    """What follows from a configuration alone.

    Rule i of `names` is bit i of a clip's failed rules.
    """

    def __init__(self, config: SelectConfig) -> None:
        self.config = config
        own = [
            (COPY_RULE, config.dedup.copies),
            (DUPLICATE_RULE, config.dedup.look_alikes),
            (SEMANTIC_RULE, config.clusters.duplicate_distance > 0),
            (SOURCE_CAP_RULE, config.balance.max_per_source is not None),
            (CAPTION_CAP_RULE, config.balance.max_per_caption is not None),
            (CATEGORY_CAP_RULE, config.balance.max_per_category is not None),
        ]
        self.names = [SCENE_RULE, *(rule.label for rule in config.rules)]
        self.names += [name for name, wanted in own if wanted]

    def bit(self, rule: str) -> int:
        """The number with only this rule's bit set."""
        return 1 << self.names.index(rule)

    @cached_property
    def tier_rules(self) -> list[Rule]:
        """Rules of all tiers, one tier after the other."""
        return [rule for tier in self.config.tiers for rule in tier.rules]

    @cached_property
    def all_rules(self) -> list[Rule]:
        """Rules of the selection and of its tiers."""
        return [*self.config.rules, *self.tier_rules]

    @cached_property
    def quantile_rules(self) -> list[Rule]:
        """Those whose bounds depend on the corpus."""
        return list(dict.fromkeys(rule for rule in self.all_rules if rule.is_quantile))

    @cached_property
    def late_rules(self) -> list[Rule]:
        """Those that can be asked only when all clips have been read."""
        return list(dict.fromkeys(rule for rule in self.all_rules if rule.is_late))

    @property
    def counts_captions(self) -> bool:
        """Whether it is counted how many scenes have the same caption."""
        has_rule = any(rule.column == "caption_count" for rule in self.all_rules)
        return has_rule or self.config.balance.max_per_caption is not None

    @property
    def layers(self) -> set[str]:
        """The layers that verdicts follow from."""
        read = {"scenes", "probe"} | {LAYER_OF[column] for column in self.columns}
        reads_embeddings = self.config.clusters.num or self.config.dedup.second_look
        read |= {"embeddings"} if reads_embeddings else set()
        return read - {"sources"}

    @cached_property
    def columns(self) -> list[str]:
        """Columns of clips and sources that the query reads, hashes aside."""
        wanted = ["source_row", "scene_reject", "duration_s", "width", "height"]
        wanted += [column for rule in self.all_rules for column in rule.columns]
        wanted += [self.config.quality_column] if self.config.quality_column else []
        if self.config.balance.max_per_caption is not None:
            wanted.append("caption")
        if self.config.balance.uses_category:
            wanted.append(self.config.balance.category_column)
        return list(dict.fromkeys(wanted))

    def check(self, info: CorpusInfo) -> None:
        """Check that the corpus has every column, and that bounds fit the columns' types.

        Raises:
            MissingColumn: if a rule reads what the corpus does not hold.
            ValueError: if a number is compared with a text.
        """
        check_types(self.all_rules)
        if self.config.quality_column is not None:
            _check_quality(self.config.quality_column)
        if self.config.balance.uses_category:
            _check_category(self.config.balance.category_column)
        check_none_missing(self.config, info.layers)
        check_columns([*self.columns, "source_sha256", "source_reject", "clip_id"], info.layers)

    def step_names(self) -> list[StepName]:
        """What the funnel says of each bit."""
        dedup, balance = self.config.dedup, self.config.balance
        own = {
            SCENE_RULE: "scenes of the minimum length",
            COPY_RULE: "one source of each digest",
            DUPLICATE_RULE: f"hashes over {dedup.max_distance_bits:g} bits from any better clip's"
            + (
                f"; {dedup.max_second_look_bits:g} and other sources, where embeddings are close"
                if dedup.second_look
                else ""
            ),
            SEMANTIC_RULE: "embeddings over "
            f"{self.config.clusters.duplicate_distance:g} from any better clip's of the cluster",
            SOURCE_CAP_RULE: f"{balance.max_per_source} clips of a source",
            CAPTION_CAP_RULE: f"{balance.max_per_caption} clips of one caption",
            CATEGORY_CAP_RULE: f"{balance.max_per_category} clips of a {balance.category_column}; "
            "those without one are exempt",
        }
        rules = {rule.label: rule for rule in self.config.rules}
        return [
            StepName(rule=name, allows=rules[name].describe(), source=rules[name].source)
            if name in rules
            else StepName(rule=name, allows=own[name], source="")
            for name in self.names
        ]

    @property
    def rules(self) -> dict[str, Any]:
        """What must stay the same for the shards of a selection to grow: part of rules.json."""
        return {"version": VERSION, "config": json.loads(json.dumps(asdict(self.config)))}

    def to_json(self, info: CorpusInfo, name: str, bounds: dict[Rule, Bounds]) -> dict[str, Any]:
        """Contents of rules.json: everything that the verdicts follow from."""
        return {
            "selection": name,
            "schema_version": SCHEMA_VERSION,
            **self.rules,
            "rules": self.names,
            "quantiles": [
                {"rule": rule.label, "column": rule.column, "min": low, "max": high}
                for rule in self.quantile_rules
                for low, high in [bounds[rule]]
            ],
            "layers": {layer: info.layers[layer] for layer in sorted(self.layers)},
            "num_parts": info.num_parts,
        }
