"""Rules of select for captions: what the columns of `caption_text` and `alignment` are for.

They are added to a selection by `with_caption_gate`. Numbers without a source in the literature are
ours, set where captions that we wrote, good and bad, fall apart; look at the report's distributions
before trusting them on another language or captioner.
"""

from __future__ import annotations

from dataclasses import replace

from curation.select.rules import Rule, SelectConfig

NO_REFUSAL = Rule(
    column="caption_refusals", max=0, source="ours: a model that speaks of itself describes nothing"
)
NO_BOILERPLATE = Rule(
    column="caption_boilerplate",
    max=0,
    source="ours: 'the video shows' teaches the model a word that no prompt has",
)
NO_LEAK = Rule(
    column="caption_prompt_leak",
    max=0.2,
    keep_null=True,
    source="ours: an echo of the prompt has 1, a description 0",
)
NO_URL = Rule(column="caption_urls", max=0, source="ours: addresses come from watermarks")
FEW_DIGITS = Rule(
    column="caption_digit_share",
    max=0.3,
    keep_null=True,
    source="ours: scores, dates and file names rather than descriptions",
)
LITTLE_REPETITION = Rule(
    column="caption_repetition",
    max=0.3,
    keep_null=True,
    source="ours: a sentence has none; a model caught in a loop over 0.5",
)
NOT_READ_OFF = Rule(
    column="caption_screen_text_overlap",
    max=0.5,
    keep_null=True,
    source="ours: over half of the words stand on the screen: read off, or obeyed",
)
ENGLISH = Rule(
    column="caption_language",
    one_of=("en",),
    source="LaVie: CLIP's text encoder reads English; of under five words the language is a guess",
)
ALIGNED = Rule(
    column="clip_similarity",
    min=0.2,
    source="UltraVideo 2506.13691 drops under 0.2; Data-Juicer's filter 0.1 (both CLIP ViT-B/32)",
)

CAPTION_GATE = (
    NO_REFUSAL,
    NO_BOILERPLATE,
    NO_LEAK,
    NO_URL,
    FEW_DIGITS,
    LITTLE_REPETITION,
    NOT_READ_OFF,
)
"""Rules for any captions; `ENGLISH` and `ALIGNED` (which needs CLIP) are added by name."""


def with_caption_gate(config: SelectConfig, *more: Rule) -> SelectConfig:
    """The same selection with the caption gate behind its rules.

    Args:
        config: of a preset, for one.
        more: further rules, such as `ENGLISH` and `ALIGNED`.
    """
    return replace(config, rules=(*config.rules, *CAPTION_GATE, *more))
