"""What captioning took: counters of a call, and the line that a run ends with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from curation.stations.caption_models.captioner import Reply
from curation.stations.captions.settings import CaptionsConfig

MICRO = 1_000_000


def counted(
    config: CaptionsConfig, replies: Sequence[Reply], *, num_failed: int, wall_s: float
) -> dict[str, int]:
    """Counters of one call; money in millionths of a dollar, so that they can be summed.

    Args:
        config: has the prices.
        replies: of the model, each clip once.
        num_failed: those that gave no caption.
        wall_s: what the call took; a model in this process is paid by the hour.
    """
    tokens_in = sum(reply.tokens_in or 0 for reply in replies)
    tokens_out = sum(reply.tokens_out or 0 for reply in replies)
    if config.model_engine == "endpoint":
        micro_usd = (
            config.endpoint.usd_per_million_tokens_in * tokens_in
            + config.endpoint.usd_per_million_tokens_out * tokens_out
        )
    else:
        prices = config.vllm if config.model_engine == "vllm" else config.transformers
        micro_usd = prices.usd_per_hour * MICRO * wall_s / 3600
    return {
        "asked": len(replies),
        "failed": num_failed,
        "tokens in": tokens_in,
        "tokens out": tokens_out,
        "micro-USD": round(micro_usd),
    }


def cost_line(counts: Mapping[str, int]) -> str:
    """What captions took, for a person; '' where no model was asked.

    Such as 'captions: 2,000 clips asked, 3 failed; per 1,000 clips: 2,700,000 tokens in, 250,000
    out, $0.74'.

    Args:
        counts: of `counted`, summed.
    """
    asked = counts.get("asked", 0)
    if not asked:
        return ""
    per_thousand = {name: 1000 * counts.get(name, 0) / asked for name in counts}
    line = (
        f"captions: {asked:,} clips asked, {counts.get('failed', 0):,} failed; per 1,000 clips: "
        f"{per_thousand.get('tokens in', 0):,.0f} tokens in, "
        f"{per_thousand.get('tokens out', 0):,.0f} out"
    )
    usd = per_thousand.get("micro-USD", 0) / MICRO
    return line + (f", ${usd:,.2f}" if usd else ", no price set")
