"""Curves, bins, spikes and the journal."""

import json
import math

import pytest
import torch

from training.distributed import Ranks
from training.losses import FrameErrors
from training.metrics import FlopCounts, Journal, LossSums, StepRecord, TooManyBadSteps, Watchdog
from training.models.tiny import tiny_config
from training.models.unet import UNet
from training.stages import Feed

ALONE = Ranks(0, 1, torch.device("cpu"))


def step(number: int, loss: float, *, skipped: bool = False) -> StepRecord:
    return StepRecord(step=number, loss=loss, gradient_norm=1.0, skipped=skipped)


def watchdog(max_bad: int = 2) -> Watchdog:
    return Watchdog(3.0, max_bad, lambda number: [f"clip-{number}"])


def test_losses_are_means_by_kind_and_by_tenth_of_the_time():
    sums = LossSums(ALONE.device)
    sums.add_errors(
        FrameErrors(torch.tensor([1.0, 3.0, 8.0]), torch.tensor([10.0, 20.0, 30.0])),
        torch.tensor([0, 99, 999]),
    )
    sums.add_step(7, torch.tensor(2.5), torch.tensor(0.5), torch.tensor(0.0))
    steps, losses = sums.read(ALONE)
    assert steps == [StepRecord(step=7, loss=2.5, gradient_norm=0.5, skipped=False)]
    assert losses["loss/video"] == 4.0
    assert losses["loss/image"] == 20.0
    assert losses["loss_by_time/video/0"] == 2.0
    assert losses["loss_by_time/video/9"] == 8.0
    assert losses["loss_by_time/image/0"] == 15.0
    assert "loss_by_time/video/5" not in losses


def test_an_error_that_is_not_finite_does_not_spoil_the_curves():
    sums = LossSums(ALONE.device)
    sums.add_errors(FrameErrors(torch.tensor([1.0, math.nan]), None), torch.tensor([5, 5]))
    sums.add_step(0, torch.tensor(math.nan), torch.tensor(1.0), torch.tensor(1.0))
    steps, losses = sums.read(ALONE)
    assert steps[0].skipped
    assert losses == {"loss/video": 1.0, "loss_by_time/video/0": 1.0}


def test_a_leap_of_the_loss_names_its_clips():
    dog = watchdog()
    assert dog.look([step(number, 1.0) for number in range(30)]) == []
    (event,) = dog.look([step(30, 1.1), step(31, 3.5), step(32, 0.9)])
    assert (event["event"], event["step"], event["clip_ids"]) == ("spike", 31, ["clip-31"])
    assert event["median"] == 1.0


def test_the_first_steps_are_no_spikes():
    assert watchdog().look([step(0, 0.1), step(1, 5.0)]) == []


def test_too_many_steps_that_are_not_finite_stop_the_run():
    dog = watchdog(max_bad=2)
    events = dog.look([step(number, math.nan, skipped=True) for number in range(2)])
    assert [event["clip_ids"] for event in events] == [["clip-0"], ["clip-1"]]
    dog.stop_if_too_many()
    dog.look([step(2, math.nan, skipped=True)])
    with pytest.raises(TooManyBadSteps, match=r"3 steps .* 2 are allowed"):
        dog.stop_if_too_many()


def test_a_resumed_journal_forgets_what_will_be_repeated_and_a_torn_line(tmp_path):
    journal = Journal(tmp_path, from_step=0, wandb_project=None)
    for number in range(4):
        journal.write(number, {"loss": 1.0 / (number + 1)})
    journal.close()
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # a kill in the middle of a line
    journal = Journal(tmp_path, from_step=2, wandb_project=None)
    journal.write(2, {"loss": 9.0})
    journal.close()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(0, 1.0), (1, 0.5), (2, 9.0)]


def test_curves_can_be_read_by_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    journal = Journal(tmp_path, from_step=0, wandb_project=None)
    journal.write(3, {"loss": 0.25})
    journal.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    (point,) = events.Scalars("loss")
    assert (point.step, point.value) == (3, 0.25)


def test_flop_of_a_step_are_about_three_forwards_and_fewer_where_little_learns():
    """Backward costs two forwards: inputs and weights have gradients; attention costs a little more."""
    from torch.utils.flop_counter import FlopCounterMode

    config = tiny_config("base")
    net = UNet(config)
    x, t = torch.randn(1, 4, 4, 8, 8), torch.tensor([5])
    feed = Feed(
        sample_BCFhw=x,
        timestep_B=t,
        text=torch.randn(1, 7, config.cross_attention_dim),
        num_images=0,
        x0_BCFhw=x,
        eps_BCFhw=x,
    )
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(x, t, feed.text)
    forward = counter.get_total_flops()
    everything = frozenset(name for name, _ in net.named_parameters())
    whole = FlopCounts(config, everything).of(feed)
    assert 2.7 < whole / forward < 3.3
    temporal = frozenset(name for name in everything if "_temp" in name)
    assert FlopCounts(config, temporal).of(feed) < 0.8 * whole
