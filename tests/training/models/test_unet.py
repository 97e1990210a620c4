import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from training.models import attention as attention_module
from training.models.unet import UNet
from training.models.unet_config import UNetConfig

STAGES = ("base", "interpolation", "super_resolution")
FILE_OF = {"base": "base", "interpolation": "interpolation", "super_resolution": "vsr"}
FULL = {
    "base": UNetConfig.base,
    "interpolation": UNetConfig.interpolation,
    "super_resolution": UNetConfig.super_resolution,
}


def relative_error(got: Tensor, expected: Tensor) -> float:
    return float((got.double() - expected.double()).abs().max() / expected.double().abs().max())


def tapped_modules(net: UNet) -> dict[str, torch.nn.Module]:
    named = {"tap_time_embedding": net.time_embedding, "tap_conv_in": net.conv_in}
    groups = {
        "tap_down": net.down_blocks,
        "tap_up": net.up_blocks,
        "tap_down_temporal": net.down_temporal_blocks,
        "tap_up_temporal": net.up_temporal_blocks,
    }
    for name, modules in groups.items():
        named |= {f"{name}{index}": module for index, module in enumerate(modules)}
    named["tap_mid"] = net.mid_block
    if net.mid_temporal_block is not None:
        named["tap_mid_temporal"] = net.mid_temporal_block
    return named


@pytest.mark.parametrize("stage", STAGES)
def test_full_size_keys_and_shapes_are_the_released_ones(stage, key_table):
    with torch.device("meta"):
        net = UNet(FULL[stage]())
    ours = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    assert ours == key_table(FILE_OF[stage])


@pytest.mark.parametrize("stage", STAGES)
def test_tiny_keys_and_shapes_are_the_official_ones(stage, key_table, tiny_config):
    with torch.device("meta"):
        net = UNet(tiny_config(stage))
    ours = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    assert ours == key_table(f"{FILE_OF[stage]}-tiny")


@pytest.mark.parametrize(
    ("stage", "millions"), [("base", 909.1), ("interpolation", 909.1), ("super_resolution", 691.0)]
)
def test_parameter_count_is_the_published_one(stage, millions):
    with torch.device("meta"):
        net = UNet(FULL[stage]())
    assert round(sum(p.numel() for p in net.parameters()) / 1e6, 1) == millions


@pytest.mark.parametrize("stage", STAGES)
def test_every_block_equals_the_official_network(stage, reference, tiny_net):
    """Agreement is 2.5e-6 of the maximum; a wrong rule of the network gives 0.08 to 0.6."""
    expected = reference(FILE_OF[stage])
    net, taps = tiny_net(stage), {}
    for name, module in tapped_modules(net).items():

        def keep(_module, _args, out, name=name):
            taps[name] = out[0] if isinstance(out, tuple) else out

        module.register_forward_hook(keep)
    sample, noise_level = expected["in_sample"], None
    if stage == "super_resolution":
        sample = torch.cat([sample, expected["in_low_res"]], dim=1)
        noise_level = expected["in_class_labels"]
    with torch.no_grad():
        taps["output"] = net(
            sample,
            expected["in_timestep"],
            expected["in_encoder_hidden_states"],
            noise_level_B=noise_level,
        )
    assert set(taps) == {key for key in expected if not key.startswith("in_")}
    wrong = {key: relative_error(taps[key], expected[key]) for key in taps}
    assert {key: error for key, error in wrong.items() if error > 4e-6} == {}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("frames", "size"), [(1, (8, 8)), (2, (10, 12)), (5, (7, 9)), (37, (3, 1))]
)
def test_any_frame_count_and_size_keeps_its_shape(stage, frames, size, tiny_net, inputs):
    net = tiny_net(stage)
    with torch.no_grad():
        out = net(**inputs(net, frames=frames, size=size))
    assert out.shape == (1, 4, frames, *size)
    assert out.isfinite().all()


def test_videos_of_a_batch_do_not_see_each_other(tiny_net, inputs):
    net = tiny_net("base")
    both = inputs(net, batch=2)
    with torch.no_grad():
        together = net(**both)
        alone = net(**{key: value[1:] for key, value in both.items()})
    assert relative_error(together[1:], alone) < 4e-6


