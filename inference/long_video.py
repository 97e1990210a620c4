"""Videos longer than the sixteen frames that the base network learned on.

Two ways (arXiv 2309.15103, section 5.3 and its appendix show the second):

- Sliding windows, for a base network as it is: overlapping windows see the same noise, are
  predicted one by one and blended at every step. One prompt, one noise, any length.
- Continuation, for a base network with conditioning channels: the last frames of a clip are given
  to the next. The clips are sampled one after the other, so a video may go on for ever and change
  its prompt on the way.

Shape letters: B samples, T frames, G given frames, C channels, h w latents.
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
from inference.frames import Frames, resized, video_tensor
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
from inference.tiles import Tiling
from training.models.schedule import Stage
from training.models.unet import UNet

CLIP_FRAMES = 16


def sliding_windows(frames: int = CLIP_FRAMES, overlap: int = 8) -> Tiling:
    """Windows for `LaViePipeline`: half of each is shared with the next.

    Half is twice the work of plain frames; a quarter costs a third more and shows its seams sooner.
    """
    return Tiling(frames=frames, frame_overlap=overlap)


class ContinuationPipeline(Personalised, VideoPipeline):
    """A base network that continues given frames, clip after clip."""

    stage: ClassVar[Stage] = "base"

    def _check_network(self, unet: UNet) -> None:
        # Noisy latents, mask (0 given, 1 to generate), latents of the given frames: SEINE's layout, which the
        # trainer's first-frame conditioning has.
        needed = 2 * unet.config.out_channels + 1
        if unet.config.in_channels != needed:
            raise ValueError(
                f"continuation needs a base network of {needed} input channels, "
                f"trained with its first frame given; got {unet.config.in_channels}"
            )

    @torch.no_grad()
    def __call__(  # noqa: PLR0913 - the arguments that users of diffusers expect
        self,
        prompt: str | Sequence[str],
        video: Frames | None = None,
        *,
        num_frames: int = 61,
        clip_frames: int = CLIP_FRAMES,
        given_frames: int = 1,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 50,
        guidance_scale: float = 7.5,
        negative_prompt: str | None = None,
        generator: torch.Generator | None = None,
        output_type: OutputType = "pil",
        callback_on_step_end: StepCallback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> VideoOutput:
        """Sample one long video.

        Args:
            prompt: What to show; a list is one prompt a clip, the last for all that follow.
            video: Frames to continue, one image too; they come first in the result. None starts
                from nothing, for networks that learned that as well.
            num_frames: Of the result, the given ones included.
            clip_frames: Frames sampled together, the given ones included; up to 32.
            given_frames: G, how many of the last frames the next clip is given; the network
                learned on 1.
            height: Of the frames, a multiple of 8; by default the video's, or 320.
            width: Likewise; by default the video's, or 512.
            num_inference_steps: Calls of the network for each clip.
            guidance_scale: Weight of the prompt against the negative prompt.
            negative_prompt: What to move away from; the empty prompt by default.
            generator: Source of all noise.
            output_type: Form of the frames; see `VideoOutput`.
            callback_on_step_end: See diffusers; each clip has its own loop.
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
        prompts = prompt_list(prompt, 1)
        negatives = negative_list(negative_prompt, self.default_negative, prompts, 1)
        check_choice("output_type", output_type, OUTPUT_TYPES)
        check_generators(generator, 1)
        self._check_lengths(num_frames, clip_frames, given_frames)
        given = None if video is None else resized(video_tensor(video), height, width)
        size = (height or 320, width or 512) if given is None else tuple(given.shape[-2:])
        check_size(*size)

        done = self._start(given, size, generator)
        pairs = list(zip(prompts, negatives, strict=True))
        while done.shape[2] < num_frames:
            positive, negative = pairs.pop(0) if len(pairs) > 1 else pairs[0]
            text = self._text_states([positive], [negative], guided=loop.guided)
            known = done[:, :, max(0, done.shape[2] - given_frames) :]
            new = self._next(known, clip_frames, text, loop)
            done = torch.cat([done, new], dim=2)
            if self.interrupt:
                break
        output = self._output(done[:, :, :num_frames], output_type)
        self.maybe_free_model_hooks()
        return output

    def _check_lengths(self, num_frames: int, clip_frames: int, given_frames: int) -> None:
        if not 2 <= clip_frames <= MAX_FRAMES:
            raise ValueError(f"clip_frames must be 2 to {MAX_FRAMES}, got {clip_frames}")
        if not 1 <= given_frames < clip_frames:
            raise ValueError(
                f"given_frames must be 1 to clip_frames - 1 ({clip_frames - 1}), got {given_frames}"
            )
        if num_frames < 1:
            raise ValueError(f"num_frames must be at least 1, got {num_frames}")

    def _start(self, given: Tensor | None, size: tuple[int, ...], generator: Generators) -> Tensor:
        """Latents of the given frames, ``[1, C, G, h, w]``; of none, G = 0."""
        device = self._execution_device
        if given is None:
            space = self.autoencoder.latents
            scale = space.downsampling
            shape = (1, space.channels, 0, size[0] // scale, size[1] // scale)
            return torch.zeros(shape, device=device, dtype=self.latents_dtype)
        if given.shape[0] != 1:
            raise ValueError(f"video must hold one video to continue, got {given.shape[0]}")
        autoencoder = self.autoencoder
        mean, std = autoencoder.encode_moments(given.to(device))
        noise = randn_tensor(
            tuple(mean.shape), generator=generator, device=device, dtype=mean.dtype
        )
        return (autoencoder.scale * (mean + std * noise)).to(self.latents_dtype)

    def _next(self, known_BCGhw: Tensor, frames: int, text: Tensor, loop: Loop) -> Tensor:
        """Latents of the frames that follow the known ones."""
        batch, channels, num_known, *size = known_BCGhw.shape
        noise = randn_tensor(
            (batch, channels, frames, *size),
            generator=loop.generator,
            device=known_BCGhw.device,
            dtype=self.unet.dtype,
        ).to(self.latents_dtype)
        condition = given_condition(known_BCGhw, frames)
        predict = partial(self._predict, condition=condition, text=text, scale=loop.guidance_scale)
        clean = self._denoise(noise, predict, loop)
        return clean[:, :, num_known:]

    def _predict(
        self,
        sample_BCTHW: Tensor,
        timestep: Tensor,
        *,
        condition: Tensor,
        text: Tensor,
        scale: float,
    ) -> Tensor:
        both = torch.cat([sample_BCTHW, condition], dim=1)
        return self._guided(both, timestep, text, scale)


def given_condition(known_BCGhw: Tensor, frames: int) -> Tensor:
    """Mask and masked latents ``[B, 1 + C, T, h, w]`` of a clip whose first G frames are known."""
    batch, channels, num_known, *size = known_BCGhw.shape
    mask = known_BCGhw.new_ones((batch, 1, frames, *size))
    mask[:, :, :num_known] = 0
    latents = known_BCGhw.new_zeros((batch, channels, frames, *size))
    latents[:, :, :num_known] = known_BCGhw
    return torch.cat([mask, latents], dim=1)
