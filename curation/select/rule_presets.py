"""Selections by name: the paper's, the peers', and ours for a corpus without CLIP.

Beside each number stands where it comes from. Only numbers whose measure is one of our columns are
here: optical flow in unknown pixels, a DOVER score or VMAF motion has no column. Those rules of the
peers are left out, and each preset's docstring says which.

Sources: LaVie 2309.15103; Stable Video Diffusion (SVD) 2311.15127; Open-Sora 1.2 docs and
`tools/scoring`; Movie Gen 2410.13720; Goku 2502.04896; Allegro 2410.15458; Cosmos 2501.03575 and
cosmos-curate 1.4.0; InternVid 2307.06942; UltraVideo 2506.13691.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from curation.select.dedup import Dedup
from curation.select.rules import Balance, Rule, SelectConfig, Tier

AESTHETIC = "aesthetic_score"

UNDAMAGED = Rule(
    column="num_damaged_frames",
    max=0,
    name="damaged",
    source="ours: what a decoder makes up for lost data is no film; stands in every preset",
)
SIXTEEN_FRAMES = Rule(
    column="num_frames",
    min=16,
    media="video",
    source="LaVie, section 4: clips with fewer than 16 frames are dropped",
)
THREE_WORDS = Rule(
    column="caption_words",
    min=3,
    source="LaVie, section 4: captions with fewer than 3 words are dropped",
)
NOT_FROZEN = Rule(
    column="frozen_share",
    max=0.5,
    media="video",
    keep_null=True,
    name="frozen",
    source="ours: of 82 clips of a cartoon, looked at, two are over it and stand still for most of "
    "their time (docs/verdicts.md)",
)
OVERLAY_TEXT_MAX = 0.0015
"""Largest share of a keyframe that overlaid text may cover. Ours, chosen on the tuning half of the clips of
docs/verdicts.md: text that was laid over covers more, however small, and what has none is at 0."""
NO_OVERLAY_TEXT = Rule(
    column="overlay_text_max",
    max=OVERLAY_TEXT_MAX,
    name="overlay_text",
    source="ours, measured: docs/verdicts.md; text that goes with the scene may stay",
)


NO_BORDERS = Rule(
    column="border_share",
    max=0.01,
    source="Movie Gen: no borders; 1 % leaves room for one line at the rim (ours)",
)
FEW_OF_ONE_CAPTION = Balance(max_per_caption=100)
"""Most clips of one caption in our own selections. Ours: a caption of a source list stands on all scenes of
its film, about a hundred in ten minutes; what stands on more clips is boilerplate, of which a published set
has one 4,000 times."""


def _seconds(low: float, high: float | None, source: str) -> Rule:
    return Rule(column="duration_s", min=low, max=high, media="video", source=source)


def _aesthetic(low: float, source: str) -> Rule:
    return Rule(column=AESTHETIC, min=low, source=source)


def _text_area(high: float, source: str) -> Rule:
    return Rule(column="text_area_share", max=high, source=source)


def _short_side(low: float, source: str, *, name: str | None = None) -> Rule:
    return Rule(column="short_side", min=low, name=name, source=source)


def everything() -> SelectConfig:
    """No rule but the scenes' own minimum length, and no damaged frame; duplicates stay."""
    return SelectConfig(rules=(UNDAMAGED,), dedup=Dedup(copies=False, look_alikes=False))


def paper() -> SelectConfig:
    """Vimeo25M as LaVie describes it.

    The paper gives two numbers (words, frames) and three properties (high definition, widescreen,
    no watermark) without numbers; it filtered by aesthetics, again without one. Where a number is
    ours, its source says so. There is no watermark column: overlaid text stands in for it.
    """
    return SelectConfig(
        rules=(
            UNDAMAGED,
            SIXTEEN_FRAMES,
            _short_side(720, "LaVie, section 1: 'more than 720p'; read as 720 lines or more"),
            Rule(
                column="aspect",
                min=1.55,
                source="LaVie, section 4: widescreen; number: cosmos-curate's edge of 16:9",
            ),
            NO_OVERLAY_TEXT,
            _aesthetic(
                4.0,
                "ours: LaVie's figure 6 has 98.4 % of Vimeo25M and 79.8 % of WebVid10M over 4",
            ),
            THREE_WORDS,
        ),
        tiers=(
            Tier(name="fair", rules=(_aesthetic(4.5, "Open-Sora 1.2: Panda subset over 4.5"),)),
            Tier(name="high", rules=(_aesthetic(6.0, "LaVie, figure 6: 'high' is over 6"),)),
        ),
        balance=FEW_OF_ONE_CAPTION,
        quality_column=AESTHETIC,
    )


def svd() -> SelectConfig:
    """Stable Video Diffusion: quantiles, chosen by human preference (appendix, 9.8 M clips).

    Left out: the lower half by CLIP similarity of caption and frames.
    """
    return SelectConfig(
        rules=(
            UNDAMAGED,
            Rule(
                column="motion_mean",
                min_quantile=0.25,
                media="video",
                source="SVD: drop the quarter with least optical flow",
            ),
            Rule(column=AESTHETIC, min_quantile=0.25, source="SVD: drop the lowest quarter"),
            Rule(
                column="text_area_share",
                max_quantile=0.75,
                name="text_area_quarter",
                source="SVD: drop the quarter with the largest text area",
            ),
            _text_area(0.07, "SVD: drop over 7 % of the picture"),
        ),
        quality_column=AESTHETIC,
    )


