import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from training.models.grow import (
    grow_base,
    grow_interpolation,
    grow_super_resolution,
    is_temporal,
)
from training.models.unet import UNet


def relative_error(got, expected):
    return float((got - expected).abs().max() / expected.abs().max())


@pytest.fixture
def image_network(tmp_path):
    """Build a tiny diffusers image network of either kind; return it and its folder."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    def build(kind):
        torch.manual_seed(3)
        attention, plain = "CrossAttn{}Block2D", "{}Block2D"
        if kind == "stable_diffusion":
            down = [attention, attention, attention, plain]
            special = {"block_out_channels": (40, 80, 80, 80), "attention_head_dim": (1, 2, 2, 2)}
            special |= {"norm_num_groups": 8}
        else:
            down = [plain, attention, attention, attention]
            special = {
                "block_out_channels": (32, 64, 64, 128),
                "attention_head_dim": (1, 1, 1, 2),
                "in_channels": 7,
                "num_class_embeds": 1000,
                "only_cross_attention": (True, True, True, False),
                "use_linear_projection": True,
            }
        twin = UNet2DConditionModel(
            sample_size=8,
            layers_per_block=1,
            cross_attention_dim=24,
            down_block_types=tuple(name.format("Down") for name in down),
            up_block_types=tuple(name.format("Up") for name in reversed(down)),
            **special,
        ).eval()
        twin.save_pretrained(tmp_path / kind)
        return twin, tmp_path / kind

    return build


@pytest.mark.parametrize("size", [(8, 8), (10, 12), (7, 9)])
def test_one_frame_of_a_fresh_base_network_is_the_image_networks_output(
    size, image_network, inputs
):
    twin, folder = image_network("stable_diffusion")
    net = grow_base(folder).eval()
    arguments = inputs(net, batch=2, frames=1, size=size)
    with torch.no_grad():
        sample, time, text = arguments.values()
        expected = twin(sample[:, :, 0], time, text).sample
        got = net(**arguments)[:, :, 0]
    assert relative_error(got, expected) < 4e-6


@pytest.mark.parametrize("kind", ["stable_diffusion", "upscaler"])
def test_equal_frames_of_a_fresh_video_network_are_the_image_networks_output(
    kind, image_network, inputs
):
    twin, folder = image_network(kind)
    net = (grow_base if kind == "stable_diffusion" else grow_super_resolution)(folder).eval()
    arguments = inputs(net, batch=2, frames=1)
    frames = arguments["sample_BCTHW"]
    level = arguments.get("noise_level_B")
    with torch.no_grad():
        expected = twin(
            frames[:, :, 0], arguments["timestep_B"], arguments["text_BLD"], class_labels=level
        ).sample
        got = net(**(arguments | {"sample_BCTHW": frames.repeat(1, 1, 3, 1, 1)}))
    for frame in got.unbind(2):
        assert relative_error(frame, expected) < 4e-6


@pytest.mark.parametrize("kind", ["stable_diffusion", "upscaler"])
def test_every_tensor_of_the_image_network_is_copied(kind, image_network):
    twin, folder = image_network(kind)
    net = (grow_base if kind == "stable_diffusion" else grow_super_resolution)(folder)
    grown, old = net.state_dict(), twin.state_dict()
    assert {key for key in grown if not is_temporal(key)} == set(old)
    assert all(torch.equal(grown[key], old[key]) for key in old)


def test_a_file_alone_will_do_with_a_configuration(image_network, tmp_path):
    _, folder = image_network("stable_diffusion")
    config = grow_base(folder).config
    alone = tmp_path / "unet.safetensors"
    (folder / "diffusion_pytorch_model.safetensors").rename(alone)
    assert grow_base(alone, config).config == config


def test_interpolation_ignores_the_key_frames_at_first(image_network, inputs):
    twin, folder = image_network("stable_diffusion")
    net = grow_interpolation(grow_base(folder)).eval()
    arguments = inputs(net, batch=2, frames=1)
    sample = arguments["sample_BCTHW"]
    with torch.no_grad():
        expected = twin(sample[:, :4, 0], arguments["timestep_B"], arguments["text_BLD"]).sample
        got = net(**(arguments | {"sample_BCTHW": sample.repeat(1, 1, 3, 1, 1)}))
    assert net.config.in_channels == 8
    for frame in got.unbind(2):
        assert relative_error(frame, expected) < 4e-6


def test_interpolation_takes_the_temporal_attention_of_its_base_network(tiny_net):
    base = tiny_net("base")
    grown, old = grow_interpolation(base).state_dict(), base.state_dict()
    assert [key for key in grown if not torch.equal(grown[key], old[key])] == ["conv_in.weight"]
    assert torch.equal(grown["conv_in.weight"][:, :4], old["conv_in.weight"])
    assert not grown["conv_in.weight"][:, 4:].any()
    left_behind = {key.split(".")[-3] for key in old.keys() - grown.keys() if "bias" in key}
    assert left_behind == {"time_rel_pos_bias"}


def test_only_temporal_layers_of_the_super_resolution_network_learn(image_network, inputs):
    twin, folder = image_network("upscaler")
    net = grow_super_resolution(folder)
    frozen = {name for name, p in net.named_parameters() if not p.requires_grad}
    assert frozen == set(twin.state_dict())
    net(**inputs(net)).square().mean().backward()
    learning = {name for name, p in net.named_parameters() if p.grad is not None}
    assert learning == {name for name in dict(net.named_parameters()) if "temp" in name}


def test_wrong_keys_of_an_image_network_are_listed(image_network):
    _, folder = image_network("stable_diffusion")
    path = folder / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    state["extra.weight"] = state.pop("conv_in.weight")
    save_file(state, path)
    with pytest.raises(ValueError, match=r"(?s)2 keys.*missing conv_in.*unexpected extra.weight"):
        grow_base(folder)


def test_a_setting_that_video_networks_do_not_have_is_named(image_network):
    _, folder = image_network("stable_diffusion")
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"act_fn": "gelu"}))
    with pytest.raises(ValueError, match="act_fn of the image network must be silu, got gelu"):
        grow_base(folder)


def test_a_missing_image_network_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        grow_base(tmp_path / "nowhere")


def test_another_size_than_the_image_networks_is_refused(image_network, tiny_config):
    _, folder = image_network("stable_diffusion")
    with pytest.raises(ValueError, match=r"shape \(4, 40, 3, 3\), expected \(5, 40, 3, 3\)"):
        grow_base(folder, replace(tiny_config("base"), out_channels=5))


def test_a_fresh_network_of_every_stage_starts_without_time(tiny_config, inputs):
    for stage in ("base", "super_resolution"):
        net = UNet(tiny_config(stage)).eval()
        arguments = inputs(net, frames=4)
        sample = arguments["sample_BCTHW"]
        with torch.no_grad():
            forwards = net(**arguments)
            backwards = net(**(arguments | {"sample_BCTHW": sample.flip(2)}))
        assert relative_error(backwards.flip(2), forwards) < 4e-6
