"""What the three pipelines share: their models, prompts, guidance, the loop over times, the output.

Shape letters: B samples, T frames, C channels, H W pixels, h w latents, L text tokens, D text width.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, cast

import numpy as np
import torch
from torch import Tensor

from inference.diffusers_names import BaseOutput, DiffusionPipeline
from inference.feature_reuse import FeatureReuse
from inference.finite import check_finite
from inference.schedulers import RELEASED, make_scheduler
from inference.settings import SchedulerName
from training.models.autoencoder import Autoencoder, ImageAutoencoder
from training.models.exported import (
    ExportedModel,
    SampleShape,
    load_model,
    read_objective,
    save_model,
)
from training.models.schedule import Objective, Stage
from training.models.text_encoder import TextEncoder
from training.models.unet import UNet

OutputType = Literal["pil", "np", "pt", "latent"]
OUTPUT_TYPES = ("pil", "np", "pt", "latent")
Generators = torch.Generator | list[torch.Generator] | None
Predict = Callable[[Tensor, Tensor], Tensor]
StepCallback = Callable[[Any, int, Tensor, dict[str, Any]], dict[str, Any]]


class VideoOutput(BaseOutput):
    """Sampled videos."""

    frames: Any
    """"pil": a list of frames a video; "np": ``[B, T, H, W, 3]`` fp32, 0 to 1; "pt": ``[B, T, 3, H,
    W]`` fp32, 0 to 1, on the CPU; "latent": ``[B, C, T, h, w]`` of the network."""

    def __init__(self, frames: Any) -> None:
        super().__init__(frames=frames)
        self.frames = frames


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """How the loop over diffusion times runs."""

    num_steps: int
    """Calls of the network, or pairs of calls."""
    guidance_scale: float
    """s of eps = eps_negative + s (eps_prompt - eps_negative); 1 and less is no guidance."""
    generator: Generators = None
    """Source of the noise that a sampler adds on the way."""
    callback: StepCallback | None = None
    """Called as ``callback(pipeline, step, timestep, tensors)`` after each step; what it returns
    replaces the tensors."""
    callback_tensors: Sequence[str] = ("latents",)
    """Which tensors the callback is given."""

    def __post_init__(self) -> None:
        """Raise ValueError for a loop that cannot run."""
        if self.num_steps < 1:
            raise ValueError(f"num_inference_steps must be at least 1, got {self.num_steps}")
        unknown = set(self.callback_tensors) - {"latents"}
        if unknown:
            raise ValueError(
                f"callback_on_step_end_tensor_inputs may name latents only, got {sorted(unknown)}"
            )

    @property
    def guided(self) -> bool:
        """Whether the negative prompt has any weight."""
        return self.guidance_scale > 1


class VideoPipeline(DiffusionPipeline):
    """Networks of one stage, and what turns prompts into its latents and latents into frames.

    Args:
        unet: The denoising network.
        vae: The image autoencoder, diffusers' or ours, applied frame by frame.
        text_encoder: transformers' CLIP text tower, or a sentence encoder.
        tokenizer: Its tokenizer.
        scheduler: Sampler; `inference.schedulers.make_scheduler` builds one from the objective.
        objective: What the network was trained for; the released one of the stage by default.
    """

    model_cpu_offload_seq = "text_encoder->unet->vae"  # type: ignore[assignment]
    _callback_tensor_inputs: ClassVar[list[str]] = ["latents"]

    stage: ClassVar[Stage]
    negative_first: ClassVar[bool] = True
    """Row order of classifier-free guidance; half precision depends on it, if little."""
    default_negative: ClassVar[str] = ""
    """What dropped captions were replaced by in training."""
    rounds: ClassVar[bool] = True
    """Whether bytes are rounded to the nearest value or, as super-resolution's, cut off."""
    frames_at_once: ClassVar[int] = 4
    """Frames that go through the autoencoder together, unless it is sliced."""
    guides_in_one_call: ClassVar[bool] = True
    """Whether both prompts of guidance go through the network together, by default."""
    keeps_vae_fp32: ClassVar[bool] = False
    """Whether a cast leaves the autoencoder in fp32."""

    unet: UNet
    vae: ImageAutoencoder
    text_encoder: Any
    tokenizer: Any
    scheduler: Any

    def __init__(
        self,
        unet: UNet,
        vae: ImageAutoencoder,
        text_encoder: Any,
        tokenizer: Any,
        scheduler: Any,
        objective: Objective | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if objective is None:
            objective = Objective.of(self.stage)
        elif not isinstance(objective, Objective):
            objective = Objective.from_json(dict(objective))
        if objective.stage != self.stage:
            raise ValueError(
                f"{type(self).__name__} samples from {self.stage} weights, got {objective.stage}"
            )
        self._check_network(unet)
        self.register_modules(
            unet=unet,
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            scheduler=scheduler,
        )
        self.register_to_config(objective=objective.to_json())
        self.origin = ""
        self.samples: SampleShape | None = None
        self.interrupt = False
        self._frames_at_once = self.frames_at_once
        self._guidance_in_one_call = self.guides_in_one_call
        self._reuse = FeatureReuse(1)

    def _check_network(self, unet: UNet) -> None:
        """Raise ValueError for a network that this pipeline cannot use."""

    @property
    def objective(self) -> Objective:
        """What the network was trained for."""
        return Objective.from_json(dict(self.config["objective"]))

    @classmethod
    def from_model(cls, model: ExportedModel, *, scheduler: SchedulerName | None = None) -> Self:
        """A pipeline around a loaded model.

        Raises:
            ValueError: The model has no autoencoder or text encoder, or belongs to another stage.
        """
        autoencoder, text_encoder = model.autoencoder, model.text_encoder
        if autoencoder is None or text_encoder is None:
            lacking = "vae/" if autoencoder is None else "text_encoder/ and tokenizer/"
            raise ValueError(
                f"the model must be exported with its companions to sample from, {lacking} is "
                f"missing; got a {model.objective.stage} model from {model.origin or 'nowhere'}"
            )
        name = RELEASED[cls.stage] if scheduler is None else scheduler
        pipeline = cls(
            unet=model.net.eval().requires_grad_(False),
            vae=autoencoder.vae,
            text_encoder=text_encoder.tower,
            tokenizer=text_encoder.tokenizer,
            scheduler=make_scheduler(name, model.objective),
            objective=model.objective,
        )
        pipeline.origin, pipeline.samples = model.origin, model.samples
        return pipeline

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        scheduler: SchedulerName | None = None,
        objective: Objective | None = None,
        torch_dtype: torch.dtype | None = None,
    ) -> Self:
        """Read a folder that training exported or `save_pretrained` wrote.

        Args:
            pretrained_model_name_or_path: The folder (see `training.models.exported`); nothing is
                downloaded.
            scheduler: Sampler; by default the release's of this stage.
            objective: What the weights must have been trained for, where that is known; otherwise
                the folder's own word is taken and the sampler built from it.
            torch_dtype: Number format to cast to.

        Raises:
            FileNotFoundError: There is no model.
            ValueError: It is of another stage or objective, or torn, or without its companions.
        """
        folder = Path(pretrained_model_name_or_path)
        found = read_objective(folder)
        if found.stage != cls.stage:
            raise ValueError(
                f"{cls.__name__} samples from {cls.stage} weights, {folder} holds {found.stage}"
            )
        model = load_model(folder, found if objective is None else objective)
        pipeline = cls.from_model(model, scheduler=scheduler)
        return pipeline if torch_dtype is None else pipeline.to(torch_dtype)

    def save_pretrained(  # type: ignore[override]
        self, save_directory: str | Path, **unsupported: Any
    ) -> None:
        """Write the folder that `from_pretrained` reads, objective and companions included."""
        if unsupported:
            raise ValueError(f"save_pretrained has no options, got {sorted(unsupported)}")
        save_model(self.exported(), Path(save_directory))

    def exported(self) -> ExportedModel:
        """The pipeline's models as training exports them; they stay the pipeline's."""
        return ExportedModel(
            net=self.unet,
            objective=self.objective,
            autoencoder=self.autoencoder,
            text_encoder=TextEncoder(self.text_encoder, self.tokenizer),
            samples=self.samples,
            origin=self.origin,
        )

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move or cast the models: ``to(device)``, ``to(dtype)``, ``to(device, dtype)``."""
        dtype = kwargs.pop("dtype", None)
        places = [each for each in args if not isinstance(each, torch.dtype)]
        dtypes = [each for each in (dtype, *args) if isinstance(each, torch.dtype)]
        super().to(*places, **kwargs)
        for dtype in dtypes[-1:]:
            for name in ("unet", "vae", "text_encoder"):
                if name != "vae" or not self.keeps_vae_fp32:
                    # not diffusers' own `to`, which warns of a list of exceptions that is empty
                    torch.nn.Module.to(getattr(self, name), dtype)
        return self

    def __call__(self, *_arguments: Any, **_named: Any) -> VideoOutput:
        """Sample; every stage has its own arguments."""
        raise NotImplementedError(f"{type(self).__name__} is not a stage of the cascade")

    @property
    def autoencoder(self) -> Autoencoder:
        """The autoencoder over videos."""
        return Autoencoder(self.vae, frames_at_once=self._frames_at_once)

    @property
    def latents_dtype(self) -> torch.dtype:
        """Number format of the latents on their way.

        The network's, as in the release; but fp32 beside a bf16 network, whose 8 bits would lose
        the small steps at the end.
        """
        dtype = self.unet.dtype
        return torch.float32 if dtype == torch.bfloat16 else dtype

    def enable_vae_slicing(self) -> None:
        """Put one frame at a time through the autoencoder."""
        self._frames_at_once = 1

    def disable_vae_slicing(self) -> None:
        """Put as many frames at a time through the autoencoder as is the stage's default."""
        self._frames_at_once = self.frames_at_once

    def enable_vae_tiling(self) -> None:
        """Put every frame through the autoencoder in tiles that overlap by a quarter."""
        self.vae.enable_tiling()

    def disable_vae_tiling(self) -> None:
        """Put whole frames through the autoencoder."""
        self.vae.disable_tiling()

    def enable_guidance_splitting(self) -> None:
        """Call the network once for each prompt of guidance: half the memory, less speed."""
        self._guidance_in_one_call = False

    def disable_guidance_splitting(self) -> None:
        """Call the network once for both prompts of guidance."""
        self._guidance_in_one_call = True

    def enable_feature_reuse(self, interval: int = 3) -> None:
        """Compute every n-th step whole, and only the outer layers at the steps between.

        Faster by up to n, at a loss of detail; see docs/sampling.md for what it costs.
        """
        self._reuse = FeatureReuse(interval)

    def disable_feature_reuse(self) -> None:
        """Compute every step whole."""
        self._reuse = FeatureReuse(1)

    def enable_compilation(self, **options: Any) -> None:
        """Lay convolutions out channels-last and compile the network; see `UNet.compile`."""
        self.unet.use_channels_last()
        self.unet.compile(**options)

    def _text_states(
        self, prompts: Sequence[str], negatives: Sequence[str], *, guided: bool
    ) -> Tensor:
        """``[B, L, D]`` for the prompts, or both halves of guidance ``[2 B, L, D]`` in row order."""
        encoder = TextEncoder(self.text_encoder, self.tokenizer)
        texts = list(prompts)
        if guided:
            texts = [*negatives, *prompts] if self.negative_first else [*prompts, *negatives]
        states = encoder.encode(texts)
        check_finite(states, f"{self.stage}, text states of the prompt", self.text_encoder)
        return self._to_network(states)

    def _to_network(self, states: Tensor) -> Tensor:
        return states.to(self._execution_device, self.unet.dtype)

    def _guided(
        self, sample_BCTHW: Tensor, timestep: Tensor, text: Tensor, scale: float, **more: Any
    ) -> Tensor:
        """The network's prediction for one sample a text, guided where there are two texts."""
        rows = text.shape[0] // sample_BCTHW.shape[0]
        if rows == 1:
            return self._call(sample_BCTHW, timestep, text, **more)
        if self._guidance_in_one_call:
            both = self._call(torch.cat([sample_BCTHW] * 2), timestep, text, **more)
            first, second = both.chunk(2)
        else:
            first, second = (
                self._call(sample_BCTHW, timestep, half, **more) for half in text.chunk(2)
            )
        negative, positive = (first, second) if self.negative_first else (second, first)
        return negative + scale * (positive - negative)

    def _call(
        self, sample_BCTHW: Tensor, timestep: Tensor, text: Tensor, noise_level: int | None = None
    ) -> Tensor:
        batch = sample_BCTHW.shape[0]
        timestep_B = timestep.to(sample_BCTHW.device).expand(batch)
        more: dict[str, Any] = {}
        if self._reuse.interval > 1:
            more["deep"] = self._reuse.of_next_call()
        if noise_level is not None:
            more["noise_level_B"] = torch.full(
                (batch,), noise_level, device=sample_BCTHW.device, dtype=torch.long
            )
        out: Tensor = self.unet(sample_BCTHW, timestep_B, text, **more)
        return out

    def _denoise(self, noise_BCTHW: Tensor, predict: Predict, loop: Loop) -> Tensor:
        """From unit noise to clean latents.

        Args:
            noise_BCTHW: Standard normal noise.
            predict: The guided prediction for scaled noisy latents at a time.
            loop: Steps, noise and callback.

        Raises:
            NotFinite: The latents are no numbers any more after some step.
        """
        self.interrupt = False
        self.scheduler.set_timesteps(loop.num_steps, device=noise_BCTHW.device)
        latents = noise_BCTHW * self.scheduler.init_noise_sigma
        takes_generator = "generator" in inspect.signature(self.scheduler.step).parameters
        more = {"generator": loop.generator} if takes_generator else {}
        with self.progress_bar(total=loop.num_steps) as bar:
            for step, timestep in enumerate(self.scheduler.timesteps):
                self._reuse.begin_step(step)
                prediction = predict(self.scheduler.scale_model_input(latents, timestep), timestep)
                latents = self.scheduler.step(
                    prediction, timestep, latents, **more, return_dict=False
                )[0]
                where = f"{self.stage}, step {step + 1} of {loop.num_steps}"
                check_finite(latents, where, self.unet)
                if loop.callback is not None:
                    tensors = {"latents": latents} if "latents" in loop.callback_tensors else {}
                    latents = loop.callback(self, step, timestep, tensors).get("latents", latents)
                bar.update()
                if self.interrupt:
                    break
        self._reuse.forget()
        return latents

    def decoded(self, latents_BCTHW: Tensor) -> Iterator[Tensor]:
        """Groups of frames ``[B, 3, t, H, W]`` on the CPU, fp32, 0 to 1, in the order of time.

        Raises:
            NotFinite: The autoencoder makes no numbers of them.
        """
        autoencoder = self.autoencoder
        for group in torch.split(latents_BCTHW, self._frames_at_once, dim=2):
            pixels = autoencoder.decode(group.to(self._execution_device))
            check_finite(pixels, f"{self.stage}, decoded frames", cast(torch.nn.Module, self.vae))
            yield (pixels.float() / 2 + 0.5).clamp(0, 1).cpu()

    def _output(self, latents_BCTHW: Tensor, output_type: OutputType) -> VideoOutput:
        if output_type == "latent":
            return VideoOutput(frames=latents_BCTHW)
        video_BTCHW = torch.cat(list(self.decoded(latents_BCTHW)), dim=2).transpose(1, 2)
        if output_type == "pt":
            return VideoOutput(frames=video_BTCHW.contiguous())
        video_BTHWC = np.ascontiguousarray(video_BTCHW.permute(0, 1, 3, 4, 2).numpy())
        if output_type == "np":
            return VideoOutput(frames=video_BTHWC)
        from PIL import Image

        from inference.video_file import to_bytes

        videos = [to_bytes(video, rounds=self.rounds) for video in video_BTHWC]
        return VideoOutput(frames=[[Image.fromarray(frame) for frame in v] for v in videos])
