"""One sample, one batch: what the loader hands to a stage.

Shape letters: B samples, F = T + M (T frames of a clip, then M images), C H W channels and pixels,
h w latents' height and width, K = captions of a sample, L tokens, D width of the text states.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

Kind = Literal["joint", "video", "images"]
"""T frames and M images; T frames; M images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What lies at one position of the global batch of one step."""

    step: int
    """Step of the run; -1 for held-out samples."""
    position: int
    """In the global batch; of held-out samples their running number."""
    size_px: tuple[int, int]
    """H and W."""
    clip_id: str
    """Id of the clip; empty where the batch holds images only."""
    image_ids: tuple[str, ...]
    """Clips or images that the M images come from."""
    captions: tuple[str, ...]
    """The clip's, then the images'; dropped ones are replaced already."""
    frames_FCHW: Tensor | None = None
    """RGB, uint8."""
    mean_CFhw: Tensor | None = None
    """Mean of the latents, unscaled, float32; in place of frames where they were encoded before."""
    logvar_CFhw: Tensor | None = None
    """Logarithm of their variance."""
    text_KLD: Tensor | None = None
    """States of the captions, float32; where they were encoded before."""
    num_video_frames: int
    """T."""
    num_images: int
    """M."""
    image_as_clip: bool = False
    """Whether the clip is a crop that moves over an image."""
    replaced: tuple[str, ...] = ()
    """Clips that could not be read and for which others stand in."""


Draw = Callable[[int, Sample], dict[str, Tensor]]
"""(step, sample) -> named random tensors of a stage; pure, picklable, runs in the reading process."""

_TENSORS = {
    "frames_FCHW": "frames_BFCHW",
    "mean_CFhw": "mean_BCFhw",
    "logvar_CFhw": "logvar_BCFhw",
    "text_KLD": "text_BKLD",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Samples of one step that one process holds at once."""

    step: int
    """Step of the run; -1 for held-out samples."""
    positions: tuple[int, ...]
    """Positions of the samples in the global batch."""
    kind: Kind
    """What the samples are made of."""
    pool: str
    """Name of the pool that they were drawn from: source, kind, size."""
    size_px: tuple[int, int]
    """H and W."""
    clip_ids: tuple[str, ...]
    """Id of each sample's clip."""
    image_ids: tuple[tuple[str, ...], ...]
    """M of each sample."""
    captions: list[tuple[str, ...]]
    """K of each sample."""
    frames_BFCHW: Tensor | None = None
    """RGB, uint8."""
    mean_BCFhw: Tensor | None = None
    """Mean of the latents, unscaled, float32."""
    logvar_BCFhw: Tensor | None = None
    """Logarithm of their variance."""
    text_BKLD: Tensor | None = None
    """States of the captions."""
    num_video_frames: int
    """T."""
    num_images: int
    """M."""
    image_as_clip: bool = False
    """Whether the clips are crops that move over images."""
    draws: dict[str, Tensor] = field(default_factory=dict)
    """What the stage's `Draw` gave, stacked along B."""
    replaced: tuple[str, ...] = ()
    """Clips that could not be read and for which others stand in."""

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """The same batch with its tensors on a device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory, from which a copy to a GPU need not be waited for."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        held = {name: getattr(self, name) for name in _TENSORS.values()}
        changed: dict[str, Any] = {
            name: None if value is None else change(value) for name, value in held.items()
        }
        draws = {name: change(value) for name, value in self.draws.items()}
        return replace(self, draws=draws, **changed)


def stack(
    samples: Sequence[Sample], draws: Sequence[dict[str, Tensor]], *, kind: Kind, pool: str
) -> Batch:
    """Samples of one step, kind and size as a batch.

    Args:
        samples: at least one.
        draws: of each sample, the same names in each.
        kind: what the samples are made of.
        pool: name of their pool.
    """
    first = samples[0]
    tensors: dict[str, Any] = {
        batched: None
        if getattr(first, name) is None
        else torch.stack([getattr(sample, name) for sample in samples])
        for name, batched in _TENSORS.items()
    }
    return Batch(
        step=first.step,
        positions=tuple(sample.position for sample in samples),
        kind=kind,
        pool=pool,
        size_px=first.size_px,
        clip_ids=tuple(sample.clip_id for sample in samples),
        image_ids=tuple(sample.image_ids for sample in samples),
        captions=[sample.captions for sample in samples],
        num_video_frames=first.num_video_frames,
        num_images=first.num_images,
        image_as_clip=first.image_as_clip,
        draws={name: torch.stack([drawn[name] for drawn in draws]) for name in draws[0]},
        replaced=tuple(clip for sample in samples for clip in sample.replaced),
        **tensors,
    )
