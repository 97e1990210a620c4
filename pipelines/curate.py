"""The command curate as a function: sources measured into the layers of a corpus."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from curation.corpus import layout
from curation.corpus.gap import find_gap
from curation.corpus.ledger import Ledger
from curation.corpus.manifest import CorpusInfo
from curation.corpus.store import Store
from curation.decode.decoding_pass import DecodingPass
from curation.errors import MissingWeights
from curation.sources import SeenFolders, WebClient, WebConfig, is_web
from curation.stations.captions import cost_line
from curation.stations.station import Maker, Station
from curation.weights.catalog import Weight, find, missing
from pipelines import corpus, river
from pipelines.again import forget, noted_parts
from pipelines.corrected import supersede_rows
from pipelines.costs import costs_table
from pipelines.curation_config import RiverConfig
from pipelines.growing import (
    OnIncomplete,
    PlannedShards,
    changes,
    check_filled,
    filled,
    incomplete_layers,
    layers_after,
    preset_named,
    refusal,
    settings_on_record,
)
from pipelines.host_turns import RayTurns, shared_turns
from pipelines.jobs import DecodeJob, StationJob
from pipelines.listing import ListingConfig, listed
from pipelines.metrics import in_one_sentence
from pipelines.progress import ProgressBars
from pipelines.ray_cluster import start_ray
from pipelines.recording import Recorder, check_sources_are_there, committed, downstream
from pipelines.rejects import Rejects, read_rejects
from pipelines.retry import Retries
from pipelines.run import Stage, UnitsFailed, run_stages
from pipelines.suspects import blame_in_hand

logger = logging.getLogger(__name__)

QUIET = Console(quiet=True)
"""Shows nothing: for whoever calls the steps from Python and wants no progress."""


@dataclass(frozen=True, slots=True)
class River:
    """A configured river: who works, and the layers they will make."""

    decoding: DecodingPass
    stations: Sequence[Station[Any]]
    layers: dict[str, str]
    seen: SeenFolders = field(default_factory=SeenFolders)
    """Folders of the sources that the listing machine sees."""
    asks_web: bool = True
    """Whether sources lie on web servers."""
    moved: Mapping[str, str] = field(default_factory=dict)
    """Address of a source that is not there any more -> where the same bytes lie."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HowToRun:
    """What a run is besides its sources and settings."""

    command: str = ""
    """The command line, or what stands for it; kept in corpus.json."""
    preset: str = ""
    """Name of the preset that the settings began with; kept there too."""
    ray_address: str = "local"
    """'local' for a private Ray, 'auto' or an address for a cluster."""
    listing: ListingConfig = field(default_factory=ListingConfig)
    """Which of the named sources are taken."""
    retry_failed: bool = False
    """Whether sources, captions and exported clips that failed for reasons that may pass are tried again."""
    incomplete_layers: OnIncomplete = "refuse"
    """What becomes of layers of earlier runs that this one would leave incomplete."""
    moved_to: Sequence[str] = ()
    """Where an export looks for films that are not at their addresses any more, by their bytes."""
    shards: PlannedShards | None = None
    """What the corpus is measured for; checked before any work."""
    web: WebConfig = field(default_factory=WebConfig)
    """How web servers are asked for sources."""


def configure(config: RiverConfig, web: WebConfig | None = None) -> River:
    """Make the stations and check all that can be checked before any work.

    Raises:
        MissingWeights: if a station's model files are not there; names each, and what gets them.
        MissingColumn: if a station reads a column that none before it adds.
    """
    decoding = DecodingPass(config.decode, WebClient(web, RayTurns()))
    chosen = river.stations(config)
    makers: list[Maker] = [decoding, *chosen]
    require_weights([weight for maker in makers for weight in maker.weights()])
    return River(decoding, chosen, river.layer_ids(decoding, chosen))


def require_weights(weights: Sequence[Weight]) -> None:
    """Raise one `MissingWeights` that speaks of every file that is missing."""
    absent = missing(weights)
    messages = []
    for weight in absent:
        try:
            find(weight)
        except MissingWeights as error:
            messages.append(str(error))
    if messages:
        raise MissingWeights("\n".join(messages))


