"""The super-resolution pipeline: four times the height and width, in memory bounded by a tile.

Shape letters: B samples, T frames, C channels, H W of the low-resolution frames, which are those of
the latents too; L text tokens, D text width.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
from inference.tiles import Tile, Tiling, blend
from training.models.schedule import Stage

SCALE = 4
"""Pixels of the output for each of the input."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Conditions:
    """What the network is told beside the noisy latents."""

    low_BCTHW: Tensor
    """Noisy low-resolution frames."""
    text: Tensor
    """Text states, both halves of guidance."""
    scale: float
    """Scale of guidance."""
    noise_level: int
    """Noise level of the low-resolution frames."""


class SuperResolutionPipeline(VideoPipeline):
    """LaVie's video super-resolution network (arXiv 2309.15103, section 3.4).

    The autoencoder stays in fp32 under any cast: it overflows in fp16.
    """

    stage: ClassVar[Stage] = "super_resolution"
    default_negative: ClassVar[str] = "blur, worst quality"
    rounds: ClassVar[bool] = False
    # For 24 GB: four whole frames decoded in fp32 take 32 GiB, both prompts in one call 23 GiB; at
    # this size neither gains speed (`python -m benchmarks.sample_memory`).
    frames_at_once: ClassVar[int] = 1
    guides_in_one_call: ClassVar[bool] = False
    keeps_vae_fp32: ClassVar[bool] = True

    @torch.no_grad()
    def __call__(  # noqa: PLR0913 - the arguments that users of diffusers expect
        self,
        prompt: str | Sequence[str],
        video: Frames,
        *,
        height: int | None = None,
        width: int | None = None,
        noise_level: int = 50,
        num_inference_steps: int = 50,
        guidance_scale: float = 5.0,
        negative_prompt: str | Sequence[str] | None = None,
        generator: Generators = None,
        tiling: Tiling | None = None,
        output_type: OutputType = "pil",
        callback_on_step_end: StepCallback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> VideoOutput:
        """Sample videos of four times the size.

        Args:
            prompt: What the video shows, one or a list.
            video: Low-resolution frames, one video a prompt; see `inference.frames.Frames`.
            height: Of the low-resolution frames, to scale to first; by default the video's own, a
                multiple of 8.
            width: Likewise.
            noise_level: Noise added to the low-resolution frames, 0 to 350: more invents more.
            num_inference_steps: Calls of the network for each tile.
            guidance_scale: Weight of the prompt against the negative prompt.
            negative_prompt: What to move away from; "blur, worst quality" by default.
            generator: One for all, or a list of one a video.
            tiling: Tiles of latents; by default 8 whole frames that share 2. A ``frame_overlap`` of
                0 without tiles in space gives the release's independent pieces of 8 frames, its
                random numbers included.
            output_type: Form of the frames; see `VideoOutput`.
            callback_on_step_end: See diffusers; of independent pieces, each has its own loop.
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
        low_BCTHW = resized(video_tensor(video), height, width)
        if low_BCTHW.shape[0] != len(prompts):
            raise ValueError(
                f"video must hold one video a prompt, got {low_BCTHW.shape[0]} for "
                f"{len(prompts)} prompts"
            )
        check_generators(generator, len(prompts))
        highest = self.unet.config.max_noise_level
        if not 0 <= noise_level <= highest:
            raise ValueError(f"noise_level must be 0 to {highest}, got {noise_level}")

        text = self._text_states(prompts, negatives, guided=loop.guided)
        conditions = _Conditions(
            low_BCTHW=low_BCTHW, text=text, scale=guidance_scale, noise_level=noise_level
        )
        clean = self._sample(conditions, tiling or Tiling(), loop)
        output = self._output(clean, output_type)
        self.maybe_free_model_hooks()
        return output

    def _sample(self, given: _Conditions, tiling: Tiling, loop: Loop) -> Tensor:
        """Clean latents ``[B, 4, T, H, W]``; ``given.low_BCTHW`` still without noise."""
        size = given.low_BCTHW.shape[2:]
        tiles = tiling.tiles(*size)
        if tiling.blends(*size):
            if self._reuse.interval > 1:
                raise ValueError(
                    f"feature reuse keeps features of every tile, {len(tiles)} here: use "
                    f"frame_overlap 0 and whole frames, or disable_feature_reuse()"
                )
            return self._sample_blended(given, tiles, loop)
        pieces = []
        for tile in tiles:
            pieces.append(self._sample_piece(given, tile.of(given.low_BCTHW), loop))
            if self.interrupt:
                break
        return torch.cat(pieces, dim=2)

    def _sample_piece(self, given: _Conditions, low_BCTHW: Tensor, loop: Loop) -> Tensor:
        """One piece by itself, as the release samples it; on the CPU."""
        device = self._execution_device
        low_noise, noise = self._draw(low_BCTHW.shape, loop.generator)
        low = self._noisy(low_BCTHW.to(low_noise), low_noise, given.noise_level)

        def predict(sample_BCTHW: Tensor, timestep: Tensor) -> Tensor:
            both = torch.cat([sample_BCTHW, low], dim=1)
            return self._guided(
                both, timestep, given.text, given.scale, noise_level=given.noise_level
            )

        return self._denoise(noise.to(device, self.latents_dtype), predict, loop).cpu()

    def _sample_blended(self, given: _Conditions, tiles: list[Tile], loop: Loop) -> Tensor:
        """All tiles together, step by step; what is as large as the video stays on the CPU."""
        device = self._execution_device
        draws = list(self._draw_by_frame(given.low_BCTHW.shape, loop.generator))
        low_noise = torch.cat([low for low, _ in draws], dim=2)
        noise = torch.cat([latents for _, latents in draws], dim=2).to(self.latents_dtype)
        low = self._noisy(given.low_BCTHW.to(low_noise), low_noise, given.noise_level)

        def predict(sample_BCTHW: Tensor, timestep: Tensor) -> Tensor:
            def predict_tile(tile: Tile) -> Tensor:
                both = torch.cat([tile.of(sample_BCTHW), tile.of(low)], dim=1).to(device)
                return self._guided(
                    both, timestep, given.text, given.scale, noise_level=given.noise_level
                )

            return blend(predict_tile, tiles, sample_BCTHW.shape, sample_BCTHW)

        return self._denoise(noise, predict, loop)

    def _draw(self, shape: torch.Size, generator: Generators) -> tuple[Tensor, Tensor]:
        """Noise of the low-resolution frames and of the latents, in the release's order."""
        batch, channels, *video = shape
        low, latents = (
            randn_tensor(
                (batch, each, *video),
                generator=generator,
                device=self._execution_device,
                dtype=self.unet.dtype,
            )
            for each in (channels, self.unet.config.out_channels)
        )
        return low, latents

    def _draw_by_frame(
        self, shape: torch.Size, generator: Generators
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Noise frame by frame, on the CPU; that of a frame does not depend on how many follow."""
        batch, channels, num_frames, *size = shape
        for _ in range(num_frames):
            low, latents = self._draw(torch.Size((batch, channels, 1, *size)), generator)
            yield low.cpu(), latents.cpu()

    def _noisy(self, low_BCTHW: Tensor, noise_BCTHW: Tensor, level: int) -> Tensor:
        schedule = self.objective.low_resolution_schedule
        assert schedule is not None  # of every super-resolution objective
        level_B = torch.full((low_BCTHW.shape[0],), level)
        noisy = schedule.add_noise(low_BCTHW, noise_BCTHW, level_B.to(low_BCTHW.device))
        return noisy.to(self.latents_dtype)
