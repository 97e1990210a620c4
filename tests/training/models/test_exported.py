import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from training.models.autoencoder import Autoencoder
from training.models.exported import (
    ExportedModel,
    SampleShape,
    load_model,
    read_samples,
    save_model,
)
from training.models.patch_autoencoder import PatchAutoencoder, PatchAutoencoderConfig
from training.models.schedule import NoiseSchedule, Objective
from training.models.unet import UNet

STAGES = ("base", "interpolation", "super_resolution")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_comes_back_bit_for_bit(stage, dtype, tiny_net, tmp_path):
    net = tiny_net(stage).to(dtype)
    net.use_channels_last()
    save_model(ExportedModel(net=net, objective=Objective.of(stage), origin="x"), tmp_path / "m")
    back = load_model(tmp_path / "m", Objective.of(stage))
    before, after = net.state_dict(), back.net.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert all(before[key].dtype == after[key].dtype for key in before)
    assert (back.net.config, back.origin) == (net.config, "x")
    assert all(p.requires_grad for p in back.net.parameters())


@pytest.fixture
def exported(tiny_net, tmp_path):
    folder = tmp_path / "model"
    save_model(ExportedModel(net=tiny_net("base"), objective=Objective.of("base")), folder)
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schedule": NoiseSchedule.stable_diffusion()}, "schedule is .* expected .*scaled_linear"),
        ({"prediction": "velocity"}, "prediction is epsilon, expected velocity"),
        ({"latent_scale": 0.13025}, "latent_scale is 0.18215, expected 0.13025"),
        ({"stage": "interpolation"}, "stage is base, expected interpolation"),
    ],
)
def test_a_model_of_another_objective_is_refused(change, message, exported):
    with pytest.raises(ValueError, match=message):
        load_model(exported, replace(Objective.of("base"), **change))


def test_tensors_that_were_saved_for_another_objective_are_refused(exported):
    """Whoever edits config.json, or moves a tensor file to another model, is told so."""
    path = exported / "config.json"
    config = json.loads(path.read_text())
    config["objective"]["prediction"] = "velocity"
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match="saved for another objective than config"):
        load_model(exported, replace(Objective.of("base"), prediction="velocity"))


def test_a_model_is_never_overwritten(exported, tiny_net):
    with pytest.raises(FileExistsError, match="must be new"):
        save_model(ExportedModel(net=tiny_net("base"), objective=Objective.of("base")), exported)


def test_a_save_that_fails_leaves_nothing(tiny_net, tmp_path, monkeypatch):
    from training.models import exported as module

    def full_disk(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "save_file", full_disk)
    model = ExportedModel(net=tiny_net("base"), objective=Objective.of("base"))
    with pytest.raises(OSError, match="No space left"):
        save_model(model, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_model_is_refused(exported):
    (exported / "config.json").write_text('{"format": "other", "format_version": 1}')
    with pytest.raises(ValueError, match="got format 'other', version 1"):
        load_model(exported, Objective.of("base"))


@pytest.mark.parametrize(
    ("objective", "message"),
    [(None, "not an objective"), ([], "not an objective"), ({"stage": 1}, "not an objective")],
)
def test_a_folder_without_a_proper_objective_is_refused(objective, message, exported):
    path = exported / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"objective": objective}))
    with pytest.raises(ValueError, match=message):
        load_model(exported, Objective.of("base"))


def test_a_torn_tensor_file_is_refused(exported):
    path = exported / "unet" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model\.safetensors is not a whole safetensors file"):
        load_model(exported, Objective.of("base"))


def test_a_configuration_of_something_else_is_refused(exported):
    (exported / "unet" / "config.json").write_text('{"layers": 3}')
    with pytest.raises(ValueError, match=r"not a network's configuration: .*layers"):
        load_model(exported, Objective.of("base"))


def test_a_missing_file_is_named(exported):
    (exported / "unet" / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"unet/config\.json is missing"):
        load_model(exported, Objective.of("base"))


def test_wrong_keys_of_a_model_are_listed(exported):
    path = exported / "unet" / "model.safetensors"
    state = load_file(path)
    del state["conv_in.bias"]
    save_file(state, path, metadata={"objective_sha256": Objective.of("base").digest()})
    with pytest.raises(ValueError, match=r"(?s)1 keys are wrong:\n  missing conv_in\.bias"):
        load_model(exported, Objective.of("base"))


@pytest.fixture
def autoencoder():
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    from training.models.autoencoder import Autoencoder

    def build(scale):
        vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, scaling_factor=scale)
        return Autoencoder(vae)

    return build


def test_companions_travel_with_the_network(autoencoder, tiny_net, tmp_path):
    model = ExportedModel(
        net=tiny_net("base"), objective=Objective.of("base"), autoencoder=autoencoder(0.18215)
    )
    save_model(model, tmp_path / "m")
    back = load_model(tmp_path / "m", Objective.of("base")).autoencoder
    before, after = model.autoencoder.state_dict(), back.state_dict()
    assert back.scale == 0.18215
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_an_autoencoder_of_another_latent_scale_is_refused(autoencoder, tiny_net):
    with pytest.raises(ValueError, match=r"latent scale 0\.18215, got 0\.08333"):
        ExportedModel(
            net=tiny_net("base"), objective=Objective.of("base"), autoencoder=autoencoder(0.08333)
        )


def test_a_network_that_is_not_the_objectives_is_refused(tiny_config):
    net = UNet(tiny_config("base"))
    with pytest.raises(ValueError, match="must be a super_resolution network"):
        ExportedModel(net=net, objective=Objective.of("super_resolution"))


def test_a_model_says_what_the_videos_of_its_training_were_like(tmp_path, tiny_net):
    samples = SampleShape(num_frames=8, fps=8.0, height=64, width=112)
    model = ExportedModel(net=tiny_net("base"), objective=Objective.of("base"), samples=samples)
    save_model(model, tmp_path / "m")
    assert read_samples(tmp_path / "m") == samples
    assert load_model(tmp_path / "m", Objective.of("base")).samples == samples


def test_a_model_of_an_earlier_version_says_nothing_of_them(exported):
    path = exported / "config.json"
    values = json.loads(path.read_text())
    del values["samples"]
    path.write_text(json.dumps(values))
    assert read_samples(exported) is None


def test_an_autoencoder_of_other_channels_than_the_network_is_refused(tiny_net):
    vae = PatchAutoencoder(PatchAutoencoderConfig(scaling_factor=0.18215))
    with pytest.raises(ValueError, match="must have the network's 4 latent channels, got 8"):
        ExportedModel(
            net=tiny_net("base"), objective=Objective.of("base"), autoencoder=Autoencoder(vae)
        )