# Joint image-video input


@pytest.mark.parametrize("stage", STAGES)
def test_temporal_layers_pass_images_by(stage, tiny_net, inputs):
    """With every temporal layer's weights changed, nothing but the video frames may notice.

    Group norms mix the statistics of all frames, so the first transformer's output is looked at.
    """
    net = tiny_net(stage)
    level = 0 if stage != "super_resolution" else 1
    seen = []
    net.down_blocks[level].attentions[0].register_forward_hook(
        lambda _m, _a, out: seen.append(out.clone())
    )
    arguments = inputs(net, frames=4, images=2)
    if stage == "super_resolution":  # the temporal module in front of it mixes through group norm
        net.down_temporal_blocks[0].shift_conv.weight.data.zero_()
        net.down_temporal_blocks[0].shift_conv.bias.data.zero_()
    with torch.no_grad():
        net(**arguments, num_images=2)
        for key, value in net.down_blocks[level].attentions[0].named_parameters():
            if "temp" in key:
                value.mul_(3)
        net(**arguments, num_images=2)
    before, after = seen
    assert torch.equal(before[:, :, 4:], after[:, :, 4:])
    assert not torch.allclose(before[:, :, :4], after[:, :, :4], atol=1e-2)


@pytest.mark.parametrize("stage", STAGES)
def test_each_image_reads_its_own_text_only(stage, tiny_net, inputs):
    net = tiny_net(stage)
    level = 0 if stage != "super_resolution" else 1
    seen = []
    net.down_blocks[level].attentions[0].register_forward_hook(
        lambda _m, _a, out: seen.append(out.clone())
    )
    arguments = inputs(net, frames=2, images=2)
    with torch.no_grad():
        net(**arguments, num_images=2)
        arguments["text_BLD"][:, 2] += 1  # of the second image
        net(**arguments, num_images=2)
    same = [torch.equal(seen[0][:, :, frame], seen[1][:, :, frame]) for frame in range(4)]
    assert same == [True, True, True, False]


@pytest.mark.parametrize("stage", ["base", "interpolation"])
def test_one_frame_video_and_equal_image_are_predicted_alike(stage, tiny_net, inputs):
    """A fresh temporal layer adds nothing, so a frame and an image of it differ in nothing."""
    net = tiny_net(stage)
    with torch.no_grad():
        for key, value in net.named_parameters():
            if "attn_temp.to_out" in key:
                value.zero_()
        arguments = inputs(net, frames=1, images=1)
        arguments["sample_BCTHW"] = arguments["sample_BCTHW"][:, :, :1].repeat(1, 1, 2, 1, 1)
        arguments["text_BLD"] = arguments["text_BLD"][:, :1].repeat(1, 2, 1, 1)
        out = net(**arguments, num_images=1)
    assert relative_error(out[:, :, 0], out[:, :, 1]) < 4e-6


@pytest.mark.parametrize("stage", STAGES)
def test_a_batch_of_images_alone_passes_every_temporal_layer_by(stage, tiny_net, inputs):
    net = tiny_net(stage)
    arguments = inputs(net, frames=0, images=2)
    arguments["text_BLD"] = arguments["text_BLD"][:, :2]  # no video, no text for it
    with torch.no_grad():
        before = net(**arguments, num_images=2)
        for key, value in net.named_parameters():
            if "temp" in key:
                value.mul_(3)
        after = net(**arguments, num_images=2)
    assert torch.equal(before, after)


# Bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sample_BCTHW": torch.zeros(1, 3, 2, 8, 8)}, "sample must have 4 channels, got 3"),
        ({"sample_BCTHW": torch.zeros(1, 4, 8, 8)}, "sample must be a non-empty"),
        ({"sample_BCTHW": torch.zeros(1, 4, 0, 8, 8)}, "sample must be a non-empty"),
        ({"num_images": 3}, "num_images must .* 2 frames, got 3"),
        ({"num_images": 2}, r"text must have shape \[1, 2, L, D\]"),
        ({"num_images": -1}, "num_images must .* got -1"),
        ({"num_images": 1}, r"text must have shape \[1, 2, L, D\]"),
        ({"text_BLD": torch.zeros(1, 5, 25)}, "text must be 24 wide, got 25"),
        ({"text_BLD": torch.zeros(2, 5, 24)}, r"text must have shape \[1, L, D\]"),
        ({"timestep_B": torch.zeros(2)}, r"timestep must .* got shape \(2,\)"),
        ({"noise_level_B": torch.zeros(1, dtype=torch.long)}, "noise_level must be left out"),
    ],
)
def test_a_wrong_argument_is_named_with_rule_and_value(change, message, tiny_net, inputs):
    net = tiny_net("base")
    with pytest.raises(ValueError, match=message):
        net(**(inputs(net, frames=2) | change))


@pytest.mark.parametrize(
    ("level", "message"),
    [
        (None, "noise_level must be given"),
        (torch.tensor([351]), "noise_level must be 0 to 350, got 351 to 351"),
        (torch.tensor([-1]), "noise_level must be 0 to 350, got -1"),
        (torch.tensor([0.5]), "noise_level must hold one integer per sample"),
        (torch.tensor([1, 2]), r"noise_level must .* got shape \(2,\)"),
    ],
)
def test_a_wrong_noise_level_is_refused(level, message, tiny_net, inputs):
    net = tiny_net("super_resolution")
    with pytest.raises(ValueError, match=message):
        net(**(inputs(net) | {"noise_level_B": level}))


# Speed and memory without changing the numbers


def two_levels(config: UNetConfig) -> UNetConfig:
    """A network of every kind of layer that its stage has, quick to trace."""
    levels = (1, 3) if config.temporal_convolutions else (0, 3)
    names = (
        "block_out_channels",
        "num_attention_heads",
        "attention_levels",
        "only_cross_attention",
    )
    return replace(config, **{n: tuple(getattr(config, n)[i] for i in levels) for n in names})


