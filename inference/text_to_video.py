"""The base pipeline: a prompt becomes sixteen frames, or a film of any length.

Shape letters: B samples, T frames, C channels, h w latents, L text tokens, D text width.
"""

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from inference.arguments import (
    check_choice,
    check_generators,
    check_size,
    negative_list,
    prompt_list,
)
from inference.diffusers_names import randn_tensor
from inference.personalised import Personalised
from inference.pipeline import (
    OUTPUT_TYPES,
    Generators,
    Loop,
    OutputType,
    StepCallback,
    VideoOutput,
    VideoPipeline,
)
from inference.settings import MAX_FRAMES
from inference.tiles import Tiling, blend
from training.models.schedule import Stage


class LaViePipeline(Personalised, VideoPipeline):
    """LaVie's base network: text to video (arXiv 2309.15103, section 3.2).

    A network with conditioning channels samples what follows given frames; see
    `inference.long_video.ContinuationPipeline`.
    """

    stage: ClassVar[Stage] = "base"

    @torch.no_grad()
    def __call__(  # noqa: PLR0913 - the arguments that users of diffusers expect
        self,
        prompt: str | Sequence[str],
        *,
        height: int = 320,
        width: int = 512,
        num_frames: int = 16,
        num_inference_steps: int = 50,
        guidance_scale: float = 7.5,
        negative_prompt: str | Sequence[str] | None = None,
        num_videos_per_prompt: int = 1,
        generator: Generators = None,
        latents: Tensor | None = None,
        windows: Tiling | None = None,
        output_type: OutputType = "pil",
        callback_on_step_end: StepCallback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> VideoOutput:
        """Sample one video or more.

        Args:
            prompt: What to show, one or a list.
            height: Of the frames in pixels, a multiple of 8.
            width: Of the frames in pixels, a multiple of 8.
            num_frames: Of each video; up to 32 at once, any number with ``windows``. LaVie learned
                on 16, played at 8 a second.
            num_inference_steps: Calls of the network.
            guidance_scale: Weight of the prompt against the negative prompt.
            negative_prompt: What to move away from; the empty prompt by default.
            num_videos_per_prompt: Videos of each prompt.
            generator: One for all, or a list of one a video: then a video does not depend on its
                neighbours in the batch.
            latents: Standard normal noise ``[B, 4, T, h, w]`` to start from, where it is not drawn.
            windows: Overlapping stretches of frames that are predicted one by one and blended, for
                videos longer than the network knows; `inference.long_video.sliding_windows`.
            output_type: Form of the frames; see `VideoOutput`.
            callback_on_step_end: See diffusers; ``pipeline.interrupt = True`` ends the loop.
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
        prompts = prompt_list(prompt, num_videos_per_prompt)
        negatives = negative_list(
            negative_prompt, self.default_negative, prompts, num_videos_per_prompt
        )
        check_choice("output_type", output_type, OUTPUT_TYPES)
        check_generators(generator, len(prompts))
        self._check_frames(height, width, num_frames, windows)
        space = self.autoencoder.latents
        scale = space.downsampling
        shape = (len(prompts), space.channels, num_frames, height // scale, width // scale)
        if latents is not None and tuple(latents.shape) != shape:
            raise ValueError(f"latents must have shape {shape}, got {tuple(latents.shape)}")

        text = self._text_states(prompts, negatives, guided=loop.guided)
        noise = self._noise(shape, generator) if latents is None else latents
        noise = noise.to(self._execution_device, self.latents_dtype)
        predict = partial(self._predict, text=text, scale=guidance_scale, windows=windows)
        clean = self._denoise(noise, predict, loop)
        output = self._output(clean, output_type)
        self.maybe_free_model_hooks()
        return output

    def _check_frames(
        self, height: int, width: int, num_frames: int, windows: Tiling | None
    ) -> None:
        check_size(height, width)
        if num_frames < 1 or (num_frames > MAX_FRAMES and windows is None):
            raise ValueError(
                f"num_frames must be 1 to {MAX_FRAMES} without windows, got {num_frames}"
            )
        if windows is not None and windows.frames > MAX_FRAMES:
            raise ValueError(
                f"windows must be at most {MAX_FRAMES} frames long, got {windows.frames}"
            )
        network = self.unet.config
        if network.in_channels != network.out_channels:
            raise ValueError(
                f"the base network must have {network.out_channels} input channels to sample from text "
                f"alone, got {network.in_channels}; ContinuationPipeline takes those of given frames too"
            )

    def _noise(self, shape: tuple[int, ...], generator: Generators) -> Tensor:
        noise: Tensor = randn_tensor(
            shape, generator=generator, device=self._execution_device, dtype=self.unet.dtype
        )
        return noise

    def _predict(
        self,
        sample_BCTHW: Tensor,
        timestep: Tensor,
        *,
        text: Tensor,
        scale: float,
        windows: Tiling | None,
    ) -> Tensor:
        if windows is None:
            return self._guided(sample_BCTHW, timestep, text, scale)
        tiles = windows.tiles(*sample_BCTHW.shape[2:])
        return blend(
            lambda tile: self._guided(tile.of(sample_BCTHW), timestep, text, scale),
            tiles,
            sample_BCTHW.shape,
            sample_BCTHW,
        )
