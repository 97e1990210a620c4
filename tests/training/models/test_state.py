import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from training.models.state import fill, read_tensors
from training.models.unet import UNet


class Bomb:
    """Runs a command when unpickled the ordinary way."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (os.mkdir, (str(self.marker),))


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"ema": s}, lambda s: {"state_dict": s}])
def test_a_checkpoint_is_read_bare_or_wrapped(wrap, tmp_path):
    state = {"a": torch.arange(3.0), "b": torch.ones(2, 2)}
    torch.save(wrap(state), tmp_path / "x.pt")
    back = read_tensors(tmp_path / "x.pt")
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], state[key]) for key in state)


def test_a_safetensors_file_is_read(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "x.safetensors")
    assert torch.equal(read_tensors(tmp_path / "x.safetensors")["a"], torch.ones(2))


def test_a_checkpoint_that_runs_code_is_refused_and_does_not_run(tmp_path):
    marker = tmp_path / "exploded"
    torch.save({"ema": {"a": torch.ones(1)}, "more": Bomb(marker)}, tmp_path / "x.pt")
    with pytest.raises(ValueError, match="not a checkpoint of plain tensors and is not loaded"):
        read_tensors(tmp_path / "x.pt")
    assert not marker.exists()


def test_a_bare_pickle_is_refused(tmp_path):
    marker = tmp_path / "exploded"
    (tmp_path / "x.pt").write_bytes(pickle.dumps(Bomb(marker)))
    with pytest.raises(ValueError, match="is not loaded"):
        read_tensors(tmp_path / "x.pt")
    assert not marker.exists()


def test_a_torn_file_is_refused(tmp_path):
    torch.save({"a": torch.ones(1000)}, tmp_path / "x.pt")
    whole = (tmp_path / "x.pt").read_bytes()
    (tmp_path / "x.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="is not loaded"):
        read_tensors(tmp_path / "x.pt")


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    torch.save({"ema": {"step": 3}}, tmp_path / "x.pt")
    with pytest.raises(ValueError, match="must hold a dictionary of tensors"):
        read_tensors(tmp_path / "x.pt")


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*lavie_base\.pt"):
        read_tensors(tmp_path / "lavie_base.pt")


def test_rotary_frequencies_kept_in_half_precision_are_computed_anew(tiny_net, tiny_config):
    state = tiny_net("base").state_dict()
    half = {k: v.half() if k.endswith("freqs") else v for k, v in state.items()}
    with torch.device("meta"):
        net = UNet(tiny_config("base"))
    fill(net, half, "a file")
    got = net.state_dict()
    assert all(torch.equal(got[key], state[key]) for key in state)


def test_the_list_of_wrong_keys_ends_somewhere(tiny_net, tiny_config):
    with pytest.raises(ValueError, match=r"(?s)530 keys are wrong.*missing.*and 510 more"):
        fill(UNet(tiny_config("base")), {}, "an empty file")
