"""What a network makes must be numbers: a broken weight or too small a format shows where it happens."""

import torch
from torch import Tensor, nn

from curation.errors import NotFinite


def check_finite(values: Tensor, what: str, network: nn.Module) -> None:
    """Stop where a network made infinities or no numbers at all.

    Args:
        values: What it made.
        what: Begins the message, such as "base, step 3 of 50".
        network: Whose weights are looked through for the cause.

    Raises:
        NotFinite: The message says how many numbers, and what is known of the cause.
    """
    finite = values.isfinite()
    if finite.all():
        return
    num_odd = values.numel() - int(finite.sum())
    raise NotFinite(
        f"{what}: {num_odd} of {values.numel()} numbers are not finite; {_cause(network)}"
    )


def _cause(network: nn.Module) -> str:
    odd = [
        name
        for name, weight in network.state_dict().items()
        if weight.is_floating_point() and not weight.isfinite().all()
    ]
    name = type(network).__name__
    if odd:
        return f"{len(odd)} weights of {name} hold such numbers themselves, the first is {odd[0]}"
    if any(weight.dtype == torch.float16 for weight in network.parameters()):
        return f"the weights of {name} are finite, but fp16 ends at 65504: take fp32 or bf16"
    return f"the weights of {name} are finite, so they are too large, or what they are given is odd"
