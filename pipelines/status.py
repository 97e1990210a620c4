"""What a corpus holds and how far each of its layers is: listings and records, no part is read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from curation.corpus import layout
from curation.corpus.gap import Gap, gap_of
from curation.corpus.generations import begun_generations
from curation.corpus.ledger import Ledger, PartState
from curation.corpus.manifest import CorpusInfo, read_corpus
from curation.corpus.selection import RULES, read_funnel, read_rules
from curation.corpus.store import Store
from curation.errors import PASSING, TornPart
from pipelines import advice
from pipelines.rejects import passing_failures
from pipelines.verify_notes import MANIFEST, read_sealed_manifest

FINISHED = "finished"
"""What a selection is that has all of the corpus."""
OTHER = "of other verdicts"
"""What a product is that was made before its selection was made anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """How the parts of one folder stand."""

    name: str
    """'sources', or id of a layer."""
    states: Counter[PartState]
    """Parts of each state."""
    is_current: bool
    """Whether corpus.json names it."""
    changed: datetime | None
    """When its newest file was put, by the store's clock."""
    fault: str = ""
    """Why its record cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """The shards, or the report, of a selection."""

    stands: str
    """'none', 'unfinished', 'current', 'of other verdicts' than the selection now has, 'damaged', or
    'unknown' where an older program did not write down what it is of."""
    due: str = ""
    """The command that is due; '' if none is."""
    changed: datetime | None = None
    """When it was finished."""
    num_clips: int | None = None
    """Clips in the shards."""
    num_to_cut_again: int = 0
    """Clips that could not be cut into them for reasons that may pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionStatus:
    """One selection and what was made of it."""

    name: str
    """Of the selection."""
    stands: str
    """'finished', 'unfinished', 'damaged', or which parts or layers of the corpus it does not have."""
    due: str = ""
    """The command that is due; '' if none is."""
    kept: dict[str, Any] = field(default_factory=dict)
    """"clips" and "hours" that it keeps."""
    changed: datetime | None = None
    """When it was finished."""
    shards: Product
    """Of `lavie export`."""
    report: Product
    """Of `lavie report`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A corpus at a glance."""

    info: CorpusInfo
    """Contents of corpus.json."""
    num_sources: int
    """Rows of the list of sources."""
    num_read: int
    """Sources that were decoded."""
    rejects: Counter[str]
    """Rejected sources by reason."""
    num_clips: int
    """Scenes that are long enough."""
    hours: float
    """Of all scenes."""
    captions: Counter[str]
    """Clips by what came of their caption; empty without captions."""
    layers: list[Layer]
    """The sources, and every layer there is a folder or an entry of."""
    selections: list[SelectionStatus]
    """All that were begun."""
    gap: Gap | None
    """Parts that some current layer lacks; None where a record is damaged, so that it cannot be told."""

    @property
    def num_unrecorded(self) -> int:
        """Parts of some current layer that are there and on no record, so that nothing in them is counted."""
        return max(
            (one.states[PartState.UNRECORDED] for one in self.layers if one.is_current), default=0
        )

    @property
    def num_passing(self) -> int:
        """Rejected sources that another try may read."""
        return sum(number for reason, number in self.rejects.items() if reason in PASSING)


def read_status(store: Store) -> Status:
    """Gather what `lavie status` says.

    Raises:
        CorpusError: if there is no corpus, or corpus.json is damaged.
    """
    info, ledger = read_corpus(store), Ledger(store)
    current = set(info.layers.values())
    states: dict[str, list[PartState]] = {}
    layers = [_layer(ledger, layout.SOURCES, info, states, is_current=True)]
    for layer_id in sorted(current | set(store.folders(layout.LAYERS))):
        folder = layout.layer_folder(layer_id)
        layers.append(_layer(ledger, folder, info, states, is_current=layer_id in current))
    readable = {layer.name for layer in layers if not layer.fault}
    probe, scenes, captions = (
        _values(ledger, readable, info, name, column)
        for name, column in (
            ("probe", "source_reject"),
            ("scenes", "scene_reject"),
            ("captions", "caption_status"),
        )
    )
    duration_ms = 0
    if info.layers["scenes"] in readable:
        duration_ms = ledger.counts(layout.layer_folder(info.layers["scenes"]))["duration_ms"]
    gap = gap_of(ledger, info, states) if current <= readable else None
    return Status(
        info=info,
        num_sources=ledger.counts(layout.SOURCES)["rows"] if layout.SOURCES in readable else 0,
        num_read=probe.pop("", 0),
        rejects=probe,
        num_clips=scenes[""],
        hours=duration_ms / 3.6e6,
        captions=captions,
        layers=layers,
        gap=gap,
        selections=[_selection(store, info, name, gap) for name in store.folders("selections")],
    )


