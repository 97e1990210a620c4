"""A corpus in the way of LaVie's Vimeo25M (arXiv 2309.15103, section 5.1), from raw videos to a report.

The recipe from top to bottom, as one reads it: what `lavie curate --preset vimeo25m` does in one command.
Set the four names below, say what is different for you in `settings`, and run

    python examples/vimeo25m.py

on a machine that reaches the cluster. It may be stopped and run again at any time: what is committed is not
done twice, and the same inputs and settings give the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console

from curation.corpus.manifest import CorpusInfo
from curation.corpus.store import Store
from curation.report import ReportPaths, write_report
from curation.select import Balance, Rule, check_selection, select
from pipelines.curate import QUIET, HowToRun, configure, measure
from pipelines.curation_config import CurationConfig
from pipelines.exporting import export
from pipelines.locking import locked
from pipelines.presets import vimeo25m

SOURCES = ("s3://films/list.parquet",)
"""Files, folders, prefixes, or lists with a `uri` column and what is known of each film: its title,
description, author, licence, a caption."""
CORPUS = "s3://corpora/vimeo25m"
"""A folder or prefix of its own."""
CAPTION_SERVER = "http://gpu-7:8000/v1"
"""Any server that speaks OpenAI's chat completions, vLLM for one; docs/captions.md says which models."""
CAPTION_MODEL = "Qwen/Qwen2.5-VL-7B-Instruct"

SELECTION = "paper"


def settings() -> CurationConfig:
    """The preset, and what one changes of it first; `lavie curate --help` has every setting."""
    config = vimeo25m()

    # A film's own words come first, since a person wrote them; a model describes the clips of all other
    # films from their keyframes. Each row says which of the two its caption is.
    server = replace(
        config.river.captions.endpoint, base_url=CAPTION_SERVER, model=CAPTION_MODEL, key_env=""
    )
    captions = replace(config.river.captions, engines=("given", "endpoint"), endpoint=server)

    # A part is what a worker does at a time and loses when it is killed. Films of an hour: few to a part.
    river = replace(config.river, captions=captions, sources_per_part=16)

    # The paper's rules are in the preset, each with its source. Two of ours: a still picture that was saved
    # as a video teaches no motion, and one long film must not become a twentieth of the corpus.
    moving = Rule(column="motion_mean", min=0.005, media="video", source="ours: stills as videos")
    rules = replace(
        config.select,
        rules=(*config.select.rules, moving),
        balance=Balance(max_per_source=200, weight_by_category=True),
    )

    # About a gigabyte a shard: large enough to stream from a bucket, small enough to shuffle many at once.
    shards = replace(config.export, max_clips_per_shard=512)
    return replace(config, river=river, select=rules, export=shards)


def main(
    sources: Sequence[str], corpus: str, config: CurationConfig, *, console: Console = QUIET
) -> ReportPaths:
    """Sources to shards and a report.

    Args:
        sources: see `SOURCES`.
        corpus: see `CORPUS`.
        config: of every step.
        console: where progress and costs are shown; nowhere if not given.

    Returns:
        Where the report lies, relative to the corpus.

    Raises:
        LavieError: if a model, a column or all sources are missing, or another run holds the corpus.
    """
    # A rule over a column that no station adds would be found out after days of decoding: ask now.
    planned = CorpusInfo(num_parts=0, layers=configure(config.river).layers)
    check_selection(planned, SELECTION, config.select)

    # One writer at a time: a second run that is started by mistake is refused by name.
    with locked(Store(corpus)) as store:
        # Every source is decoded once, in a child process with limits; from then on only keyframes are
        # read. All scores of all clips are kept, those of bad clips too: no threshold is applied here.
        how = HowToRun(
            command="examples/vimeo25m.py", ray_address="auto" if "://" in corpus else "local"
        )
        info, rejects = measure(sources, store, config.river, console=console, how=how)

        # Thresholds are a query over the columns, a matter of minutes for 25 million clips. Move one and
        # run again: nothing is measured anew, and the verdicts say of each clip every rule that it fails.
        select(store, info, SELECTION, config.select)

        # Only what was selected is cut and encoded, packed by shape and length, with its caption and scores.
        export(store, info, SELECTION, config.export, console=console, how=how)

        # What is in the corpus, what each rule took away, and where it differs from the published figures.
        report = write_report(store, info, SELECTION, config.report)

    # Sources that could not be reached are worth another try; `lavie curate --retry-failed` makes it.
    rejects.say_passing(console)

    # Parts that a station failed over were left out above; once the cause is mended, the same run makes them.
    if rejects.failed is not None:
        raise rejects.failed
    return report


if __name__ == "__main__":
    main(SOURCES, CORPUS, settings(), console=Console())
