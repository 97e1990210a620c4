from dataclasses import replace

import pytest

from inference.memory import Machine
from inference.tiny import tiny_model
from inference.weights import ExportedWeights, ReleasedWeights, TinyWeights, exported_weights
from training.models.exported import save_model


@pytest.fixture
def exported(tmp_path):
    save_model(tiny_model("base"), tmp_path / "models" / "base")
    save_model(tiny_model("super_resolution"), tmp_path / "models" / "super-resolution")
    return tmp_path / "models"


def test_a_folder_of_stages_is_found_under_either_spelling(exported):
    found = exported_weights(exported, ("base", "super_resolution"))
    assert found["super_resolution"].folder == exported / "super-resolution"
    assert found["base"].load().objective.stage == "base"


def test_one_model_is_for_one_stage(exported):
    assert exported_weights(exported / "base", ("base",))["base"].folder == exported / "base"
    with pytest.raises(ValueError, match="holds one model, for one stage"):
        exported_weights(exported / "base", ("base", "interpolation"))


def test_a_model_of_another_stage_is_refused_without_reading_tensors(exported):
    (exported / "base" / "unet" / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="must hold a model of stage interpolation, got base"):
        exported_weights(exported / "base", ("interpolation",))


def test_a_missing_stage_is_named(exported):
    with pytest.raises(FileNotFoundError, match="no model of stage interpolation in"):
        exported_weights(exported, ("base", "interpolation"))


def test_a_model_without_companions_is_refused(tmp_path):
    save_model(replace(tiny_model("base"), text_encoder=None), tmp_path / "bare")
    with pytest.raises(FileNotFoundError, match=r"text_encoder/config\.json is missing"):
        exported_weights(tmp_path / "bare", ("base",))


def test_the_digest_is_that_of_the_file(exported):
    import hashlib

    data = (exported / "base" / "unet" / "model.safetensors").read_bytes()
    weights = ExportedWeights(stage="base", folder=exported / "base")
    assert weights.digest() == hashlib.sha256(data).hexdigest()
    assert TinyWeights(stage="base", seed=3).digest() == "tiny-untrained-seed-3"


def test_a_missing_checkpoint_is_named(tmp_path):
    weights = ReleasedWeights(
        stage="base", checkpoint=tmp_path / "lavie_base.pt", companions=tmp_path, sha256=""
    )
    with pytest.raises(FileNotFoundError, match=r"no weights of stage base at .*lavie_base\.pt"):
        weights.check()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dtype": "fp8"}, "dtype must be one of .* got 'fp8'"),
        ({"device": "gpu"}, "device must be a torch device, got 'gpu'"),
    ],
)
def test_a_machine_that_cannot_be_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Machine(**fields)
