"""What a network of the cascade is made of: one frozen dataclass, three named sets of values.

LaVie (arXiv 2309.15103) grows its three networks from two image networks: the base and the
interpolation network from Stable Diffusion 1.4, the super-resolution network from the x4 upscaler.
They share every building block; the fields from ``only_cross_attention`` downwards are where they
differ. Field names follow diffusers where diffusers has the thing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from training.models.latent_space import LatentSpace
from training.models.schedule import Stage

ROTARY_DIMS = 32
"""Leading dimensions of each head that the released networks rotate; the rest pass through."""


CHOICES = {
    "frame_attention": ("own", "sparse_causal"),
    "temporal_order": ("before_feed_forward", "last"),
    "temporal_name": ("temp", "temporal"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class UNetConfig:
    """Architecture of one denoising network; the defaults are LaVie's base network."""

    in_channels: int = 4
    """Channels of the sample, conditioning channels included."""
    out_channels: int = 4
    """Channels of the prediction: those of the latents."""
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    """Width of each level, the finest first; every level but the last halves height and width."""
    layers_per_block: int = 2
    """Residual blocks per level on the way down; the way up has one more."""
    cross_attention_dim: int = 768
    """Width of the text states."""
    num_attention_heads: int | tuple[int, ...] = 8
    """Heads of every attention, one number or one per level (called attention_head_dim in the
    released configuration files, although it counts heads)."""
    norm_num_groups: int = 32
    """Groups of every group norm."""
    norm_eps: float = 1e-5
    """Epsilon of the group norms in spatial residual blocks and before the output."""
    attention_levels: tuple[bool, ...] = (True, True, True, False)
    """Which levels carry transformers, the finest first; the middle always does."""
    only_cross_attention: tuple[bool, ...] = (False, False, False, False)
    """Levels whose first attention reads the text in place of its own frame; the middle follows
    the last level."""
    use_linear_projection: bool = False
    """Whether the projections around a transformer are stored as (c, c), not (c, c, 1, 1)."""
    frame_attention: Literal["own", "sparse_causal"] = "own"
    """What a frame's self-attention reads: its own tokens, or those of the first and the previous
    frame (interpolation)."""
    temporal_positions: bool = True
    """Whether temporal attention knows time through rotary angles and a relative bias."""
    temporal_order: Literal["before_feed_forward", "last"] = "before_feed_forward"
    """Where temporal attention stands in a transformer block."""
    temporal_convolutions: bool = False
    """Whether temporal convolutions stand before every transformer and after every level."""
    temporal_name: Literal["temp", "temporal"] = "temp"
    """Word under which the released checkpoint keeps its temporal attentions."""
    num_class_embeds: int | None = None
    """Rows of the noise level table, or None for a network without low-resolution frames."""
    max_noise_level: int = 350
    """Highest noise level of the low-resolution frames that the network was trained on."""

    def __post_init__(self) -> None:
        """Raise ValueError for values that no network can be built from."""
        levels = len(self.block_out_channels)
        for name in ("in_channels", "out_channels", "layers_per_block", "cross_attention_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}")
        if levels == 0:
            raise ValueError("block_out_channels must name at least one level, got ()")
        for name in ("attention_levels", "only_cross_attention"):
            if len(getattr(self, name)) != levels:
                raise ValueError(
                    f"{name} must have one entry per level of block_out_channels ({levels}), "
                    f"got {getattr(self, name)}"
                )
        heads = self.num_attention_heads
        if not isinstance(heads, int) and len(heads) != levels:
            raise ValueError(
                f"num_attention_heads must be one number or one per level ({levels}), got {heads}"
            )
        for level in range(levels):
            self._check_level(level)

    def _check_level(self, level: int) -> None:
        width, heads = self.block_out_channels[level], self.heads(level)
        if width % self.norm_num_groups:
            raise ValueError(
                f"block_out_channels must be multiples of norm_num_groups "
                f"({self.norm_num_groups}), got {width} at level {level}"
            )
        if not self.has_attention(level):
            return
        if width % heads:
            raise ValueError(
                f"block_out_channels must be multiples of num_attention_heads, "
                f"got {width} channels and {heads} heads at level {level}"
            )
        if self.temporal_positions and width // heads < ROTARY_DIMS:
            raise ValueError(
                f"heads must be at least {ROTARY_DIMS} wide for rotary positions, "
                f"got {width // heads} ({width} channels, {heads} heads) at level {level}"
            )

    def heads(self, level: int) -> int:
        """Number of attention heads at a level, 0 being the finest."""
        if isinstance(self.num_attention_heads, int):
            return self.num_attention_heads
        return self.num_attention_heads[level]

    def has_attention(self, level: int) -> bool:
        """Whether any transformer has this level's width: its own, or that of the middle."""
        return self.attention_levels[level] or level == len(self.block_out_channels) - 1

    def on(self, latents: LatentSpace, text_width: int) -> UNetConfig:
        """The same network for other latents and other text; conditioning channels follow the latents.

        Super-resolution has three of low-resolution RGB, interpolation the latents of a key frame.
        """
        conditioning = self.in_channels - self.out_channels
        if conditioning == self.out_channels:  # latents too
            conditioning = latents.channels
        return replace(
            self,
            in_channels=latents.channels + conditioning,
            out_channels=latents.channels,
            cross_attention_dim=text_width,
        )

    @property
    def time_embedding_dim(self) -> int:
        """Width of the time embedding: four times that of the finest level."""
        return 4 * self.block_out_channels[0]

    @property
    def takes_noise_level(self) -> bool:
        """Whether the network is told how noisy its low-resolution frames are."""
        return self.num_class_embeds is not None

    @classmethod
    def of(cls, stage: Stage) -> UNetConfig:
        """The released network of a stage."""
        named = {
            "base": cls.base,
            "interpolation": cls.interpolation,
            "super_resolution": cls.super_resolution,
        }
        return named[stage]()

    @classmethod
    def base(cls) -> UNetConfig:
        """The base text-to-video network, ``lavie_base.pt``: 909.1 M parameters."""
        return cls()

    @classmethod
    def interpolation(cls) -> UNetConfig:
        """The temporal interpolation network, ``lavie_interpolation.pt``: 909.1 M parameters.

        Its sample holds the noisy latents on channels 0-3 and the latents of the nearest key frame
        on channels 4-7. The released checkpoint keeps an older block design than the base network:
        no rotary angles or bias, temporal attention last, sparse-causal frame attention.
        """
        return cls(
            in_channels=8,
            frame_attention="sparse_causal",
            temporal_positions=False,
            temporal_order="last",
        )

    @classmethod
    def super_resolution(cls) -> UNetConfig:
        """The video super-resolution network, ``lavie_vsr.pt``: 691.0 M parameters.

        Its sample holds the noisy latents on channels 0-3 and the noisy low-resolution RGB frames,
        -1 to 1 before the noise, on channels 4-6 at the latents' own height and width.
        """
        return cls(
            in_channels=7,
            block_out_channels=(256, 512, 512, 1024),
            cross_attention_dim=1024,
            attention_levels=(False, True, True, True),
            only_cross_attention=(True, True, True, False),
            use_linear_projection=True,
            temporal_convolutions=True,
            temporal_name="temporal",
            num_class_embeds=1000,
        )
