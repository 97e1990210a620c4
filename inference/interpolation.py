"""The interpolation pipeline: sixteen frames become sixty-one.

Shape letters: B samples, K key frames, T = 4 (K - 1) + 1 frames, C channels, h w latents, L text
tokens, D text width.
"""

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from inference.arguments import check_choice, check_generators, negative_list, prompt_list
from inference.diffusers_names import randn_tensor
from inference.frames import Frames, resized, video_tensor
from inference.pipeline import (
    OUTPUT_TYPES,
    Generators,
    Loop,
    OutputType,
    StepCallback,
    VideoOutput,
    VideoPipeline,
)
from inference.settings import MAX_KEY_FRAMES
from inference.tiles import Tiling, blend
from training.models.schedule import Stage

FRAMES_PER_KEY = 4
PROMPT_SUFFIX = ", 4k."
"""The release appends it to every prompt of this stage."""


def num_frames_of(num_keys: int) -> int:
    """T for K key frames: three new ones between neighbours."""
    return FRAMES_PER_KEY * (num_keys - 1) + 1


def key_of_frame(num_keys: int, device: torch.device | None = None) -> Tensor:
    """Which key frame conditions each frame: (j + 1) // 4 for frame j, int64 ``[T]``.

    The release encodes every key frame four times, drops the first and the last two of the 4 K and
    so shifts the groups by one.
    """
    return (torch.arange(num_frames_of(num_keys), device=device) + 1) // FRAMES_PER_KEY


class InterpolationPipeline(VideoPipeline):
    """LaVie's temporal interpolation network (arXiv 2309.15103, section 3.3).

    All frames are sampled anew, the key frames too. Only the key frames are encoded, not each of
    them four times.
    """

    stage: ClassVar[Stage] = "interpolation"
    negative_first: ClassVar[bool] = False
    default_negative: ClassVar[str] = "None"

    @torch.no_grad()
    def __call__(  # noqa: PLR0913 - the arguments that users of diffusers expect
        self,
        prompt: str | Sequence[str],
        video: Frames,
        *,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 50,
        guidance_scale: float = 4.0,
        negative_prompt: str | Sequence[str] | None = None,
        prompt_suffix: str = PROMPT_SUFFIX,
        generator: Generators = None,
        windows: Tiling | None = None,
        output_type: OutputType = "pil",
        callback_on_step_end: StepCallback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> VideoOutput:
        """Sample videos of four times the frame rate.

        Args:
            prompt: What the video shows, one or a list.
            video: Key frames, one video a prompt; see `inference.frames.Frames`.
            height: To scale to first; by default the video's own, a multiple of 8.
            width: To scale to first.
            num_inference_steps: Calls of the network.
            guidance_scale: Weight of the prompt against the negative prompt.
            negative_prompt: What to move away from; the word "None" by default, which stood for
                dropped captions in training.
            prompt_suffix: Appended to every prompt.
            generator: One for all, or a list of one a video.
            windows: Overlapping stretches of frames, for more than 16 key frames.
            output_type: Form of the frames; see `VideoOutput`.
            callback_on_step_end: See diffusers.
            callback_on_step_end_tensor_inputs: "latents", or nothing.

        Raises:
            ValueError: An argument is out of its range; nothing has been computed.
        """
        loop = Loop(
            num_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            generator=generator,
            callback=callback_on_step_end,
            callback_tensors=tuple(callback_on_step_end_tensor_inputs),
        )
        prompts = [each + prompt_suffix for each in prompt_list(prompt, 1)]
        negatives = negative_list(negative_prompt, self.default_negative, prompts, 1)
        check_choice("output_type", output_type, OUTPUT_TYPES)
        keys_BCKHW = resized(video_tensor(video), height, width)
        self._check_keys(keys_BCKHW, len(prompts), windows)
        check_generators(generator, len(prompts))

        text = self._text_states(prompts, negatives, guided=loop.guided)
        condition = self._condition(keys_BCKHW, generator)
        noise = randn_tensor(
            tuple(condition.shape),
            generator=generator,
            device=self._execution_device,
            dtype=self.unet.dtype,
        ).to(self.latents_dtype)
        predict = partial(
            self._predict, condition=condition, text=text, scale=guidance_scale, windows=windows
        )
        clean = self._denoise(noise, predict, loop)
        output = self._output(clean, output_type)
        self.maybe_free_model_hooks()
        return output

    def _check_keys(self, keys_BCKHW: Tensor, num_prompts: int, windows: Tiling | None) -> None:
        num_videos, num_keys = keys_BCKHW.shape[0], keys_BCKHW.shape[2]
        if num_videos != num_prompts:
            raise ValueError(
                f"video must hold one video a prompt, got {num_videos} for {num_prompts} prompts"
            )
        if num_keys < 2 or (num_keys > MAX_KEY_FRAMES and windows is None):
            raise ValueError(
                f"video must have 2 to {MAX_KEY_FRAMES} frames without windows, got {num_keys}"
            )

    def _condition(self, keys_BCKHW: Tensor, generator: Generators) -> Tensor:
        """Latents of the key frame of every frame, ``[B, 4, T, h, w]``.

        A sample of each key frame's posterior. The noise is drawn as the release draws it, for T
        frames of which every fourth is kept: drawing costs nothing, encoding does.
        """
        device = self._execution_device
        autoencoder = self.autoencoder
        mean, std = autoencoder.encode_moments(keys_BCKHW.to(device))
        batch, channels, num_keys, *size = mean.shape
        frames = num_frames_of(num_keys)
        drawn = randn_tensor(
            (batch, frames, channels, *size), generator=generator, device=device, dtype=mean.dtype
        )
        noise = drawn[:, ::FRAMES_PER_KEY].transpose(1, 2)
        latents = autoencoder.scale * (mean + std * noise)
        every = key_of_frame(num_keys, latents.device)
        return latents.index_select(2, every).to(self.latents_dtype)

    def _predict(
        self,
        sample_BCTHW: Tensor,
        timestep: Tensor,
        *,
        condition: Tensor,
        text: Tensor,
        scale: float,
        windows: Tiling | None,
    ) -> Tensor:
        both = torch.cat([sample_BCTHW, condition], dim=1)
        if windows is None:
            return self._guided(both, timestep, text, scale)
        return blend(
            lambda tile: self._guided(tile.of(both), timestep, text, scale),
            windows.tiles(*sample_BCTHW.shape[2:]),
            sample_BCTHW.shape,
            sample_BCTHW,
        )
