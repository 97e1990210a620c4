"""Select: which clips of a corpus are kept, and why not the others.

A selection is a query over columns that are already there: thresholds can be moved at will and no
video is looked at again. In: a `SelectConfig` (`curation.select.rule_presets` has the paper's and the
peers'). Out: `selections/<name>/` with a verdict on every clip, and a `Funnel`.
"""

from curation.select.cluster_corpus import renew_centres
from curation.select.clusters import Clusters
from curation.select.dedup import Dedup
from curation.select.funnel import Amount, Funnel, Step
from curation.select.missing import missing, without_missing
from curation.select.recount import drop_clips
from curation.select.rules import (
    Balance,
    Buckets,
    Rule,
    SelectConfig,
    Skipped,
    Tier,
    change_rules,
    parse_rule,
)
from curation.select.run import check_selection, select
from curation.select.splits import Splits
from curation.select.table import SelectResources

__all__ = [
    "Amount",
    "Balance",
    "Buckets",
    "Clusters",
    "Dedup",
    "Funnel",
    "Rule",
    "SelectConfig",
    "SelectResources",
    "Skipped",
    "Splits",
    "Step",
    "Tier",
    "change_rules",
    "check_selection",
    "drop_clips",
    "missing",
    "parse_rule",
    "renew_centres",
    "select",
    "without_missing",
]
