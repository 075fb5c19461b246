"""When a training stops since its validation loss no longer falls. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass
class Patience:
    """Counts the epochs since that of the `lowest` validation loss; with `limit` of them the
    training ends. Without a limit it never does."""

    limit: int | None
    lowest: float = math.inf
    since: int = 0

    def add(self, loss: float) -> None:
        """Count an epoch with this validation loss."""
        self.since = 0 if loss < self.lowest else self.since + 1
        self.lowest = min(loss, self.lowest)

    def ended(self, epoch: int, epochs: int) -> str | None:
        """Why the training ends after `epoch` of `epochs`, or None; the last ends it anyway."""
        if self.limit is None or self.since < self.limit or epoch >= epochs:
            return None
        plural = "" if self.limit == 1 else "s"
        return (
            f"validation loss did not fall for {self.limit} epoch{plural}: {epoch} of {epochs} "
            "epochs trained"
        )

    def state(self) -> dict[str, float]:
        return {"lowest": self.lowest, "since": self.since}

    def restore(self, state: Mapping[str, float]) -> None:
        self.lowest, self.since = state["lowest"], int(state["since"])
