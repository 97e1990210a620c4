"""The base pipeline: guidance and steps by hand, determinism, diffusers' interface, bad input."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from curation.errors import NotFinite
from inference.text_to_video import LaViePipeline
from inference.tiles import Tiling
from inference.tiny import tiny_model

SMALL = {"height": 32, "width": 48, "num_frames": 3, "num_inference_steps": 4}
A = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))  # alpha_bar of LaVie's schedule


def latents_of(pipeline, prompt="a panda", **arguments):
    return pipeline(prompt, **(SMALL | {"output_type": "latent"} | arguments)).frames


def text(pipeline, *prompts):
    tokens = pipeline.tokenizer(
        list(prompts), padding="max_length", max_length=77, return_tensors="pt"
    )
    return pipeline.text_encoder(tokens.input_ids).last_hidden_state.detach()


@torch.no_grad()
def test_ddpm_sampling_is_the_equations_step_by_step(tiny_pipeline, recorded, seeded):
    pipeline = tiny_pipeline("base")
    _, latents, times = recorded(
        pipeline, "a panda", generator=seeded(5), output_type="latent", guidance_scale=7.5, **SMALL
    )
    assert times == [750, 500, 250, 0]
    draws = seeded(5)
    x = torch.randn(1, 4, 3, 4, 6, generator=draws)
    negative, positive = text(pipeline, ""), text(pipeline, "a panda")
    for t, after in zip((750, 500, 250, 0), latents, strict=True):
        time = torch.tensor([t])
        uncond = pipeline.unet(x, time, negative).double().numpy()
        cond = pipeline.unet(x, time, positive).double().numpy()
        eps = uncond + 7.5 * (cond - uncond)
        z = torch.randn(x.shape, generator=draws).double().numpy() if t > 0 else 0.0
        now = x.double().numpy()
        a, a_prev = A[t], A[t - 250] if t else 1.0
        beta = 1 - a / a_prev
        x0 = (now - np.sqrt(1 - a) * eps) / np.sqrt(a)
        mean = np.sqrt(a_prev) * beta / (1 - a) * x0
        mean += np.sqrt(a / a_prev) * (1 - a_prev) / (1 - a) * now
        expected = mean + np.sqrt((1 - a_prev) / (1 - a) * beta) * z
        assert np.abs(after.numpy() - expected).max() < 1e-4 * np.abs(expected).max()
        x = after


def test_negative_rows_come_first(tiny_pipeline):
    pipeline = tiny_pipeline("base")
    seen = []
    pipeline.unet.register_forward_pre_hook(lambda _m, args: seen.append(args[2].clone()))
    latents_of(pipeline, num_inference_steps=1)
    assert torch.allclose(seen[0], text(pipeline, "", "a panda"), atol=1e-6)


def test_without_guidance_the_network_is_called_for_the_prompt_alone(tiny_pipeline):
    pipeline = tiny_pipeline("base")
    seen = []
    pipeline.unet.register_forward_pre_hook(lambda _m, args: seen.append(args[0].shape[0]))
    latents_of(pipeline, guidance_scale=1.0)
    assert seen == [1] * 4


def test_split_guidance_gives_the_same_latents(tiny_pipeline, seeded):
    pipeline = tiny_pipeline("base")
    together = latents_of(pipeline, generator=seeded(1))
    pipeline.enable_guidance_splitting()
    assert torch.allclose(latents_of(pipeline, generator=seeded(1)), together, atol=2e-3)


def test_a_seed_decides_the_video(tiny_pipeline, seeded):
    pipeline = tiny_pipeline("base")
    first, again, other = (latents_of(pipeline, generator=seeded(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=0.1)
    assert not torch.allclose(latents_of(pipeline, "snow", generator=seeded(1)), first, atol=1e-3)


def test_a_video_with_its_own_generator_does_not_depend_on_its_neighbours(tiny_pipeline, seeded):
    pipeline = tiny_pipeline("base")
    batch = latents_of(
        pipeline,
        ["a panda", "snow"],
        num_videos_per_prompt=2,
        generator=[seeded(s) for s in (1, 2, 3, 4)],
    )
    alone = latents_of(pipeline, "snow", generator=seeded(3))
    assert batch.shape[0] == 4
    assert torch.allclose(batch[2:3], alone, atol=2e-3)


def test_each_prompt_may_have_its_negative(tiny_pipeline, seeded):
    pipeline = tiny_pipeline("base")
    both = latents_of(
        pipeline,
        ["a panda", "snow"],
        negative_prompt=["blurred", "text"],
        generator=[seeded(1), seeded(2)],
    )
    alone = latents_of(pipeline, "snow", negative_prompt="text", generator=seeded(2))
    assert torch.allclose(both[1:], alone, atol=2e-3)


def test_all_forms_of_output_show_the_same_frames(tiny_pipeline, seeded):
    pipeline = tiny_pipeline("base")
    forms = {
        form: pipeline("a panda", output_type=form, generator=seeded(1), **SMALL).frames
        for form in ("latent", "pt", "np", "pil")
    }
    assert forms["latent"].shape == (1, 4, 3, 4, 6)
    assert forms["pt"].shape == (1, 3, 3, 32, 48)
    assert np.array_equal(forms["np"][0], forms["pt"][0].permute(0, 2, 3, 1).numpy())
    nearest = np.floor(forms["np"][0] * 255 + 0.5)
    assert np.array_equal(np.stack([np.asarray(f) for f in forms["pil"][0]]), nearest)
    pixels = pipeline.vae.decode(forms["latent"][:, :, 1] / 0.18215).sample.detach()
    assert torch.allclose(forms["pt"][:, 1], (pixels / 2 + 0.5).clamp(0, 1), atol=1e-5)


def test_slicing_the_autoencoder_leaves_the_frames(tiny_pipeline, seeded):
    pipeline = tiny_pipeline("base")
    whole = pipeline("a panda", output_type="pt", generator=seeded(1), **SMALL).frames
    pipeline.enable_vae_slicing()
    sliced = pipeline("a panda", output_type="pt", generator=seeded(1), **SMALL).frames
    assert torch.allclose(whole, sliced, atol=1e-5)


def test_tiling_the_autoencoder_changes_little(tiny_pipeline, seeded):
    pipeline = tiny_pipeline("base")
    large = SMALL | {"height": 96, "width": 96, "num_frames": 1}
    whole = pipeline("a panda", output_type="pt", generator=seeded(1), **large).frames
    pipeline.enable_vae_tiling()
    tiled = pipeline("a panda", output_type="pt", generator=seeded(1), **large).frames
    assert not torch.equal(whole, tiled)
    assert (whole - tiled).abs().mean() < 0.1


def test_a_pipeline_comes_back_from_its_folder(tiny_pipeline, seeded, tmp_path):
    pipeline = tiny_pipeline("base")
    pipeline.save_pretrained(tmp_path / "model")
    back = LaViePipeline.from_pretrained(tmp_path / "model", scheduler="ddim")
    again = LaViePipeline.from_pretrained(tmp_path / "model")
    assert type(back.scheduler).__name__ == "DDIMScheduler"
    assert torch.equal(
        latents_of(again, generator=seeded(1)), latents_of(pipeline, generator=seeded(1))
    )
    assert back.objective == pipeline.objective


def test_another_objective_than_the_expected_one_is_refused(tiny_pipeline, tmp_path):
    pipeline = tiny_pipeline("base")
    pipeline.save_pretrained(tmp_path / "model")
    wish = replace(pipeline.objective, prediction="velocity")
    with pytest.raises(ValueError, match="prediction is epsilon, expected velocity"):
        LaViePipeline.from_pretrained(tmp_path / "model", objective=wish)


def test_a_model_of_another_stage_is_refused(tiny_pipeline, tmp_path):
    tiny_pipeline("interpolation").save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="LaViePipeline samples from base weights"):
        LaViePipeline.from_pretrained(tmp_path / "model")


def test_a_model_without_companions_is_refused():
    bare = replace(tiny_model("base"), autoencoder=None)
    with pytest.raises(ValueError, match="vae/ is missing"):
        LaViePipeline.from_model(bare)


def test_components_go_into_another_pipeline(tiny_pipeline, seeded):
    pipeline = tiny_pipeline("base")
    other = LaViePipeline(**pipeline.components, objective=pipeline.objective)
    assert torch.equal(
        latents_of(other, generator=seeded(1)), latents_of(pipeline, generator=seeded(1))
    )


def test_a_cast_pipeline_samples_in_its_dtype(tiny_pipeline, seeded):
    pipeline = tiny_pipeline("base").to(torch.bfloat16)
    latents = latents_of(pipeline, generator=seeded(1))
    assert (pipeline.unet.dtype, pipeline.vae.dtype) == (torch.bfloat16, torch.bfloat16)
    assert latents.dtype == torch.float32  # 8 bits would lose the last steps
    exact = latents_of(tiny_pipeline("base"), latents=torch.zeros(1, 4, 3, 4, 6))
    assert torch.isfinite(latents).all()
    assert exact.dtype == torch.float32


@pytest.mark.parametrize(
    ("component", "weight", "message"),
    [
        ("unet", "conv_out.bias", r"base, step 1 of 2: \d+ of 288 numbers.*conv_out\.bias"),
        ("vae", "decoder.conv_out.bias", r"base, decoded frames: .*first is decoder\.conv_out"),
        ("text_encoder", "final_layer_norm.bias", r"base, text states of the prompt: .*norm\.bias"),
    ],
)
def test_weights_that_are_no_numbers_stop_the_sample(tiny_pipeline, component, weight, message):
    pipeline = tiny_pipeline("base")
    held = dict(getattr(pipeline, component).named_parameters())
    found = next(each for name, each in held.items() if name.endswith(weight))
    found.data[0] = torch.nan
    with pytest.raises(NotFinite, match=message):
        pipeline("a", height=32, width=48, num_frames=3, num_inference_steps=2)


def test_weights_too_large_for_half_precision_are_told_from_broken_ones(tiny_pipeline):
    pipeline = tiny_pipeline("base")
    pipeline.unet.conv_out.weight.data *= 1e6
    pipeline.to(torch.float16)
    pipeline.unet.conv_out.weight.data.clamp_(-6e4, 6e4)
    with pytest.raises(NotFinite, match=r"weights of UNet are finite, but fp16 ends at 65504"):
        pipeline("a", height=32, width=48, num_frames=3, num_inference_steps=2)


def test_a_callback_sees_and_replaces_the_latents(tiny_pipeline, seeded):
    pipeline = tiny_pipeline("base")
    steps = []

    def wipe(_pipe, step, _time, tensors):
        steps.append(step)
        return {"latents": torch.zeros_like(tensors["latents"])}

    out = latents_of(pipeline, callback_on_step_end=wipe, generator=seeded(1))
    assert steps == [0, 1, 2, 3]
    assert not out.any()


def test_a_callback_may_interrupt(tiny_pipeline):
    pipeline = tiny_pipeline("base")
    steps = []

    def stop(pipe, step, _time, tensors):
        steps.append(step)
        pipe.interrupt = True
        return tensors

    latents_of(pipeline, callback_on_step_end=stop)
    assert steps == [0]


def test_models_can_wait_on_the_cpu(tiny_pipeline, seeded):
    # with the CPU as accelerator: the hooks of accelerate must find every model in the chain
    pipeline = tiny_pipeline("base")
    plain = pipeline("a panda", output_type="pt", generator=seeded(1), **SMALL).frames
    pipeline.enable_model_cpu_offload(device="cpu")
    hooked = pipeline("a panda", output_type="pt", generator=seeded(1), **SMALL).frames
    assert torch.equal(plain, hooked)
    assert len(pipeline._all_hooks) == 3


def test_one_window_is_the_plain_video(tiny_pipeline, seeded):
    pipeline = tiny_pipeline("base")
    windows = Tiling(frames=3, frame_overlap=1)
    assert torch.equal(
        latents_of(pipeline, generator=seeded(1), windows=windows),
        latents_of(pipeline, generator=seeded(1)),
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"height": 33}, "height and width must be positive multiples of 8, got 33x48"),
        ({"num_frames": 0}, "num_frames must be 1 to 32 without windows, got 0"),
        ({"num_frames": 33}, "num_frames must be 1 to 32 without windows, got 33"),
        ({"num_inference_steps": 0}, "num_inference_steps must be at least 1, got 0"),
        ({"num_videos_per_prompt": 0}, "num_videos_per_prompt must be at least 1, got 0"),
        ({"output_type": "gif"}, "output_type must be one of .* got 'gif'"),
        ({"negative_prompt": ["a", "b"]}, "negative_prompt must be one string or one for each"),
        ({"generator": [torch.Generator()] * 2}, "one for each of 1 videos, got 2"),
        ({"latents": torch.zeros(1, 4, 3, 4, 5)}, r"latents must have shape \(1, 4, 3, 4, 6\)"),
        ({"prompt": []}, "prompt must be a string or a list of strings"),
        (
            {"callback_on_step_end_tensor_inputs": ["noise"]},
            "may name latents only, got .'noise'.",
        ),
    ],
)
def test_bad_input_is_named_before_any_work(arguments, message, tiny_pipeline):
    pipeline = tiny_pipeline("base")
    pipeline.unet.register_forward_pre_hook(lambda *_: pytest.fail("the network was called"))
    with pytest.raises(ValueError, match=message):
        latents_of(pipeline, **arguments)