def open_sora() -> SelectConfig:
    """Open-Sora 1.2; its words for aesthetics are the tiers.

    Left out: optical flow in its own pixels, CLIP matching score, count of text boxes.
    """
    return SelectConfig(
        rules=(
            UNDAMAGED,
            _seconds(2.0, 15.0, "Open-Sora 1.2: clips of 2 to 15 s"),
            _aesthetic(5.0, "Open-Sora 1.2 docs: over 5"),
        ),
        tiers=(
            Tier(name="fair", rules=(_aesthetic(5.5, "Open-Sora 1.2: 'fair' from 5.5"),)),
            Tier(name="excellent", rules=(_aesthetic(6.5, "Open-Sora 1.2: 6.5 and over"),)),
        ),
        quality_column=AESTHETIC,
    )


def movie_gen() -> SelectConfig:
    """Movie Gen, table of its filters.

    Left out: its text detector's score, VMAF and motion-vector motion, shots per second, copy
    detection by SSCD (ours is by hashes). It resamples clusters of embeddings; here categories.
    """
    return SelectConfig(
        rules=(
            UNDAMAGED,
            _seconds(4.0, 120.0, "Movie Gen: 4 to 120 s"),
            _short_side(768, "Movie Gen: 768 px or more"),
            Rule(column="aspect", min=1.0, source="Movie Gen: width at least height"),
            NO_BORDERS,
            _aesthetic(4.0, "Movie Gen: 4 or more (middle frame)"),
        ),
        balance=Balance(weight_by_category=True),
        quality_column=AESTHETIC,
    )


def goku() -> SelectConfig:
    """Goku, with its two resolutions as tiers.

    Left out: bit rate, optical flow by RAFT in its own pixels.
    """
    return SelectConfig(
        rules=(
            UNDAMAGED,
            _seconds(4.0, 10.0, "Goku: 4 s or more, clips of at most 10 s"),
            _short_side(480, "Goku: 480 px or more"),
            Rule(
                column="fps",
                min=23.95,
                media="video",
                keep_null=True,
                source="Goku: 24 or more; 0.2 % of tolerance (ours) keeps film at 24000/1001 = 23.976, "
                "measured by a clock that ticks in milliseconds",
            ),
            _aesthetic(4.3, "Goku, 480p stage"),
            _text_area(0.02, "Goku, 480p stage"),
        ),
        tiers=(
            Tier(
                name="720p",
                rules=(
                    _short_side(720, "Goku, 720p stage"),
                    _aesthetic(4.5, "Goku, 720p stage"),
                    _text_area(0.01, "Goku, 720p stage"),
                ),
            ),
        ),
        quality_column=AESTHETIC,
    )


def allegro() -> SelectConfig:
    """Allegro's first stage.

    Left out: DOVER and LPIPS of the fine-tuning stage.
    """
    return SelectConfig(
        rules=(
            UNDAMAGED,
            _seconds(2.0, 16.0, "Allegro: 2 to 16 s"),
            Rule(column="brightness_mean", min=20, max=180, source="Allegro: 20 to 180"),
        ),
    )


def cosmos() -> SelectConfig:
    """Cosmos world foundation models.

    Left out: DOVER, its own text and type classifiers. Its duplicates are semantic; of them it
    keeps the highest resolution, as we do of look-alikes.
    """
    return SelectConfig(
        rules=(
            UNDAMAGED,
            _seconds(2.0, 60.0, "Cosmos: 2 to 60 s"),
            Rule(
                column="aesthetic_min",
                min=3.5,
                source="Cosmos: 3.5; cosmos-curate takes the lowest frame",
            ),
        ),
        quality_column=AESTHETIC,
    )


def internvid() -> SelectConfig:
    """InternVid's aesthetic subset.

    Left out: similarity of video and text.
    """
    return SelectConfig(
        rules=(UNDAMAGED, _aesthetic(4.0, "InternVid-18M-AES: 4 or more")), quality_column=AESTHETIC
    )


def embedded() -> SelectConfig:
    """For a corpus scored by the models that packages ship: no CLIP, so no aesthetics.

    Picture statistics take the place of the aesthetic score. No rule on `nsfw_score`: of 227 clips without
    explicit content, looked at one by one, 17 are over open_nsfw's 0.8, all of them of a children's cartoon
    (docs/verdicts.md).
    """
    return SelectConfig(
        rules=(
            UNDAMAGED,
            SIXTEEN_FRAMES,
            Rule(
                column="brightness_mean",
                min=20,
                max=235,
                source="Allegro drops under 20; its 180 above would drop snow and sky, so ours",
            ),
            Rule(
                column="contrast_mean",
                min=5,
                source="ours: fades, blank and title-less screens; a lit scene has 20 or more",
            ),
            Rule(
                column="still_share",
                max=0.9,
                media="video",
                keep_null=True,
                source="ours: FineVideo drops videos that stand still; one moving pair in ten",
            ),
            NOT_FROZEN,
            NO_BORDERS,
            NO_OVERLAY_TEXT,
            THREE_WORDS,
        ),
        dedup=Dedup(mirrored=True),
        balance=FEW_OF_ONE_CAPTION,
        quality_column="sharpness",
    )


RecipeName = Literal[
    "paper",
    "embedded",
    "svd",
    "open-sora",
    "movie-gen",
    "goku",
    "allegro",
    "cosmos",
    "internvid",
    "everything",
]

PRESETS: dict[RecipeName, Callable[[], SelectConfig]] = {
    "paper": paper,
    "embedded": embedded,
    "svd": svd,
    "open-sora": open_sora,
    "movie-gen": movie_gen,
    "goku": goku,
    "allegro": allegro,
    "cosmos": cosmos,
    "internvid": internvid,
    "everything": everything,
}
"""Name on the command line -> the selection."""