def _values(
    ledger: Ledger, readable: set[str], info: CorpusInfo, layer: str, column: str
) -> Counter[str]:
    layer_id = info.layers.get(layer, "")
    if layer_id not in readable:
        return Counter()
    return ledger.values(layout.layer_folder(layer_id), column)


def _layer(
    ledger: Ledger,
    folder: str,
    info: CorpusInfo,
    known: dict[str, list[PartState]],
    *,
    is_current: bool,
) -> Layer:
    """How the parts of a folder stand; written down in ``known``, part by part, too."""
    name = folder.removeprefix(f"{layout.LAYERS}/")
    changed = _newest(ledger.store, folder)
    try:
        known[folder] = ledger.states(folder, info.num_parts)
    except TornPart as error:
        return Layer(
            name=name, states=Counter(), is_current=is_current, changed=changed, fault=str(error)
        )
    states = Counter(known[folder])
    return Layer(name=name, states=states, is_current=is_current, changed=changed)


def _newest(store: Store, folder: str, names: Iterable[str] | None = None) -> datetime | None:
    files = store.listing(folder)
    chosen = files.values() if names is None else [files[n] for n in names if n in files]
    return max((file.modified for file in chosen if file.modified is not None), default=None)


def _selection(store: Store, info: CorpusInfo, name: str, gap: Gap | None) -> SelectionStatus:
    folder = layout.selection(name)
    rules_file = f"{folder}/{RULES}"
    kept, verdicts = {}, None
    stands, due = "unfinished", advice.select_again(store, name)
    if store.exists(rules_file):
        try:
            rules = read_rules(store, name)
            kept = read_funnel(store, name)["kept"]
        except TornPart:
            stands, due = "damaged", advice.repair(store)
        else:
            stands, verdicts = _freshness(rules, info), rules.get("verdicts_sha256")
            due = _due(store, info, name, rules, gap) if stands != FINISHED else ""
    return SelectionStatus(
        name=name,
        stands=stands,
        due=due,
        kept=kept,
        changed=_newest(store, folder, [rules_file]),
        shards=_shards(store, name, verdicts),
        report=_report(store, name, verdicts),
    )


def _due(store: Store, info: CorpusInfo, name: str, rules: dict[str, Any], now: Gap | None) -> str:
    """What brings a selection up to the corpus."""
    return advice.take_in(store, info, name, without=Gap.of_selection(rules), now=now)


def _freshness(rules: dict[str, Any], info: CorpusInfo) -> str:
    """Whether a selection is of the corpus as it is."""
    other = [name for name, layer in rules["layers"].items() if info.layers.get(name) != layer]
    if other:
        return f"made from earlier {', '.join(other)}"
    later = info.num_parts - int(rules["num_parts"])
    without = [f"lacks {later} parts that came later"] if later else []
    if gap := Gap.of_selection(rules):
        without.append(f"made without {gap}")
    return ", ".join(without) or FINISHED


def _shards(store: Store, name: str, verdicts: str | None) -> Product:
    folder, due = layout.shards(name), advice.export_again(store, name)
    file = f"{folder}/{MANIFEST}"
    try:
        manifest = read_sealed_manifest(store, file)
        begun = begun_generations(store, name)
    except FileNotFoundError:
        return _not_there(store, folder, due)
    except TornPart:
        return Product(stands="damaged", due=advice.repair(store))
    stands = _of(verdicts, manifest.get("selection_sha256"))
    if begun:
        stands = f"generation {begun[-1]} is unfinished"
    return Product(
        stands=stands,
        due=due if begun or stands == OTHER else "",
        changed=_newest(store, folder, [file]),
        num_clips=manifest["num_clips"],
        num_to_cut_again=passing_failures(manifest),
    )


def _report(store: Store, name: str, verdicts: str | None) -> Product:
    folder, file = layout.report(name), layout.report_statistics(name)
    due = advice.report_again(store, name)
    try:
        statistics = json.loads(store.read(file))
    except FileNotFoundError:
        return _not_there(store, folder, due)
    except ValueError:
        return Product(stands="damaged", due=advice.repair(store))
    stands = _of(verdicts, statistics.get("lineage", {}).get("verdicts_sha256"))
    return Product(
        stands=stands,
        due=due if stands == OTHER else "",
        changed=_newest(store, folder, [file]),
    )


def _not_there(store: Store, folder: str, due: str) -> Product:
    begun = bool(store.files(folder))
    return Product(stands="unfinished", due=due) if begun else Product(stands="none")


def _of(verdicts: str | None, made_of: str | None) -> str:
    if verdicts is None or made_of is None:
        return "unknown"
    return "current" if verdicts == made_of else OTHER
