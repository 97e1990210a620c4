"""studio: a page on this machine to try the cascade."""

from __future__ import annotations

import importlib.util
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from curation.errors import LavieError, typed
from pipelines.places import check_writable, named_file

if TYPE_CHECKING:
    from pipelines.studio.page import Studio as Page


@dataclass(frozen=True, slots=True, kw_only=True)
class Studio:
    """Open a page on this machine to try prompts: stages, seed, steps, LoRAs, earlier samples."""

    weights: str = "released"
    """"released" (see `lavie weights`), folder of exported models, or "tiny": untrained, coloured noise."""
    stages: str = "base,interpolation,super-resolution"
    """Stages that can be asked for, with commas; their weights must be here."""
    out: Path = Path("samples")
    """Folder of the samples; earlier ones that lie there are shown."""
    loras: Path | None = None
    """Folder of LoRAs for the base network: .safetensors files, or folders as diffusers saves them."""
    port: int | None = None
    """Port on 127.0.0.1, 1 to 65535; None takes the first free one from 7860 on."""
    height: int = 320
    """Height in pixels of base and interpolated frames, a multiple of 8."""
    width: int = 512
    """Width in pixels of base and interpolated frames, a multiple of 8."""
    num_frames: int = 16
    """Frames of the base video, 1 to 16."""
    device: str = "auto"
    """cpu, cuda, cuda:1; auto takes CUDA where there is one."""
    dtype: str = "auto"
    """Number format fp32, fp16 or bf16; auto is fp16 on CUDA and fp32 on a processor."""
    low_memory: bool = False
    """Less than half the memory, slower: idle models wait on the processor, frames go one by one."""

    def __post_init__(self) -> None:
        """Raise ValueError for a port that cannot be listened on."""
        if self.port is not None and not 1 <= self.port <= 65_535:
            raise ValueError(f"port must be 1 to 65535, got {self.port}")

    def run(self) -> int:
        """Serve the page until it is interrupted."""
        if importlib.util.find_spec("gradio") is None:
            raise LavieError("the page needs Gradio: pip install 'lavie[studio]'")
        from pipelines.studio.page import serve

        made = self._page()
        check_writable(self.out, "--out")
        try:
            page, url = serve(made, port=self.port)
        except OSError as error:
            raise LavieError(str(error)) from error
        Console().print(f"{url}  (end with Ctrl-C)", soft_wrap=True, highlight=False)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            page.close(verbose=False)
        return 0

    def _page(self) -> Page:
        from inference.settings import CascadeConfig, MachineConfig
        from pipelines.commands.sampling import stage_names, stage_weights
        from pipelines.studio.page import Studio as Page
        from pipelines.studio.sampler import CascadeSampler, lora_files

        machine = MachineConfig(device=self.device, dtype=self.dtype, low_memory=self.low_memory)
        with typed("--stages"):
            stages = stage_names(self.stages)
        with named_file("--weights"):
            weights = stage_weights(self.weights, stages)
        with typed("--device, --dtype"):
            resolved = machine.resolved()
        with typed("--height, --width"):
            config = CascadeConfig(height=self.height, width=self.width)
        with typed("--num-frames"):
            config = replace(config, num_frames=self.num_frames)
        with named_file("--loras"):
            loras = {} if self.loras is None else lora_files(self.loras)
        with typed("--stages"):
            sampler = CascadeSampler(
                weights, resolved, config=config, loras=loras, label=f"weights: {self.weights}"
            )
        return Page(sampler, self.out)
