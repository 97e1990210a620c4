"""Reading tensors from files, and filling a network with exactly its own.

Safetensors hold tensors and nothing else. Pickled checkpoints are read with ``weights_only=True``
alone, which runs none of what they may hold.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

State = Mapping[str, Tensor]
MOST_NAMED = 20  # of the wrong keys that an error lists


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a ``.safetensors`` file, or of a pickled checkpoint of tensors.

    Args:
        path: The file. A checkpoint that keeps its tensors under "ema" is unwrapped, as is one that
            keeps them under "state_dict".

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file holds something else than tensors.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    try:
        held = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{path} is not a checkpoint of plain tensors and is not loaded: "
            f"{str(error).splitlines()[0]}"
        ) from error
    for wrapper in ("ema", "state_dict"):
        if isinstance(held, Mapping) and isinstance(held.get(wrapper), Mapping):
            held = held[wrapper]
    if not isinstance(held, Mapping) or not all(isinstance(v, Tensor) for v in held.values()):
        raise ValueError(f"{path} must hold a dictionary of tensors, got {type(held).__name__}")
    return dict(held)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a ``.safetensors`` file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is torn or something else.
    """
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from error


def wrong_keys(expected: State, got: State) -> list[str]:
    """One line for every key that is missing, unexpected or of another shape."""
    lines = [f"missing {key}" for key in sorted(expected.keys() - got.keys())]
    lines += [f"unexpected {key}" for key in sorted(got.keys() - expected.keys())]
    lines += [
        f"{key} has shape {tuple(got[key].shape)}, expected {tuple(expected[key].shape)}"
        for key in sorted(expected.keys() & got.keys())
        if got[key].shape != expected[key].shape
    ]
    return lines


def check_keys(expected: State, got: State, source: str) -> None:
    """Raise ValueError with the list of wrong keys, if there are any."""
    lines = wrong_keys(expected, got)
    if lines:
        more = f"\n  and {len(lines) - MOST_NAMED} more" if len(lines) > MOST_NAMED else ""
        listed = "\n  ".join(lines[:MOST_NAMED])
        raise ValueError(
            f"{source} does not fit the network; {len(lines)} keys are wrong:\n  {listed}{more}"
        )


def fill(net: nn.Module, state: State, source: str) -> None:
    """Give a network the tensors of a state dict: all of its own and no others.

    The tensors are taken as they are, dtype included, so a network on the meta device will do.
    Rotary frequencies that the file keeps in half precision are computed anew: rounded angles would
    stay with the network for good.

    Raises:
        ValueError: Keys or shapes differ; the message lists them.
    """
    check_keys(net.state_dict(), state, source)
    taken = dict(state)
    for name, module in net.named_modules():
        key = f"{name}.freqs"
        if key in taken and taken[key].element_size() < 4:
            taken[key] = type(module)().freqs
    net.load_state_dict(taken, strict=True, assign=True)
