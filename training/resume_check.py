"""What a resume compares: all that a run must find unchanged, as names and short values."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

from training.data.loader import TrainingData
from training.initial_weights import weights_digest
from training.learner import Learner
from training.run_config import TrainConfig

NOT_COMPARED = (
    "data.sources",  # where they lie may change, what they hold not: their digests are compared
    "data.micro_batch_size",
    "data.num_workers",
    "data.prefetch",
    "data.allow_stopgap_captions",  # what the captions are, the corpora's digests say
    "data.max_dropped_share",
    "data.max_failed_share",
    "model.initial_weights",
    "model.companions",
    "scale.parallel",
    "scale.checkpoint_activations",
    "scale.compile",
    "scale.channels_last",
    "save",
    "watch",
)
"""Settings that change speed, place or what is looked at, not what is learnt."""


def compared_on_resume(config: TrainConfig, data: TrainingData, learner: Learner) -> dict[str, str]:
    """Name -> value or digest of every setting and input that decides what is learnt.

    The length of the last phase is left out where the learning rate does not depend on it, so that
    a run can be made longer.
    """
    # Where all was encoded beforehand, the data's digest says with what; these only go into exports.
    online = not all(source.encoded for source in config.data.sources)
    companions = {
        "autoencoder": weights_digest(learner.companions.autoencoder),
        "text_encoder": weights_digest(learner.companions.text_encoder),
    }
    settings = dict(_flat("", asdict(config)))
    kept = {name: value for name, value in settings.items() if _is_compared(name)}
    if config.optim.decay == "constant":
        last = f"phases.{len(config.phases) - 1}.steps"
        kept.pop(last)
    return {
        **kept,
        **data.digests,
        "architecture": _short(asdict(learner.architecture)),
        "objective": learner.stage.objective.digest(),
        **(companions if online else {}),
    }


def _is_compared(name: str) -> bool:
    return not any(name == free or name.startswith(f"{free}.") for free in NOT_COMPARED)


def _flat(prefix: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [pair for key, held in value.items() for pair in _flat(f"{prefix}{key}.", held)]
    if isinstance(value, list | tuple) and value and isinstance(value[0], dict):
        return [pair for at, held in enumerate(value) for pair in _flat(f"{prefix}{at}.", held)]
    return [(prefix.rstrip("."), json.dumps(value))]


def _short(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
