"""What a selection asks for that a corpus cannot answer, because it was not measured.

A published recipe reads what its authors measured. Leaving a rule out keeps more than they kept, so it is
never done unasked, and what was left out stands in rules.json, funnel and report.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

from curation.corpus.schema import LAYER_OF
from curation.errors import MissingColumn
from curation.select.clusters import Clusters
from curation.select.rules import Balance, SelectConfig, Skipped


def _lacking(columns: Iterable[str], layers: Collection[str]) -> str | None:
    """The first column that exists and that none of the layers holds."""
    there = {"sources", *layers}
    return next((c for c in columns if c in LAYER_OF and LAYER_OF[c] not in there), None)


def missing(config: SelectConfig, layers: Collection[str]) -> tuple[Skipped, ...]:
    """All of a selection that reads a column that the corpus lacks; of a tier its first such rule.

    Args:
        config: the selection.
        layers: names of the corpus's layers.
    """
    return tuple(
        Skipped(name=name, allows=allows, column=column, station=LAYER_OF[column], source=source)
        for name, allows, source, columns in _readers(config)
        if (column := _lacking(columns, layers)) is not None
    )


def _readers(config: SelectConfig) -> Iterator[tuple[str, str, str, tuple[str, ...]]]:
    """Name, what it allows, source, and columns of all that reads columns."""
    for rule in config.rules:
        yield rule.label, rule.describe(), rule.source, rule.columns
    for tier in config.tiers:
        allows = ", ".join(rule.describe() for rule in tier.rules)
        source = "; ".join(dict.fromkeys(rule.source for rule in tier.rules))
        columns = tuple(column for rule in tier.rules for column in rule.columns)
        yield f"tier {tier.name}", allows, source, columns
    if config.quality_column is not None:
        yield (
            "quality_column",
            f"the best of look-alikes by {config.quality_column}",
            "",
            (config.quality_column,),
        )
    balance = config.balance
    if balance.max_per_caption is not None:
        allows = f"{balance.max_per_caption} clips of a caption"
        yield "max_per_caption", allows, "", ("caption",)
    if balance.uses_category:
        allows = f"limits and weights by {balance.category_column}"
        yield "balance by category", allows, "", (balance.category_column,)
    if config.dedup.second_look:
        allows = "near copies by a second look at their embeddings"
        yield "second look", allows, "", ("embedding",)
    if config.clusters.num:
        yield "clusters", f"{config.clusters.num} clusters", "", ("embedding",)


def _without(balance: Balance, names: Collection[str]) -> Balance:
    if "max_per_caption" in names:
        balance = replace(balance, max_per_caption=None)
    if "balance by category" in names:
        balance = replace(balance, max_per_category=None, weight_by_category=False)
    if "clusters" in names:
        balance = replace(balance, weight_by_cluster=False)
    return balance


def _no_clusters(clusters: Clusters) -> Clusters:
    return replace(clusters, num=0, duplicate_distance=0.0)


def without_missing(config: SelectConfig, layers: Collection[str]) -> SelectConfig:
    """The selection without what the corpus cannot answer; `skipped` says what that is.

    A tier goes as a whole: without one of its bounds its name would promise what nobody looked at.
    """
    skipped = missing(config, layers)
    if not skipped:
        return config
    names = {one.name for one in skipped}
    return replace(
        config,
        rules=tuple(r for r in config.rules if _lacking(r.columns, layers) is None),
        tiers=tuple(tier for tier in config.tiers if f"tier {tier.name}" not in names),
        quality_column=None if "quality_column" in names else config.quality_column,
        balance=_without(config.balance, names),
        dedup=replace(config.dedup, second_look=False) if "second look" in names else config.dedup,
        clusters=_no_clusters(config.clusters) if "clusters" in names else config.clusters,
        skipped=skipped,
    )


def check_none_missing(config: SelectConfig, layers: Collection[str]) -> None:
    """Raise for a selection that the corpus cannot answer.

    Raises:
        MissingColumn: names all that is in the way, the stations that would help, and the flag.
    """
    absent = missing(config, layers)
    if not absent:
        return
    named = "; ".join(
        f"{one.name}: column {one.column!r} is added by the station {one.station!r}"
        for one in absent
    )
    stations = ", ".join(dict.fromkeys(one.station for one in absent))
    raise MissingColumn(
        f"this corpus was not given what the selection reads: {named}. Run `lavie curate` with "
        f"{stations}, or leave these out with `lavie select --skip-missing`"
    )
