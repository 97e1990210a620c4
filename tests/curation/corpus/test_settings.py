"""Every settings dataclass of a curation run survives its own JSON."""

import json
from dataclasses import asdict, replace

import pytest

from curation.corpus.settings import settings_from
from curation.export import ExportConfig
from curation.select import SelectConfig, rule_presets
from pipelines.curation_config import RiverConfig
from pipelines.presets import PRESETS


@pytest.mark.parametrize("recipe", sorted(rule_presets.PRESETS))
def test_rules_of_every_recipe_come_back_as_they_were(recipe: str) -> None:
    config = rule_presets.PRESETS[recipe]()
    assert settings_from(SelectConfig, json.loads(json.dumps(asdict(config)))) == config


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_settings_of_every_preset_come_back_as_they_were(preset: str) -> None:
    config = PRESETS[preset]()
    for kind, own in ((RiverConfig, config.river), (ExportConfig, config.export)):
        assert settings_from(kind, json.loads(json.dumps(asdict(own)))) == own


def test_what_was_not_known_then_is_at_its_default() -> None:
    content = asdict(replace(ExportConfig(), crf=30))
    del content["threads"]
    assert settings_from(ExportConfig, content) == replace(ExportConfig(), crf=30)


def test_what_is_not_known_any_more_is_named() -> None:
    with pytest.raises(ValueError, match="no setting colour"):
        settings_from(ExportConfig, {"colour": "red"})