def measure(
    specs: Sequence[str],
    store: Store,
    config: RiverConfig,
    *,
    console: Console = QUIET,
    how: HowToRun | None = None,
) -> tuple[CorpusInfo, Rejects]:
    """List the sources, decode them once, and run every keyframe station: all layers of the corpus.

    What earlier runs committed under the same settings is not done again, but for rows of sources to
    which the lists give other texts now, and, if ``how.retry_failed``, of what failed for reasons that
    may pass and of rejected sources that are other files now.

    Returns:
        The corpus, and what became of its sources. Parts that a station failed over for good are named
        there (`Rejects.failed`); select, export and report leave them out until a later run has made them.

    Raises:
        MissingWeights: before any work, if a station's model files are not there.
        CorpusError: before any work, if layers of the corpus would be left incomplete, or shards that
            are there could not grow.
        NothingToDo: if not one source could be read.
        UnitsFailed: if there is no part that all stations could do.
    """
    how = how or HowToRun()
    sources = listed(specs, how.listing, console)
    fetchable = sources.filter(pc.is_null(sources["listing_reject"]))
    ledger = Ledger(store)
    dealing = corpus.deal_sources(
        ledger,
        sources,
        sources_per_part=config.sources_per_part,
        bytes_per_part=config.bytes_per_part,
    )
    config, configured, layers = grown(ledger, config, dealing.num_parts, how, console)
    ids = configured.layers
    uris = fetchable["uri"].to_pylist()
    configured = replace(configured, seen=SeenFolders.of(uris), asks_web=any(map(is_web, uris)))
    num_parts = dealing.num_parts
    settings = settings_on_record(corpus.existing(store), asdict(config))
    retries = Retries(ledger, configured.stations, ids, layers, num_parts)
    renewed = retries.rejected_among(dealing.changed, dealing.known) if dealing.changed else {}
    unchanged = sources.filter(pc.invert(among(sources, dealing.changed)))
    retries.check_none_left_behind(
        unchanged, dealing.known, retry_failed=how.retry_failed, renewed=renewed
    )
    known = dealing.write(ledger)
    info = CorpusInfo(
        num_parts=num_parts,
        layers=layers,
        settings=settings,
        created_by=how.command,
        preset=how.preset,
        num_refused=len(dealing.changed) - len(renewed),
    )
    info.write(store)
    check_sources_are_there(ledger, num_parts)
    if how.listing.limit is None and (num := supersede_rows(ledger, specs, sources, known)):
        console.print(
            f"{num:,} rows that could not be used stand otherwise in their lists now: superseded"
        )
    _say_counts(
        "known sources got other texts from the list",
        retries.update_texts(unchanged, known),
        console,
    )
    if how.retry_failed:
        others = sources.filter(among(sources, renewed))
        _say_counts("are tried again", retries.note_failed(renewed, others), console)
    stages = _stages(ledger, configured, num_parts)
    failed = _run(ledger, configured, stages, console=console, ray_address=how.ray_address)
    if failed is not None and not find_gap(ledger, info).complete:
        raise failed
    rejects = replace(
        read_rejects(ledger, info),
        num_not_listed=dealing.num_not_listed,
        changed={uri: what for uri, what in dealing.changed.items() if uri not in renewed},
        renewed={} if how.retry_failed else {uri: dealing.changed[uri] for uri in renewed},
        failed=failed,
    )
    rejects.say(console)
    return info, rejects


def among(sources: pa.Table, uris: Iterable[str]) -> pa.ChunkedArray:
    """Which sources have one of some addresses."""
    return pc.is_in(sources["uri"], value_set=pa.array(list(uris), pa.string()))


def grown(
    ledger: Ledger, config: RiverConfig, num_parts: int, how: HowToRun, console: Console
) -> tuple[RiverConfig, River, dict[str, str]]:
    """The run that leaves the corpus whole: its settings, its river, the layers it will have.

    Raises:
        CorpusError: if it would leave layers incomplete and was not told what to do with them, or
            shards that are there could not grow by it.
    """
    info = corpus.existing(ledger.store)
    with preset_named(info, how.preset):
        return _grown(ledger, info, config, num_parts, how, console)


def _grown(
    ledger: Ledger,
    info: CorpusInfo | None,
    config: RiverConfig,
    num_parts: int,
    how: HowToRun,
    console: Console,
) -> tuple[RiverConfig, River, dict[str, str]]:
    configured = configure(config, how.web)
    dropped = list[str]()
    if info is not None:
        incomplete = incomplete_layers(ledger, info, configured.layers, num_parts)
        if incomplete and how.incomplete_layers == "refuse":
            raise refusal(ledger.store.root, incomplete, config, num_parts)
        if incomplete and how.incomplete_layers == "fill":
            config = filled(info, incomplete, config)
            configured = configure(config, how.web)
            check_filled(info, incomplete, configured.layers)
        if how.incomplete_layers == "drop":
            dropped = [layer.name for layer in incomplete]
    layers = layers_after(info, configured.layers, dropped)
    if how.shards is not None:
        how.shards.check(ledger.store, layers)
    if info is not None:
        for line in changes(ledger, info, configured.layers):
            console.print(line, highlight=False, soft_wrap=True)
    return config, configured, layers


