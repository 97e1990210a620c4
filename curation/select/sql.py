"""Rules as SQL: each becomes one bit of a number that says which rules a clip fails.

Everything that is spliced into SQL is either a column name of the schema, a number, or a text
quoted by `_text`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa

from curation.corpus.schema import CLIP_COLUMNS, SOURCE_COLUMNS
from curation.errors import MissingColumn
from curation.select.rules import DERIVED, Buckets, Rule, Tier, no_such_column

IS_IMAGE = "(duration_s = 0)"
"""The schema gives pictures no duration; a file's name says nothing of its content."""

_DERIVED_SQL = {
    "short_side": "least(width, height)",
    "aspect": "(width::DOUBLE / nullif(height, 0))",
    "caption_count": "caption_count",
}

Bounds = tuple[float | None, float | None]
"""The values behind a rule's min_quantile and max_quantile in this corpus."""


def column_type(name: str) -> pa.DataType:
    """Arrow type of a column of clips, of their sources, or of `DERIVED`.

    Raises:
        MissingColumn: if there is no such column.
    """
    if name in DERIVED:
        return pa.float64() if name == "aspect" else pa.int32()
    column = CLIP_COLUMNS.get(name) or SOURCE_COLUMNS.get(name)
    if column is None:
        raise MissingColumn(no_such_column(name))
    return column.type


def check_types(rules: Iterable[Rule]) -> None:
    """Check that numbers are compared with numbers and texts with texts.

    Raises:
        MissingColumn: if a rule names no column.
        ValueError: if its bounds do not fit the column's type.
    """
    for rule in rules:
        kind = column_type(rule.column)
        if rule.has_bounds and not is_number(kind):
            advice = "; compare texts with = or !=" if _is_text(kind) or _is_texts(kind) else ""
            raise ValueError(
                f"rule {rule.label!r}: {rule.column} is {kind}, bounds need a number{advice}"
            )
        if not rule.has_bounds and not _is_text(kind) and not _is_texts(kind):
            advice = "; compare numbers with >= or <=" if is_number(kind) else ""
            advice = "; write >=1 for true, <=0 for false" if pa.types.is_boolean(kind) else advice
            raise ValueError(
                f"rule {rule.label!r}: {rule.column} is {kind}, one_of needs texts{advice}"
            )


def is_number(kind: pa.DataType) -> bool:
    """Whether values of this type can be compared with bounds."""
    return pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind)


def _is_texts(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) and pa.types.is_string(kind.value_type)


def value_sql(name: str) -> str:
    """A column as a number or text that is NULL where there is no value (NaN is none)."""
    kind = column_type(name)
    sql = _DERIVED_SQL.get(name, f'"{name}"')
    if pa.types.is_floating(kind):
        return f"(CASE WHEN isnan({sql}) THEN NULL ELSE {sql} END)"
    return f"{sql}::TINYINT" if pa.types.is_boolean(kind) else sql


def applies_sql(rule: Rule, *, is_image: str = IS_IMAGE) -> str:
    """Which clips the rule is for."""
    if rule.media == "all":
        return "true"
    return is_image if rule.media == "image" else f"NOT {is_image}"


def _number(value: float, kind: pa.DataType) -> str:
    # A bound is rounded to the column's own precision: 0.07 stored as float32 must pass max=0.07.
    return f"{value!r}::DOUBLE::FLOAT" if pa.types.is_float32(kind) else f"{value!r}::DOUBLE"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _texts(values: Sequence[str]) -> str:
    return ", ".join(_text(value) for value in values)


def pass_sql(
    rule: Rule,
    bounds: Bounds = (None, None),
    *,
    value: str | None = None,
    is_image: str = IS_IMAGE,
) -> str:
    """Boolean SQL, never NULL: whether a clip passes a rule.

    Args:
        rule: the rule.
        bounds: its quantiles' values; where a quantile was asked for and is None here, no clip had
        a
            value, so no bound is needed: all of them fail or pass as nulls do.
        value: SQL of the column's value, where it is not the stream's own column.
        is_image: SQL that says whether the clip is a picture.
    """
    kind, value = column_type(rule.column), value or value_sql(rule.column)
    wrap = "{0}" if not pa.types.is_integer(kind) else "({0})::DOUBLE"
    low, high = bounds
    parts = [
        f"{wrap.format(value)} {sign} {_number(bound, kind)}"
        for sign, bound in ((">=", rule.min), ("<=", rule.max), (">=", low), ("<=", high))
        if bound is not None
    ]
    if _is_texts(kind):
        parts += [f"list_has_any({value}, [{_texts(rule.one_of)}])"] if rule.one_of else []
        parts += [f"NOT list_has_any({value}, [{_texts(rule.none_of)}])"] if rule.none_of else []
    else:
        parts += [f"{value} IN ({_texts(rule.one_of)})"] if rule.one_of else []
        parts += [f"{value} NOT IN ({_texts(rule.none_of)})"] if rule.none_of else []
    parts = parts or [f"{value} IS NOT NULL"]
    null = "true" if rule.keep_null else "false"
    passes = f"coalesce({' AND '.join(parts)}, {null})"
    if rule.media == "all":
        return passes
    return f"(NOT {applies_sql(rule, is_image=is_image)} OR {passes})"


def failed_sql(passes: Mapping[int, str]) -> str:
    """Number whose bit i is set where boolean ``passes[i]`` is false."""
    bits = [f"(CASE WHEN {sql} THEN 0 ELSE {1 << bit} END)::BIGINT" for bit, sql in passes.items()]
    return f"({' | '.join(bits)})" if bits else "0::BIGINT"


def tier_sql(tiers: Sequence[Tier], failed: str) -> str:
    """Number of the highest tier met, from 1; 0 where none is.

    Args:
        tiers: from the lowest to the highest.
        failed: number whose bit i is set where rule i of all tiers, one after the other, fails.
    """
    whens, bit = [], 0
    for number, tier in enumerate(tiers, start=1):
        mask = ((1 << len(tier.rules)) - 1) << bit
        whens.append(f"WHEN {failed} & {mask}::BIGINT = 0 THEN {number}")
        bit += len(tier.rules)
    return f"(CASE {' '.join(reversed(whens))} ELSE 0 END)::UTINYINT" if whens else "0::UTINYINT"


def bucket_sql(buckets: Buckets) -> str:
    """Index of the clip's bucket in `Buckets.names`."""
    aspect = _steps(_DERIVED_SQL["aspect"], buckets.aspect_edges, sign=">")
    resolution = _steps(_DERIVED_SQL["short_side"], buckets.resolution_edges_px, sign=">=")
    duration = _steps("duration_s::DOUBLE", buckets.duration_edges_s, sign=">=")
    resolutions, durations = len(buckets.resolution_names), len(buckets.duration_names)
    duration = f"(CASE WHEN {IS_IMAGE} THEN 0 ELSE 1 + {duration} END)"
    return f"(({aspect} * {resolutions} + {resolution}) * {durations} + {duration})::USMALLINT"


def _steps(value: str, edges: Sequence[float], *, sign: str) -> str:
    """How many of the rising ``edges`` lie below the value."""
    whens = [
        f"WHEN {value} {sign} {edge!r}::DOUBLE THEN {number}"
        for number, edge in reversed(list(enumerate(edges, start=1)))
    ]
    return f"(CASE {' '.join(whens)} ELSE 0 END)" if whens else "0"
