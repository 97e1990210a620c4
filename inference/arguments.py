"""Arguments that the pipelines share: put into one form, or refused by name before any work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def prompt_list(prompt: str | Sequence[str], copies: int) -> list[str]:
    """The prompts, each as often as videos are wanted of it.

    Raises:
        ValueError: There is no prompt, one is no string, or no copy is wanted.
    """
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    if not prompts or not all(isinstance(each, str) for each in prompts):
        raise ValueError(f"prompt must be a string or a list of strings, got {prompt!r}")
    if copies < 1:
        raise ValueError(f"num_videos_per_prompt must be at least 1, got {copies}")
    return [each for each in prompts for _ in range(copies)]


def negative_list(
    negative: str | Sequence[str] | None, default: str, prompts: Sequence[str], copies: int
) -> list[str]:
    """The negative prompt of each prompt: one for all, or one each.

    Raises:
        ValueError: There are more or fewer than prompts.
    """
    given = default if negative is None else negative
    if isinstance(given, str):
        return [given] * len(prompts)
    negatives = prompt_list(given, copies)
    if len(negatives) != len(prompts):
        raise ValueError(
            f"negative_prompt must be one string or one for each of {len(prompts) // copies} "
            f"prompts, got {len(negatives) // copies}"
        )
    return negatives


def check_choice(name: str, value: object, allowed: Sequence[object]) -> None:
    """Raise ValueError unless the value is one of those allowed."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {tuple(allowed)}, got {value!r}")


def check_size(height: int, width: int, multiple: int = 8) -> None:
    """Raise ValueError for a frame that latents cannot cover."""
    if height < multiple or width < multiple or height % multiple or width % multiple:
        raise ValueError(
            f"height and width must be positive multiples of {multiple}, got {height}x{width}"
        )


def check_generators(generator: torch.Generator | list[torch.Generator] | None, batch: int) -> None:
    """Raise ValueError for a list of generators that is not one a video."""
    if isinstance(generator, list) and len(generator) != batch:
        raise ValueError(
            f"generator must be one, or a list of one for each of {batch} videos, "
            f"got {len(generator)}"
        )