def _run(
    ledger: Ledger,
    configured: River,
    stages: Sequence[Stage],
    *,
    console: Console,
    ray_address: str,
) -> UnitsFailed | None:
    """Run what is not committed; then, where a part came out otherwise, what was made of the old one.

    Returns:
        The units that could not be done, if there are any; their parts were left where they are.
    """
    ids, num_parts, failed = configured.layers, len(stages[0].units), None
    with Recorder(ledger, downstream(configured.stations, ids)) as recorder:
        while any(set(stage.units) - stage.done for stage in stages):
            _check_models(configured.stations, stages)
            for stage in stages:
                for name in river.DECODED_LAYERS if stage.name == "decode" else [stage.name]:
                    todo = set(stage.units) - stage.done
                    ledger.mark_again(layout.layer_folder(ids[name]), sorted(todo))
            start_ray(ray_address)
            try:
                with shared_turns(configured.asks_web), ProgressBars(console) as bars:
                    costs = run_stages(stages, bars, record=recorder)
            except UnitsFailed as error:
                failed, costs = error.after(failed), error.costs
            console.print(costs_table(costs))
            for line in in_one_sentence(costs):
                console.print(line, highlight=False)
            if "captions" in costs and (line := cost_line(costs["captions"].counts)):
                console.print(line, highlight=False)
            without = failed.units if failed is not None else frozenset[int]()
            stages = _stages(ledger, configured, num_parts, without=without)
    forget(ledger.store, frozenset.intersection(*(stage.done for stage in stages)))
    ledger.compact()
    return failed


def _say_counts(what: str, counts: Counter[str], console: Console) -> None:
    """One line such as 'known sources got other texts: 3 sources, 2 licence', if there is any."""
    if counts:
        numbers = ", ".join(f"{n:,} {name}" for name, n in counts.items())
        console.print(f"{what}: {numbers}", highlight=False)


def fill_layers(
    ledger: Ledger,
    configured: River,
    num_parts: int,
    *,
    console: Console = QUIET,
    ray_address: str = "local",
) -> None:
    """Make every part of the river's layers that is missing, damaged or to be made anew.

    Raises:
        UnitsFailed: if some could not be made; all others are then.
    """
    stages = _stages(ledger, configured, num_parts)
    failed = _run(ledger, configured, stages, console=console, ray_address=ray_address)
    if failed is not None:
        raise failed


def _check_models(stations: Sequence[Station[Any]], stages: Sequence[Stage]) -> None:
    """Ask the models of stations that have work to do whether they can be asked, before any work."""
    busy = {stage.name for stage in stages if set(stage.units) - stage.done}
    for station in stations:
        if station.name in busy:
            station.check()


def _stages(
    ledger: Ledger,
    configured: River,
    num_parts: int,
    *,
    without: frozenset[int] = frozenset(),
) -> list[Stage]:
    """The stages of a run over all parts but some."""
    units = [part for part in range(num_parts) if part not in without]
    ids, decoding = configured.layers, configured.decoding
    noted = noted_parts(ledger.store)
    plans = [part in noted for part in range(num_parts)]
    store = ledger.store
    ledger.look(map(layout.layer_folder, ids.values()))
    done = {
        name: committed(ledger, layout.layer_folder(layer_id), num_parts)
        for name, layer_id in ids.items()
    }
    stages = [
        Stage(
            name="decode",
            job=DecodeJob(store, decoding, ids, configured.seen, configured.moved),
            blame=blame_in_hand(store),
            resources=decoding.resources,
            units=units,
            done=frozenset.intersection(*(done[name] for name in river.DECODED_LAYERS)),
            plans=plans,
        )
    ]
    stages += [
        Stage(
            name=station.name,
            job=StationJob(store, station, ids),
            resources=station.resources,
            units=units,
            done=done[station.name],
            after=river.stage_after(station, ids),
            plans=plans,
        )
        for station in configured.stations
    ]
    return stages
