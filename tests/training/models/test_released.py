from dataclasses import replace

import pytest
import torch
import tyro
from safetensors.torch import load_file

from curation.errors import LavieError, MissingWeights
from pipelines.commands.weights import Weights, known_files
from training.models import released
from training.models.exported import load_model
from training.models.released import load_released, released_files
from training.models.schedule import Objective

STAGES = ("base", "interpolation", "super_resolution")


@pytest.fixture
def tiny_release(monkeypatch, tiny_config):
    """Let the released networks be tiny, as nobody has gigabytes in a test."""
    for stage in STAGES:
        monkeypatch.setitem(released.CONFIGS, stage, lambda stage=stage: tiny_config(stage))


def test_the_files_of_the_release_are_pinned_to_their_bytes():
    lavie = {file.name: file for file in released_files() if file.group == "lavie"}
    assert set(lavie) == set(released.CHECKPOINT_OF.values())
    assert all(len(file.sha256) == 64 and file.size_bytes > 2e9 for file in lavie.values())
    base = lavie["lavie_base.pt"]
    assert base.url == "https://huggingface.co/Vchitect/LaVie/resolve/main/lavie_base.pt"


def test_names_of_released_files_are_unique_and_none_is_pickled_but_lavies_own():
    files = released_files()
    assert len({file.name for file in files}) == len(files)
    pickled = [file.group for file in files if file.path.endswith((".pt", ".bin", ".ckpt"))]
    assert set(pickled) == {"lavie"}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("wrap", [lambda s: {"ema": s}, lambda s: s], ids=["ema", "bare"])
def test_a_released_checkpoint_loads_strictly(stage, wrap, tiny_net, tiny_release, tmp_path):
    state = tiny_net(stage).state_dict()
    torch.save(wrap(state), tmp_path / "x.pt")
    got = load_released(tmp_path / "x.pt", stage).state_dict()
    assert all(torch.equal(got[key], state[key]) for key in state)


def test_a_checkpoint_of_another_stage_is_refused_with_the_wrong_keys(
    tiny_net, tiny_release, tmp_path
):
    torch.save({"ema": tiny_net("base").state_dict()}, tmp_path / "x.pt")
    wrong = r"(?s)keys are wrong:\n  unexpected .*time_rel_pos_bias"
    with pytest.raises(ValueError, match=wrong):
        load_released(tmp_path / "x.pt", "interpolation")
    with pytest.raises(ValueError, match=r"stage must be one of base, .* got 'vsr'"):
        load_released(tmp_path / "x.pt", "vsr")


def test_a_loaded_network_learns(tiny_net, tiny_config, inputs, tmp_path):
    torch.save({"ema": tiny_net("base").state_dict()}, tmp_path / "x.pt")
    net = load_released(tmp_path / "x.pt", "base", replace(tiny_config("base")))
    net(**inputs(net)).mean().backward()
    assert all(p.grad is not None for p in net.parameters())


def weights(*arguments):
    """Run `lavie weights` with these arguments."""
    return tyro.cli(
        Weights, args=[*map(str, arguments)], config=(tyro.conf.OmitSubcommandPrefixes,)
    ).run()


def convert(*arguments):
    return weights("convert", *arguments)


@pytest.mark.parametrize("stage", STAGES)
def test_convert_writes_a_model_folder(stage, tiny_net, tiny_release, tmp_path):
    state = tiny_net(stage).state_dict()
    torch.save({"ema": state}, tmp_path / "x.pt")
    assert convert(stage, "--checkpoint", tmp_path / "x.pt", "--out", tmp_path / "m") == 0
    model = load_model(tmp_path / "m", Objective.of(stage))
    got = model.net.state_dict()
    assert all(torch.equal(got[key], state[key]) for key in state)
    assert model.origin.startswith("x.pt sha256 ")


def test_convert_halves_on_request_but_not_the_rotary_frequencies(tiny_net, tiny_release, tmp_path):
    torch.save({"ema": tiny_net("base").state_dict()}, tmp_path / "x.pt")
    flags = ("--checkpoint", tmp_path / "x.pt", "--out", tmp_path / "m", "--dtype", "bf16")
    convert("base", *flags)
    tensors = load_file(tmp_path / "m" / "unet" / "model.safetensors")
    kinds = {key.endswith("freqs"): value.dtype for key, value in tensors.items()}
    assert kinds == {True: torch.float32, False: torch.bfloat16}


def test_convert_says_what_is_missing_and_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("LAVIE_CACHE", str(tmp_path))
    with pytest.raises(MissingWeights, match=r"lavie_base\.pt .*lavie weights fetch lavie_base"):
        convert("base", "--out", tmp_path / "m")
    with pytest.raises(LavieError, match=r"no checkpoint at .*gone\.pt"):
        convert("base", "--checkpoint", tmp_path / "gone.pt", "--out", tmp_path / "m")


def test_check_finds_a_file_with_other_bytes(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LAVIE_CACHE", str(tmp_path))
    (tmp_path / "lavie_vsr.pt").write_bytes(b"not these")
    assert weights("check", "lavie") == 1
    assert capsys.readouterr().out.splitlines() == [
        "lavie_base.pt: missing",
        "lavie_interpolation.pt: missing",
        "lavie_vsr.pt: wrong bytes",
    ]


def test_list_names_every_released_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LAVIE_CACHE", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    assert weights("list") == 0
    shown = capsys.readouterr().out
    assert all(file.name in shown for file in released_files())
    assert "stable-diffusion-1.4/vae/config.json" in known_files()