@pytest.mark.parametrize("stage", STAGES)
def test_compiles_to_one_graph_and_once_a_shape(stage, tiny_net, tiny_config, inputs):
    torch._dynamo.reset()
    net = tiny_net(two_levels(tiny_config(stage)))
    arguments = inputs(net, batch=2, frames=3)
    with torch.no_grad():
        expected = net(**arguments)
        net.compile(fullgraph=True, backend="eager")
        net(**arguments)
        later = arguments | {"timestep_B": arguments["timestep_B"] // 2}
        with torch.compiler.set_stance("fail_on_recompile"):
            net(**later)
            got = net(**arguments)
    assert relative_error(got, expected) < 4e-6


def test_a_compiled_network_still_refuses_a_wrong_argument(tiny_net, inputs):
    net = tiny_net("super_resolution")
    net.compile(fullgraph=True, backend="eager")
    with pytest.raises(ValueError, match="got 351"):
        net(**(inputs(net) | {"noise_level_B": torch.tensor([351])}))


@pytest.mark.slow
def test_torch_compile_from_outside_has_no_graph_break_either(tiny_net, tiny_config, inputs):
    torch._dynamo.reset()
    net = tiny_net(two_levels(tiny_config("super_resolution")))
    arguments = inputs(net, images=1)
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        got = compiled(**arguments, num_images=1)
        assert relative_error(got, net(**arguments, num_images=1)) < 4e-6


def test_a_copy_of_a_compiled_network_is_independent_of_it(tiny_net, inputs):
    net = tiny_net("base")
    arguments = inputs(net)
    with torch.no_grad():
        expected = net(**arguments)
        net.compile(backend="eager")
        twin = copy.deepcopy(net)
        for parameter in net.parameters():
            parameter.zero_()
        assert relative_error(twin(**arguments), expected) < 4e-6


def gradients(net: UNet, arguments: dict[str, Tensor], **more: int) -> dict[str, Tensor]:
    net.zero_grad()
    net(**arguments, **more).square().mean().backward()
    return {key: p.grad.clone() for key, p in net.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("stage", STAGES)
def test_activation_checkpointing_gives_the_same_gradients(stage, tiny_net, inputs):
    net = tiny_net(stage)
    arguments = inputs(net, frames=2, images=1)
    kept = gradients(net, arguments, num_images=1)
    net.set_activation_checkpointing(True)
    recomputed = gradients(net, arguments, num_images=1)
    assert kept.keys() == recomputed.keys() == dict(net.named_parameters()).keys()
    assert all(torch.equal(kept[key], recomputed[key]) for key in kept)


def test_activation_checkpointing_saves_fewer_activations(tiny_net, inputs):
    def saved_bytes(net: UNet) -> int:
        sizes: list[int] = []

        def pack(tensor: Tensor) -> Tensor:
            sizes.append(tensor.numel() * tensor.element_size())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            net(**inputs(net, frames=4))
        return sum(sizes)

    net = tiny_net("base")
    all_kept = saved_bytes(net)
    net.set_activation_checkpointing(True)
    assert saved_bytes(net) < all_kept / 4


@pytest.mark.parametrize("stage", STAGES)
def test_channels_last_gives_the_same_numbers(stage, tiny_net, inputs):
    net = tiny_net(stage)
    arguments = inputs(net)
    with torch.no_grad():
        expected = net(**arguments)
        net.use_channels_last()
        got = net(**arguments)
    assert net.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    assert relative_error(got, expected) < 4e-6


def test_attention_in_slices_gives_the_same_numbers(tiny_net, inputs, monkeypatch):
    net = tiny_net("base")
    arguments = inputs(net)
    with torch.no_grad():
        expected = net(**arguments)
        monkeypatch.setattr(attention_module, "MAX_ATTENTION_ROWS", 7)
        assert relative_error(net(**arguments), expected) < 4e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("stage", STAGES)
def test_half_precision_stays_close_and_keeps_its_fp32_islands(stage, dtype, tiny_net, inputs):
    net = tiny_net(stage)
    arguments = inputs(net, frames=20)
    with torch.no_grad():
        expected = net(**arguments)
        frequencies = {k: v.clone() for k, v in net.state_dict().items() if k.endswith("freqs")}
        net.to(dtype)
        seen = []
        net.time_embedding.register_forward_hook(lambda _m, _a, out: seen.append(out.dtype))
        got = net(**arguments)
    assert relative_error(got, expected) < (0.06 if dtype == torch.bfloat16 else 0.01)
    assert got.dtype == torch.float32
    assert seen == [torch.float32]
    state = net.state_dict()
    assert all(torch.equal(state[key], value) for key, value in frequencies.items())


def test_autocast_keeps_the_time_embedding_in_fp32(tiny_net, inputs):
    net = tiny_net("super_resolution")
    arguments = inputs(net)
    seen = []
    net.time_embedding.register_forward_hook(lambda _m, _a, out: seen.append(out.clone()))
    with torch.no_grad():
        expected = net(**arguments)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = net(**arguments)
    assert torch.equal(seen[0], seen[1])
    assert relative_error(got, expected) < 0.06


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "shape", "tflop"),
    [
        ("base", (16, 40, 64), 8.11),
        ("interpolation", (61, 40, 64), 33.92),
        ("super_resolution", (8, 320, 512), 142.05),
    ],
)
def test_forward_costs_what_the_official_network_costs(stage, shape, tflop):
    """Counted on the meta device; projecting a text once, not once a frame, saves 1 %."""
    config: UNetConfig = FULL[stage]()
    with torch.device("meta"):
        net = UNet(config)
        arguments = {
            "sample_BCTHW": torch.empty(1, config.in_channels, *shape),
            "timestep_B": torch.zeros(1),
            "text_BLD": torch.empty(1, 77, config.cross_attention_dim),
        }
        if config.takes_noise_level:
            arguments["noise_level_B"] = torch.zeros(1, dtype=torch.long)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(**arguments)
    assert counter.get_total_flops() / 1e12 == pytest.approx(tflop, rel=0.02)


def test_only_the_weights_of_the_sizes_asked_for_are_made(tiny_config):
    config = replace(tiny_config("base"), layers_per_block=2)
    with torch.device("meta"):
        net = UNet(config)
    assert len(net.down_blocks[0].resnets) == 2
    assert len(net.up_blocks[0].resnets) == 3
