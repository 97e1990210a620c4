"""The denoising network of all three stages.

Shape letters: B samples, C channels, T video frames, M images, F = T + M, H W height and width,
L text tokens, D text width, E width of the time embedding.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.models.blocks import Conditions, DownLevel, Level, MiddleLevel, UpLevel, run_layer
from training.models.embedding import TimeEmbedding
from training.models.layout import FrameLayout, on_video_frames
from training.models.residual import FrameConv2d
from training.models.rotary import RotaryEmbedding
from training.models.temporal import ResidualWidths, TemporalModule
from training.models.unet_config import UNetConfig


class DeepFeatures:
    """What all but the last layer computed in one call, for calls at nearby times to take over.

    At neighbouring diffusion times these features differ little (DeepCache, arXiv 2312.00858).
    """

    def __init__(self) -> None:
        self.held: Tensor | None = None


class UNet(nn.Module):
    """LaVie's video UNet (arXiv 2309.15103, section 3): an image UNet with temporal layers.

    One class for the three networks; `UNetConfig` says how they differ. The names of its parameters
    are those of the released checkpoints.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.block_out_channels
        levels = range(len(widths))
        self.conv_in = FrameConv2d(config.in_channels, widths[0], 3, padding=1)
        self.time_embedding = TimeEmbedding(widths[0], config.time_embedding_dim)
        self.class_embedding = None
        if config.num_class_embeds is not None:
            self.class_embedding = nn.Embedding(config.num_class_embeds, config.time_embedding_dim)
        self.down_blocks = nn.ModuleList([DownLevel(config, level) for level in levels])
        self.mid_block = MiddleLevel(config)
        self.up_blocks = nn.ModuleList([UpLevel(config, level) for level in reversed(levels)])
        self.conv_norm_out = nn.GroupNorm(config.norm_num_groups, widths[0], eps=config.norm_eps)
        self.conv_out = FrameConv2d(widths[0], config.out_channels, 3, padding=1)
        self.down_temporal_blocks = nn.ModuleList()
        self.mid_temporal_block = None
        self.up_temporal_blocks = nn.ModuleList()
        if config.temporal_convolutions:
            self.down_temporal_blocks.extend(temporal_module(config, c) for c in widths)
            self.mid_temporal_block = temporal_module(config, widths[-1])
            self.up_temporal_blocks.extend(temporal_module(config, c) for c in reversed(widths))
            # Every attention has its own copy; the released checkpoint names this one as well.
            self.temporal_rotary_emb = RotaryEmbedding()
        self._recompute = False
        self._compiled: Callable[..., Tensor] | None = None
        self._compiled_parts: tuple[Callable[..., Tensor], Callable[..., Tensor]] | None = None

    def forward(
        self,
        sample_BCTHW: Tensor,
        timestep_B: Tensor,
        text_BLD: Tensor,
        *,
        noise_level_B: Tensor | None = None,
        num_images: int = 0,
        deep: DeepFeatures | None = None,
    ) -> Tensor:
        """Predict the noise, or the velocity, of every frame.

        Args:
            sample_BCTHW: Noisy latents with their conditioning channels, ``[B, in_channels, F, H,
                W]``; F is T video frames followed by ``num_images`` images. Height and width need
                not be multiples of 8.
            timestep_B: Diffusion time of each sample, 0 to 999, shared by its frames and images.
            text_BLD: Text states ``[B, L, D]``; with images ``[B, 1 + num_images, L, D]``, the
                video's first; with images only ``[B, num_images, L, D]``.
            noise_level_B: Noise level of the low-resolution frames, integers 0 to
                ``config.max_noise_level``; for the super-resolution network only.
            num_images: M, how many of the frames are single images. Temporal layers pass them by.
            deep: Where to leave the deep features, if it is empty, or to take them from, if not;
                then only the first and the last layer are computed.

        Returns:
            ``[B, out_channels, F, H, W]`` in the sample's dtype.

        Raises:
            ValueError: An argument does not fit the network.
        """
        layout = self._check_sample(sample_BCTHW, num_images)
        self._check_conditions(timestep_B, text_BLD, layout)
        self._check_noise_level(noise_level_B, layout.batch)
        text_BKLD = text_BLD if num_images else text_BLD.unsqueeze(1)
        given = (sample_BCTHW, timestep_B, text_BKLD, noise_level_B, layout)
        if deep is not None:
            return self._denoise_with(deep, *given)
        return (self._compiled or self._denoise)(*given)

    @property
    def device(self) -> torch.device:
        """Where the network lies; what diffusers asks of a pipeline's component."""
        return self.conv_in.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Number format in which the network computes."""
        return self.conv_in.weight.dtype

    def compile(self, **options: Any) -> None:
        """Compile the network in place with ``torch.compile(**options)``.

        Only what comes after the checks of the arguments is compiled, so that a wrong argument is a
        ValueError still.
        """
        self._compiled = torch.compile(self._denoise, **options)
        self._compiled_parts = (
            torch.compile(self._deep_features, **options),
            torch.compile(self._finish, **options),
        )

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        nothing = {"_compiled": None, "_compiled_parts": None}
        return state | nothing  # a copy, as for an EMA, starts uncompiled

    def use_channels_last(self) -> None:
        """Store convolutions channels-last, in place; only the order in memory changes.

        Folding frames into the batch and into tokens then moves no data.
        """
        for parameter in self.parameters():
            if parameter.dim() in (4, 5):
                last = torch.channels_last if parameter.dim() == 4 else torch.channels_last_3d
                parameter.data = parameter.data.contiguous(memory_format=last)

    def set_activation_checkpointing(self, enabled: bool) -> None:
        """Keep only the inputs of residual blocks and transformers for backward, or all."""
        self._recompute = enabled
        for module in self.modules():
            if isinstance(module, Level):
                module.recompute = enabled

    def _denoise(
        self,
        sample_BCFHW: Tensor,
        timestep_B: Tensor,
        text_BKLD: Tensor,
        noise_level_B: Tensor | None,
        layout: FrameLayout,
    ) -> Tensor:
        x, conditions = self._begin(sample_BCFHW, timestep_B, text_BKLD, noise_level_B, layout)
        x, skips = self._all_but_finest(x, conditions)
        x = self.up_blocks[-1](x, skips, conditions)
        return self._end(x, conditions).to(sample_BCFHW.dtype)

    def _denoise_with(
        self,
        deep: DeepFeatures,
        sample_BCFHW: Tensor,
        timestep_B: Tensor,
        text_BKLD: Tensor,
        noise_level_B: Tensor | None,
        layout: FrameLayout,
    ) -> Tensor:
        deep_features, finish = self._compiled_parts or (self._deep_features, self._finish)
        x, conditions = self._begin(sample_BCFHW, timestep_B, text_BKLD, noise_level_B, layout)
        if deep.held is None:
            deep.held = deep_features(x, conditions)
        return finish(deep.held, x, conditions).to(sample_BCFHW.dtype)

    def _begin(
        self,
        sample_BCFHW: Tensor,
        timestep_B: Tensor,
        text_BKLD: Tensor,
        noise_level_B: Tensor | None,
        layout: FrameLayout,
    ) -> tuple[Tensor, Conditions]:
        emb_BE = self.time_embedding(timestep_B)
        if self.class_embedding is not None:
            emb_BE = emb_BE + self.class_embedding(noise_level_B)
        conditions = Conditions(emb_BE, text_BKLD.to(self.dtype), layout)
        return self.conv_in(sample_BCFHW.to(self.dtype)), conditions

    def _all_but_finest(self, x: Tensor, conditions: Conditions) -> tuple[Tensor, list[Tensor]]:
        """The way down and up to before the finest level, and the skips that it will take."""
        skips = [x]
        for index, down in enumerate(self.down_blocks):
            x, level_skips = down(x, conditions)
            skips += level_skips  # before the temporal module, which only the running tensor sees
            if self.down_temporal_blocks:
                x = self._over_time(self.down_temporal_blocks[index], x, conditions)
        x = self.mid_block(x, conditions)
        if self.mid_temporal_block is not None:
            x = self._over_time(self.mid_temporal_block, x, conditions)
        for index in range(len(self.up_blocks) - 1):
            level = cast(UpLevel, self.up_blocks[index])
            x = level(x, skips, conditions)
            skips = skips[: -len(level.resnets)]
            if self.up_temporal_blocks:
                x = self._over_time(self.up_temporal_blocks[index], x, conditions)
        return x, skips

    def _end(self, x: Tensor, conditions: Conditions) -> Tensor:
        if self.up_temporal_blocks:
            x = self._over_time(self.up_temporal_blocks[-1], x, conditions)
        out: Tensor = self.conv_out(functional.silu(self.conv_norm_out(x)))
        return out

    def _deep_features(self, x: Tensor, conditions: Conditions) -> Tensor:
        """The running tensor before the last layer of the finest level, ``[B, C, F, H, W]``."""
        finest = cast(UpLevel, self.up_blocks[-1])
        x, skips = self._all_but_finest(x, conditions)
        return finest.run_layers(range(len(finest.resnets) - 1), x, skips, conditions)

    def _finish(self, deep: Tensor, first: Tensor, conditions: Conditions) -> Tensor:
        """The last layer, which reads the deep features and the first layer's output, and the head."""
        finest = cast(UpLevel, self.up_blocks[-1])
        last = len(finest.resnets) - 1
        x = finest.run_layers(range(last, last + 1), deep, [first], conditions)
        return self._end(x, conditions)

    def _over_time(self, module: nn.Module, x_BCFHW: Tensor, conditions: Conditions) -> Tensor:
        def layer(video_BCTHW: Tensor) -> Tensor:
            return run_layer(module, video_BCTHW, conditions.emb, recompute=self._recompute)

        return on_video_frames(layer, x_BCFHW, conditions.layout)

    def _check_sample(self, sample_BCTHW: Tensor, num_images: int) -> FrameLayout:
        channels = self.config.in_channels
        shape = tuple(sample_BCTHW.shape)
        if len(shape) != 5 or 0 in shape:
            raise ValueError(f"sample must be a non-empty [B, C, T, H, W], got shape {shape}")
        if shape[1] != channels:
            raise ValueError(f"sample must have {channels} channels, got {shape[1]}")
        if not 0 <= num_images <= shape[2]:
            raise ValueError(
                f"num_images must be 0 to the sample's {shape[2]} frames, got {num_images}"
            )
        return FrameLayout(shape[0], shape[2] - num_images, num_images)

    def _check_conditions(self, timestep_B: Tensor, text_BLD: Tensor, layout: FrameLayout) -> None:
        if timestep_B.shape != (layout.batch,):
            raise ValueError(
                f"timestep must hold one time per sample, shape ({layout.batch},), "
                f"got shape {tuple(timestep_B.shape)}"
            )
        rows = (layout.batch, layout.texts) if layout.images else (layout.batch,)
        shape = tuple(text_BLD.shape)
        if len(shape) != len(rows) + 2 or shape[:-2] != rows:
            expected = ", ".join(map(str, rows))
            raise ValueError(
                f"text must have shape [{expected}, L, D] for {layout.batch} samples with "
                f"{layout.images} images, got {shape}"
            )
        width = self.config.cross_attention_dim
        if shape[-1] != width:
            raise ValueError(f"text must be {width} wide, got {shape[-1]}")

    def _check_noise_level(self, noise_level_B: Tensor | None, batch: int) -> None:
        config = self.config
        if not config.takes_noise_level:
            if noise_level_B is not None:
                raise ValueError(
                    f"noise_level must be left out of a network without low-resolution frames, "
                    f"got shape {tuple(noise_level_B.shape)}"
                )
            return
        if noise_level_B is None:
            raise ValueError("noise_level must be given to the super-resolution network, got None")
        if noise_level_B.shape != (batch,) or noise_level_B.is_floating_point():
            raise ValueError(
                f"noise_level must hold one integer per sample, shape ({batch},), "
                f"got shape {tuple(noise_level_B.shape)} of {noise_level_B.dtype}"
            )
        # Traced values are not known, and for those on another device the host would have to wait.
        if torch.compiler.is_compiling() or noise_level_B.device.type != "cpu":
            return
        lowest, highest = int(noise_level_B.min()), int(noise_level_B.max())
        if lowest < 0 or highest > config.max_noise_level:
            raise ValueError(
                f"noise_level must be 0 to {config.max_noise_level}, got {lowest} to {highest}"
            )


def temporal_module(config: UNetConfig, channels: int) -> TemporalModule:
    """The temporal module that follows a level of this many channels."""
    widths = ResidualWidths(channels, config.time_embedding_dim, config.norm_num_groups)
    return TemporalModule(widths)
