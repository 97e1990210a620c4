"""The trainer under its three launchers: alone, torchrun, Ray Train.

Ray Train brings processes, restarts and elasticity; data and checkpoints are the trainer's own, so
that a run begun under one launcher goes on under another. Ray Data feeds no training here: its
iterators cannot be put back to a step.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError, report
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from curation.errors import LavieError
from pipelines.ray_cluster import start_ray
from pipelines.ray_config import RayConfig
from pipelines.training_samples import VideoSamples, check_sampling
from training.distributed import process_group
from training.run_config import TrainConfig
from training.trainer import Hooks, Outcome, Trainer, train

logger = logging.getLogger(__name__)

POLL_S = 0.2
"""How soon a signal is passed on to the workers."""
OnLog = Callable[[int, Mapping[str, float]], None]
OnBegin = Callable[[Trainer], None]


def train_here(
    config: TrainConfig, run: str, *, on_log: OnLog, on_begin: OnBegin | None = None
) -> Outcome:
    """Train in this process, which may be one of those that torchrun started.

    SIGTERM, or Ctrl-C once, makes all ranks finish the step, save and return; Ctrl-C again stops now.

    Args:
        config: the run.
        run: its folder or object-store prefix.
        on_log: told of curves, on rank 0.
        on_begin: told on rank 0 when everything is checked.
    """
    check_sampling(config)
    with _asked_to_stop() as asked, process_group() as ranks:
        hooks = Hooks(
            on_begin=on_begin if ranks.is_first else None,
            on_log=on_log if ranks.is_first else None,
            on_sample=VideoSamples(),
            stop=asked.is_set,
        )
        return train(config, run, ranks, hooks)


class Messages:
    """What driver and workers of a run on Ray tell each other, in an actor beside the driver."""

    def __init__(self) -> None:
        self._asked = False
        self._outcome: Outcome | None = None

    def ask_to_stop(self) -> None:
        """The driver got a signal."""
        self._asked = True

    def is_asked(self) -> bool:
        """Whether the workers are to save and return; asked by the first rank after each step."""
        return self._asked

    def end(self, outcome: Outcome) -> None:
        """The workers returned."""
        self._outcome = outcome

    def outcome(self) -> Outcome | None:
        """How the run ended; None where it never did."""
        return self._outcome


def train_on_ray(config: TrainConfig, run: str, how: RayConfig) -> Outcome:
    """Train in workers of Ray Train; curves and checkpoints go to the run's folder.

    Signals to this process do what they do in `train_here`, on all workers. While workers wait for
    room on the cluster there is nothing to save: only the second Ctrl-C ends that.

    Raises:
        LavieError: the workers failed more often than `how` allows, or by a fault of the run.
    """
    check_sampling(config)
    start_ray(how.address, outlives_sigterm=True)
    most = how.num_workers
    workers: Any = most if how.min_workers is None else (how.min_workers, most)
    resources: dict[str, float] = {"CPU": how.cpus_per_worker}
    if how.gpus:
        resources["GPU"] = 1
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    messages: Any = ray.remote(Messages).options(num_cpus=0, scheduling_strategy=here).remote()
    trainer = TorchTrainer(
        _on_worker,
        train_loop_config={"config": config, "run": run, "messages": messages},
        scaling_config=ScalingConfig(
            num_workers=workers, use_gpu=how.gpus, resources_per_worker=resources
        ),
        torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if how.gpus else "gloo"),
        run_config=RunConfig(
            name="lavie",
            storage_path=how.storage,
            failure_config=FailureConfig(max_failures=how.max_failures),
        ),
    )
    try:
        _fit(trainer, messages)
    except TrainingFailedError as error:
        raise LavieError(f"Ray Train gave up: {error}") from error
    outcome: Outcome | None = ray.get(messages.outcome.remote())
    if outcome is None:
        raise LavieError("Ray Train ended, and no worker said how far it came")
    return outcome


def _fit(trainer: TorchTrainer, messages: Any) -> None:
    """Wait for the workers, and pass on a signal.

    Ray Train aborts without saving on Ctrl-C, but only if called on the main thread.
    """
    failed: list[BaseException] = []
    ended = threading.Event()

    def fit() -> None:
        try:
            trainer.fit()
        except BaseException as error:  # noqa: BLE001 - raised again on the main thread
            failed.append(error)
        finally:
            ended.set()

    with _asked_to_stop() as asked:
        # A daemon: it does not keep a process that the second Ctrl-C ends.
        threading.Thread(target=fit, name="ray-train", daemon=True).start()
        told = False
        while not ended.wait(POLL_S):
            if asked.is_set() and not told:
                messages.ask_to_stop.remote()
                told = True
    if failed:
        raise failed[0]


def _on_worker(given: dict[str, Any]) -> None:
    def on_log(step: int, values: Mapping[str, float]) -> None:
        report({"step": step, **values})  # a barrier: every rank logs at the same steps

    messages = given["messages"]
    with process_group() as ranks:

        def stop() -> bool:  # the trainer tells the other ranks
            return ranks.is_first and bool(ray.get(messages.is_asked.remote()))

        hooks = Hooks(on_log=on_log, on_sample=VideoSamples(), stop=stop)
        outcome = train(given["config"], given["run"], ranks, hooks)
        if ranks.is_first:
            ray.get(messages.end.remote(outcome))


@contextmanager
def _asked_to_stop() -> Iterator[threading.Event]:
    """An event that SIGTERM and the first Ctrl-C set; the second Ctrl-C is a KeyboardInterrupt."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def stop(number: int, _: object) -> None:
        asked.set()
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            logger.warning("finishing this step and saving; Ctrl-C again stops now, unsaved")

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
