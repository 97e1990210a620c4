"""One row of the layer: from written text, from tags, or from a model's answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from curation.stations.caption_models.answer import Answer, cleaned
from curation.stations.captions.settings import CaptionsConfig, CaptionWeights
from curation.stations.captions.timed import Stretch


class Caption(NamedTuple):
    """One row of the layer, without `clip_id`; the fields are its columns."""

    caption: str | None = None
    caption_long: str | None = None
    captions: Sequence[str] = ()
    caption_weights: Sequence[float] = ()
    caption_subject: str | None = None
    caption_action: str | None = None
    caption_setting: str | None = None
    caption_style: str | None = None
    caption_camera: str | None = None
    caption_screen_text: str | None = None
    caption_engine: str | None = None
    caption_model: str | None = None
    caption_model_digest: str | None = None
    caption_prompt: str | None = None
    caption_tokens_in: int | None = None
    caption_tokens_out: int | None = None
    caption_status: str = "ok"
    caption_reason: str | None = None
    caption_detail: str | None = None


def _plain(text: str, engine: str, origin: str) -> Caption:
    """The row of a text that no model wrote."""
    return Caption(
        caption=text,
        captions=(text,),
        caption_weights=(1.0,),
        caption_engine=engine,
        caption_model=origin,
    )


def given_caption(row: Mapping[str, Any], columns: Sequence[str]) -> Caption:
    """The first of ``columns`` that holds a word; of captions all, drawn equally often."""
    for column in columns:
        several = row["given_captions"] if column == "given_caption" else None
        cleaned_texts = (cleaned(text) for text in several or [row[column]])
        texts = list(dict.fromkeys(text for text in cleaned_texts if any(map(str.isalnum, text))))
        if texts:
            return _plain(texts[0], "given", column)._replace(
                captions=tuple(texts), caption_weights=(1 / len(texts),) * len(texts)
            )
    return Caption(caption_status="nothing_given")


def timed_caption(stretch: Stretch | None, weights: CaptionWeights) -> Caption:
    """The row of a clip that a stretch of captioned film covers, or of one that none does."""
    if stretch is None:
        return Caption(caption_status="nothing_given")
    texts = {stretch.short: weights.short}
    if stretch.long and weights.long > 0:
        texts.setdefault(stretch.long, weights.long)
    total = sum(texts.values())
    return _plain(stretch.short, "timed", "timed")._replace(
        caption_long=stretch.long,
        captions=tuple(texts),
        caption_weights=tuple(weight / total for weight in texts.values()),
    )


def tags_caption(row: Mapping[str, Any], settings: CaptionsConfig) -> Caption:
    """'A video of a fox, a meadow and a tree.' from the likeliest tags."""
    scored = zip(row["tags"] or (), row["tag_scores"] or (), strict=True)
    tags = [tag for tag, score in scored if score >= settings.min_tag_score]
    distinct = list(dict.fromkeys(tags))[: settings.num_tags]
    if not distinct:
        return Caption(caption_status="no_tags")
    kind = "picture" if row["media"] == "image" else "video"
    sentence = f"A {kind} of {_listed([_with_article(tag) for tag in distinct])}."
    return _plain(sentence, "tags", "taxonomy")


def _with_article(noun: str) -> str:
    """'a fox', 'an owl'; by the letter, since tags are ImageNet's nouns."""
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


def _listed(items: Sequence[str]) -> str:
    """'x', 'x and y', 'x, y and z'."""
    *first, last = items
    return f"{', '.join(first)} and {last}" if first else last


def model_caption(answer: Answer, *, given: str | None, weights: CaptionWeights) -> Caption:
    """The row of a checked answer, beside what the source list gives.

    Args:
        answer: what the model said.
        given: the source's own text, if it has one.
        weights: of the three.
    """
    kept: dict[str, float] = {}
    texts = ((answer.short, weights.short), (answer.long, weights.long), (given, weights.given))
    for text, weight in texts:
        if text and weight > 0:
            kept.setdefault(text, weight)
    total = sum(kept.values())
    return Caption(
        caption=answer.short,
        caption_long=answer.long,
        captions=tuple(kept),
        caption_weights=tuple(weight / total for weight in kept.values()),
        caption_subject=answer.subject,
        caption_action=answer.action,
        caption_setting=answer.setting,
        caption_style=answer.style,
        caption_camera=answer.camera,
        caption_screen_text=answer.text_on_screen,
    )
