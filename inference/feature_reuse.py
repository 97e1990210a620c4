"""Fewer full calls of a network: its deep features serve several steps (DeepCache, arXiv 2312.00858).

Every n-th step is computed whole; the steps between compute the first and the last layer and take
the rest over. Calls are told apart by their order within a step, which is the same at every step, so
windows and both prompts of guidance have features of their own.
"""

from training.models.unet import DeepFeatures


class FeatureReuse:
    """Deep features of every call of a step, kept for the steps that follow.

    Args:
        interval: n; 1 computes every step whole.
    """

    def __init__(self, interval: int) -> None:
        if interval < 1:
            raise ValueError(f"interval must be at least 1, got {interval}")
        self.interval = interval
        self._held: list[DeepFeatures] = []
        self._calls = 0

    def begin_step(self, step: int) -> None:
        """A step begins; every n-th forgets what is held."""
        self._calls = 0
        if step % self.interval == 0:
            self._held.clear()

    def of_next_call(self) -> DeepFeatures:
        """Features of the next call of this step, empty where they must be computed."""
        if self._calls == len(self._held):
            self._held.append(DeepFeatures())
        self._calls += 1
        return self._held[self._calls - 1]

    def forget(self) -> None:
        """Free the memory."""
        self._held.clear()
