"""What sampling takes from diffusers, imported behind the torchvision shim.

A pipeline is a subclass of diffusers', so importing it imports diffusers, and that imports
torchvision. Every other module here takes diffusers' names from this one, so that the shim comes
first in every process.
"""

from curation.weights.torchvision_shim import ensure_torchvision

ensure_torchvision()

from diffusers.configuration_utils import ConfigMixin, register_to_config  # noqa: E402
from diffusers.loaders.lora_pipeline import StableDiffusionLoraLoaderMixin  # noqa: E402
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint  # noqa: E402
from diffusers.loaders.textual_inversion import TextualInversionLoaderMixin  # noqa: E402
from diffusers.pipelines.pipeline_utils import DiffusionPipeline  # noqa: E402
from diffusers.schedulers.scheduling_ddim import DDIMScheduler  # noqa: E402
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler  # noqa: E402
from diffusers.schedulers.scheduling_dpmsolver_multistep import (  # noqa: E402
    DPMSolverMultistepScheduler,
)
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler  # noqa: E402
from diffusers.schedulers.scheduling_utils import SchedulerMixin  # noqa: E402
from diffusers.utils.outputs import BaseOutput  # noqa: E402
from diffusers.utils.peft_utils import (  # noqa: E402
    delete_adapter_layers,
    recurse_remove_peft_layers,
    set_weights_and_activate_adapters,
)
from diffusers.utils.state_dict_utils import (  # noqa: E402
    DIFFUSERS_OLD_TO_PEFT,
    UNET_TO_DIFFUSERS,
    convert_state_dict,
)
from diffusers.utils.torch_utils import randn_tensor  # noqa: E402

__all__ = [
    "DIFFUSERS_OLD_TO_PEFT",
    "UNET_TO_DIFFUSERS",
    "BaseOutput",
    "ConfigMixin",
    "DDIMScheduler",
    "DDPMScheduler",
    "DPMSolverMultistepScheduler",
    "DiffusionPipeline",
    "EulerDiscreteScheduler",
    "SchedulerMixin",
    "StableDiffusionLoraLoaderMixin",
    "TextualInversionLoaderMixin",
    "convert_ldm_unet_checkpoint",
    "convert_state_dict",
    "delete_adapter_layers",
    "randn_tensor",
    "recurse_remove_peft_layers",
    "register_to_config",
    "set_weights_and_activate_adapters",
]
