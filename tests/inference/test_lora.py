"""LoRA, against networks whose weights were merged by the formula W + s (alpha / r) B A."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from inference.text_to_video import LaViePipeline
from inference.tiny import tiny_model

BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0"
TARGETS = (
    f"{BLOCK}.attn1.to_q",
    f"{BLOCK}.attn2.to_out.0",
    f"{BLOCK}.ff.net.0.proj",
    "mid_block.attentions.0.proj_in",  # a convolution that works on tokens
    "up_blocks.1.resnets.0.conv1",  # 3x3
    "up_blocks.1.resnets.0.time_emb_proj",
    "time_embedding.linear_1",  # computes in fp32, whatever the format
    "time_embedding.linear_2",
    "conv_in",
    "conv_out",
)
TOWER = "encoder.layers.1.self_attn.v_proj"
Factors = dict[str, tuple[Tensor, Tensor]]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def untouched() -> LaViePipeline:
    pipeline = LaViePipeline.from_model(tiny_model("base"))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def pipeline(untouched: LaViePipeline) -> LaViePipeline:
    return copy.deepcopy(untouched)


def sample(pipeline: LaViePipeline) -> Tensor:
    """Latents after two steps."""
    return pipeline(
        "a cat",
        height=16,
        width=24,
        num_frames=2,
        num_inference_steps=2,
        output_type="latent",
        generator=torch.Generator().manual_seed(0),
    ).frames


def factors(model: torch.nn.Module, names: tuple[str, ...], *, rank: int, seed: int = 1) -> Factors:
    """A and B for some modules, large enough to change what is sampled."""
    generator = torch.Generator().manual_seed(seed)
    modules = dict(model.named_modules())
    drawn: Factors = {}
    for name in names:
        weight = modules[name].weight
        down = torch.randn(rank, *weight.shape[1:], generator=generator)
        up = torch.randn(weight.shape[0], rank, *(1,) * (weight.ndim - 2), generator=generator)
        drawn[name] = (0.2 * down, 0.2 * up)
    return drawn


def merge(model: torch.nn.Module, drawn: Factors, scale: float) -> None:
    """W + scale B A, convolutions as matrices: B is 1x1, so the product runs over the rank."""
    modules = dict(model.named_modules())
    for name, (down, up) in drawn.items():
        delta = up.flatten(1) @ down.flatten(1)
        modules[name].weight.data += scale * delta.view_as(modules[name].weight)


def modern(drawn: Mapping[str, tuple[Tensor, Tensor]], prefix: str) -> dict[str, Tensor]:
    state = {}
    for name, (down, up) in drawn.items():
        state[f"{prefix}.{name}.lora_A.weight"] = down
        state[f"{prefix}.{name}.lora_B.weight"] = up
    return state


@pytest.fixture
def merged(untouched: LaViePipeline) -> Callable[..., Tensor]:
    """What a pipeline samples whose weights were merged: ``merged([(factors, scale)], text=[])``."""

    def run(
        unet: list[tuple[Factors, float]], text: list[tuple[Factors, float]] | None = None
    ) -> Tensor:
        pipeline = copy.deepcopy(untouched)
        for drawn, scale in unet:
            merge(pipeline.unet, drawn, scale)
        for drawn, scale in text or []:
            merge(pipeline.text_encoder, drawn, scale)
        return sample(pipeline)

    return run


def close(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_a_lora_samples_what_merged_weights_sample(pipeline, merged, tmp_path: Path) -> None:
    before = sample(pipeline)
    drawn = factors(pipeline.unet, TARGETS, rank=3)
    save_file(modern(drawn, "unet"), tmp_path / "pytorch_lora_weights.safetensors")
    pipeline.load_lora_weights(tmp_path)
    got = sample(pipeline)
    close(got, merged([(drawn, 1.0)]))
    assert (got - before).abs().max() > 0.1 * before.abs().max()


def test_several_loras_add_up_with_their_weights(pipeline, merged, tmp_path: Path) -> None:
    first = factors(pipeline.unet, TARGETS[:4], rank=2, seed=1)
    second = factors(pipeline.unet, TARGETS[2:], rank=5, seed=2)
    for name, drawn in (("cat", first), ("style", second)):
        save_file(modern(drawn, "unet"), tmp_path / f"{name}.safetensors")
        pipeline.load_lora_weights(tmp_path / f"{name}.safetensors", name)
    close(sample(pipeline), merged([(first, 1.0), (second, 1.0)]))
    pipeline.set_adapters(["style", "cat"], [0.7, -0.5])
    close(sample(pipeline), merged([(first, -0.5), (second, 0.7)]))
    pipeline.set_adapters("cat")
    close(sample(pipeline), merged([(first, 1.0)]))
    assert pipeline.lora_weights == {"cat": 1.0, "style": 0.0}
    pipeline.delete_adapters("cat")
    pipeline.set_adapters("style", 0.3)
    close(sample(pipeline), merged([(second, 0.3)]))


def test_without_its_loras_a_pipeline_is_what_it_was(pipeline, tmp_path: Path) -> None:
    before, keys = sample(pipeline), list(pipeline.unet.state_dict())
    save_file(modern(factors(pipeline.unet, TARGETS, rank=3), "unet"), tmp_path / "a.safetensors")
    pipeline.load_lora_weights(tmp_path / "a.safetensors", "a")
    pipeline.set_adapters("a", 0.0)
    torch.testing.assert_close(sample(pipeline), before, rtol=0, atol=0)
    pipeline.unload_lora_weights()
    torch.testing.assert_close(sample(pipeline), before, rtol=0, atol=0)
    assert list(pipeline.unet.state_dict()) == keys
    pipeline.load_lora_weights(tmp_path / "a.safetensors", "a")
    assert pipeline.lora_weights == {"a": 1.0}


OLD_NAMES = {"to_q": "processor.to_q_lora", "to_out.0": "processor.to_out_lora"}


@pytest.mark.parametrize("form", ["processor", "lora.down", "without prefix"])
def test_older_forms_of_the_keys_mean_the_same(pipeline, merged, tmp_path, form: str) -> None:
    drawn = factors(pipeline.unet, TARGETS[:2], rank=2)
    state = {}
    for name, (down, up) in drawn.items():
        stem = f"{name}.lora"
        if form != "lora.down":
            short = next(end for end in OLD_NAMES if name.endswith(end))
            stem = name.removesuffix(short) + OLD_NAMES[short]
        prefix = "" if form == "without prefix" else "unet."
        state |= {f"{prefix}{stem}.down.weight": down, f"{prefix}{stem}.up.weight": up}
    save_file(state, tmp_path / "old.safetensors")
    pipeline.load_lora_weights(tmp_path / "old.safetensors")
    close(sample(pipeline), merged([(drawn, 1.0)]))


def test_kohyas_form_is_read_with_its_alphas(pipeline, merged, tmp_path: Path) -> None:
    drawn = factors(pipeline.unet, (TARGETS[0], TARGETS[3]), rank=4)
    text = factors(pipeline.text_encoder, (TOWER,), rank=2)
    state = {}
    for prefix, pairs, alpha in (("lora_unet_", drawn, 2.0), ("lora_te_text_model_", text, 3.0)):
        for name, (down, up) in pairs.items():
            stem = prefix + name.replace(".", "_")
            state |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
            state[f"{stem}.alpha"] = torch.tensor(alpha)
    save_file(state, tmp_path / "kohya.safetensors")
    pipeline.load_lora_weights(tmp_path / "kohya.safetensors")
    close(sample(pipeline), merged([(drawn, 2 / 4)], [(text, 3 / 2)]))


@pytest.mark.parametrize("prefix", ["base_model.model.", "unet.base_model.model.", "unet."])
@pytest.mark.parametrize("adapter", ["", ".default"])
def test_pefts_own_names_mean_the_same(pipeline, merged, tmp_path, prefix, adapter) -> None:
    drawn = factors(pipeline.unet, (TARGETS[0], TARGETS[-1]), rank=2)
    state = {}
    for name, (down, up) in drawn.items():
        state[f"{prefix}{name}.lora_A{adapter}.weight"] = down
        state[f"{prefix}{name}.lora_B{adapter}.weight"] = up
    save_file(state, tmp_path / "peft.safetensors")
    pipeline.load_lora_weights(tmp_path / "peft.safetensors")
    close(sample(pipeline), merged([(drawn, 1.0)]))


def test_what_peft_saves_samples_as_its_own_model(pipeline, untouched, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    adapted = copy.deepcopy(untouched)
    config = LoraConfig(
        r=2,
        lora_alpha=5,
        target_modules=[*TARGETS[:3], "time_embedding.linear_1"],
        alpha_pattern={"ff.net.0.proj": 1},
        init_lora_weights=False,
    )
    get_peft_model(adapted.unet, config).save_pretrained(str(tmp_path))
    pipeline.load_lora_weights(tmp_path)
    close(sample(pipeline), sample(adapted))
    assert (sample(pipeline) - sample(untouched)).abs().max() > 1e-3


def test_two_adapters_in_one_file_are_refused(pipeline, tmp_path: Path) -> None:
    drawn = factors(pipeline.unet, TARGETS[:1], rank=2)
    state = {
        f"unet.{name}.lora_{factor}.{adapter}.weight": tensor.clone()
        for name, pair in drawn.items()
        for factor, tensor in zip("AB", pair, strict=True)
        for adapter in ("cat", "dog")
    }
    save_file(state, tmp_path / "two.safetensors")
    with pytest.raises(ValueError, match="must hold one adapter, it holds cat, dog"):
        pipeline.load_lora_weights(tmp_path / "two.safetensors")


@pytest.mark.parametrize("more", ["dora_scale", "hada_w1_a", "lokr_w1", "lora_mid.weight"])
def test_kohyas_other_kinds_are_refused_before_anything_is_dropped(
    pipeline, tmp_path: Path, more: str
) -> None:
    drawn = factors(pipeline.unet, TARGETS[:1], rank=2)
    ((name, (down, up)),) = drawn.items()
    stem = "lora_unet_" + name.replace(".", "_")
    state = {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
    save_file(state | {f"{stem}.{more}": torch.ones(2, 1)}, tmp_path / "kind.safetensors")
    with pytest.raises(ValueError, match=rf"no plain LoRA:\n  unknown {stem}\.{more}"):
        pipeline.load_lora_weights(tmp_path / "kind.safetensors")


@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_factors_that_are_not_finite_are_refused(pipeline, tmp_path: Path, odd: float) -> None:
    drawn = factors(pipeline.unet, TARGETS[:1], rank=2)
    drawn[TARGETS[0]][1][3, 1] = odd
    save_file(modern(drawn, "unet"), tmp_path / "odd.safetensors")
    with pytest.raises(
        ValueError, match=rf"finite numbers.*\n  unet.{TARGETS[0]}.lora_B.weight: 1"
    ):
        pipeline.load_lora_weights(tmp_path / "odd.safetensors")


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ({"peft_type": "LORA", "use_dora": True}, "DoRA"),
        ({"peft_type": "LOHA"}, "must be of peft_type LORA, got LOHA"),
        ({"peft_type": "LORA", "lora_alpha": "four"}, "numbers as alphas, got 'four'"),
        ([], "must be of peft_type LORA, got list"),
    ],
)
def test_peft_settings_of_another_kind_are_refused(pipeline, tmp_path, held, message) -> None:
    drawn = factors(pipeline.unet, TARGETS[:1], rank=2)
    save_file(modern(drawn, "unet"), tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps(held))
    with pytest.raises(ValueError, match=message):
        pipeline.load_lora_weights(tmp_path)


def test_alphas_of_the_files_metadata_scale_the_lora(pipeline, merged, tmp_path: Path) -> None:
    drawn = factors(pipeline.unet, TARGETS[:3], rank=4)
    held = {"unet.r": 4, "unet.lora_alpha": 8, "unet.alpha_pattern": {TARGETS[1]: 1}}
    metadata = {"format": "pt", "lora_adapter_metadata": json.dumps(held)}
    save_file(modern(drawn, "unet"), tmp_path / "m.safetensors", metadata=metadata)
    pipeline.load_lora_weights(tmp_path / "m.safetensors")
    one = {TARGETS[1]: drawn.pop(TARGETS[1])}
    close(sample(pipeline), merged([(drawn, 2.0), (one, 0.25)]))


@pytest.mark.parametrize("prefix", ["text_encoder", "text_encoder.text_model"])
def test_a_text_towers_part_acts_on_the_text(pipeline, merged, tmp_path, prefix: str) -> None:
    drawn = factors(pipeline.unet, TARGETS[:1], rank=2)
    text = factors(pipeline.text_encoder, (TOWER,), rank=2)
    state = modern(drawn, "unet")
    for name, (down, up) in text.items():
        stem = f"{prefix}.{name}.lora_linear_layer"
        state |= {f"{stem}.down.weight": down, f"{stem}.up.weight": up}
    save_file(state, tmp_path / "both.safetensors")
    before = sample(pipeline)
    pipeline.load_lora_weights(tmp_path / "both.safetensors", "both")
    close(sample(pipeline), merged([(drawn, 1.0)], [(text, 1.0)]))
    pipeline.set_adapters("both", 0.4)
    close(sample(pipeline), merged([(drawn, 0.4)], [(text, 0.4)]))
    pipeline.unload_lora_weights()
    torch.testing.assert_close(sample(pipeline), before, rtol=0, atol=0)


def test_a_half_precision_network_takes_a_lora_in_its_own_format(pipeline, tmp_path: Path) -> None:
    save_file(modern(factors(pipeline.unet, TARGETS, rank=3), "unet"), tmp_path / "a.safetensors")
    pipeline.to(torch.bfloat16).load_lora_weights(tmp_path / "a.safetensors")
    assert {parameter.dtype for parameter in pipeline.unet.parameters()} == {torch.bfloat16}
    assert not any(parameter.requires_grad for parameter in pipeline.unet.parameters())
    assert sample(pipeline).isfinite().all()


def test_a_lora_for_another_network_is_refused_with_its_keys(pipeline, tmp_path: Path) -> None:
    drawn = factors(pipeline.unet, TARGETS[:1], rank=2)
    ((name, (down, up)),) = drawn.items()
    state = modern({name: (down[:, :-1].contiguous(), up)}, "unet")
    state |= modern({"down_blocks.7.attn1.to_q": (down, up.clone())}, "unet")
    save_file(state, tmp_path / "wrong.safetensors")
    before = list(pipeline.unet.state_dict())
    with pytest.raises(ValueError, match="does not fit UNet") as caught:
        pipeline.load_lora_weights(tmp_path / "wrong.safetensors")
    assert f"{name}: shapes (2, 31) and (32, 2), expected (2, 32) and (32, 2)" in str(caught.value)
    assert "down_blocks.7.attn1.to_q: there is no such module" in str(caught.value)
    assert list(pipeline.unet.state_dict()) == before
    assert pipeline.lora_weights == {}


def test_a_lora_that_fits_the_network_but_not_the_text_tower_changes_nothing(
    pipeline, tmp_path: Path
) -> None:
    state = modern(factors(pipeline.unet, TARGETS[:1], rank=2), "unet")
    state |= modern(
        {"encoder.layers.9.mlp.fc1": (torch.ones(1, 2), torch.ones(2, 1))}, "text_encoder"
    )
    save_file(state, tmp_path / "wrong.safetensors")
    before = list(pipeline.unet.state_dict())
    with pytest.raises(ValueError, match=r"encoder\.layers\.9\.mlp\.fc1: there is no such module"):
        pipeline.load_lora_weights(tmp_path / "wrong.safetensors")
    assert list(pipeline.unet.state_dict()) == before


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (
            "text_encoder_2.encoder.layers.0.self_attn.q_proj.lora_A.weight",
            "unknown text_encoder_2",
        ),
        (f"unet.{TARGETS[0]}.lora_magnitude_vector", "unknown unet.*lora_magnitude_vector"),
        (f"unet.{BLOCK}.attn_temp.to_q.lora_A.weight", "a temporal layer"),
        (f"unet.{TARGETS[0]}.lora_A.weight", "lora_B is missing"),
        ("unet.conv_norm_out.lora_A.weight", "GroupNorm takes no LoRA"),
    ],
    ids=["second tower", "dora", "temporal", "half", "norm"],
)
def test_a_key_that_means_nothing_here_is_named(pipeline, tmp_path, key: str, message: str) -> None:
    save_file({key: torch.zeros(2, 40)}, tmp_path / "wrong.safetensors")
    with pytest.raises(ValueError, match=message):
        pipeline.load_lora_weights(tmp_path / "wrong.safetensors")


def test_names_of_loras_are_new_and_plain(pipeline, tmp_path: Path) -> None:
    save_file(
        modern(factors(pipeline.unet, TARGETS[:1], rank=1), "unet"), tmp_path / "a.safetensors"
    )
    assert pipeline.load_lora_weights(tmp_path / "a.safetensors") == "lora_0"
    with pytest.raises(ValueError, match="must be new, 'lora_0' is loaded"):
        pipeline.load_lora_weights(tmp_path / "a.safetensors", "lora_0")
    with pytest.raises(ValueError, match="letters, digits"):
        pipeline.load_lora_weights(tmp_path / "a.safetensors", "a.b")
    with pytest.raises(ValueError, match=r"must be loaded \(\['lora_0'\]\), got \['b'\]"):
        pipeline.set_adapters("b")


def test_a_pipeline_with_a_lora_is_not_saved_as_a_model(pipeline, tmp_path: Path) -> None:
    save_file(
        modern(factors(pipeline.unet, TARGETS[:1], rank=1), "unet"), tmp_path / "a.safetensors"
    )
    pipeline.load_lora_weights(tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="unload the LoRAs before saving"):
        pipeline.save_pretrained(tmp_path / "model")
    pipeline.unload_lora_weights()
    pipeline.save_pretrained(tmp_path / "model")
    assert (tmp_path / "model" / "config.json").is_file()


def test_a_pickle_that_would_run_something_is_not_run(pipeline, tmp_path: Path) -> None:
    import pickle

    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    (tmp_path / "trap.bin").write_bytes(pickle.dumps({"unet.a": Trap()}))
    with pytest.raises(ValueError, match="not a checkpoint of plain tensors"):
        pipeline.load_lora_weights(tmp_path / "trap.bin")
    assert not (tmp_path / "sprung").exists()


def test_what_training_saves_samples_as_it_was_trained(pipeline, untouched, tmp_path: Path) -> None:
    from training.lora import adapter_tensors, add_adapters, save_adapters
    from training.run_config import LoraConfig

    config = LoraConfig(rank=2, alpha=6)
    trained = copy.deepcopy(untouched)
    add_adapters(trained.unet, config, seed=0)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in trained.unet.named_parameters():
        if ".lora_B" in name:
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    save_adapters(adapter_tensors(trained.unet), tmp_path, config, trained.objective)
    pipeline.load_lora_weights(tmp_path)
    close(sample(pipeline), sample(trained))


def test_a_lora_of_stable_diffusion_fits_the_released_base_network() -> None:
    # The 128 attention projections that diffusers' LoRA scripts train: 16 transformers, attn1 and
    # attn2, four projections; widths 320, 640, 1280, text 768.
    from inference.lora import check_lora
    from inference.lora_file import LoraModule
    from training.models.unet import UNet
    from training.models.unet_config import UNetConfig

    with torch.device("meta"):
        net = UNet(UNetConfig.base())
        places = [
            (f"{part}_blocks.{level}.attentions.{i}", width)
            for part, levels, count in (("down", (0, 1, 2), 2), ("up", (3, 2, 1), 3))
            for level, width in zip(levels, (320, 640, 1280), strict=True)
            for i in range(count)
        ]
        modules = {}
        for place, width in [*places, ("mid_block.attentions.0", 1280)]:
            for attention in ("attn1", "attn2"):
                for name in ("to_q", "to_k", "to_v", "to_out.0"):
                    reads_text = attention == "attn2" and name in ("to_k", "to_v")
                    modules[f"{place}.transformer_blocks.0.{attention}.{name}"] = LoraModule(
                        down=torch.empty(4, 768 if reads_text else width),
                        up=torch.empty(width, 4),
                    )
    assert len(modules) == 128
    check_lora(net, modules, "a LoRA of Stable Diffusion")
