"""How a job is cut over GPUs: degrees of parallelism, micro-batches, layers of the first and the last stage."""

from dataclasses import dataclass, replace
from math import lcm
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.spec import SpecError

Recompute = Literal["none", "selective", "full"]
"""What the backward pass computes again instead of keeping: nothing, the attention core, or whole layers."""


@dataclass(frozen=True)
class Plan:
    """How a job is cut: ``dp`` replicas of ``pp`` stages of ``cp`` x ``tp`` ranks; ``micro_batch`` sequences at a time.

    Rank (d, p, c, t), counted from 0, is ``((d * pp + p) * cp + c) * tp + t``. ``cp`` ranks share the tokens of a sequence.
    ``ep`` of the dp x cp ranks that hold the same matrices share the experts; a token goes once to each ``expert_group`` of
    these next to each other that has experts of its own, and is copied there. A stage has ``virtual_stages`` chunks of
    layers, pp chunks apart. ``zero`` cuts dp x cp ways: 1 the optimiser's state, 2 gradients too, 3 weights too.
    ``first_layers`` and ``last_layers`` are those of the first and the last stage, the rest dealt out to the stages between,
    the left-over to stages as far apart as can be; 0 deals out all layers, the left-over to the first stages.
    """

    dp: int
    tp: int
    pp: int
    micro_batch: int
    recompute: Recompute = "none"
    ep: int = 1
    cp: int = 1
    virtual_stages: int = 1
    zero: int = 0
    first_layers: int = 0
    last_layers: int = 0
    expert_group: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.zero <= 3:
            raise SpecError("Plan", "zero", "from 0 to 3", repr(self.zero))
        # Experts are dealt out among ranks that hold the same matrices, in groups of equal size.
        if self.dp * self.cp % self.ep:
            raise SpecError("Plan", "ep", f"a divisor of dp * cp ({self.dp * self.cp})", repr(self.ep))
        if self.expert_group < 1 or self.ep % self.expert_group:
            raise SpecError("Plan", "expert_group", f"a divisor of ep ({self.ep})", repr(self.expert_group))
        given = self.first_layers > 0, self.last_layers > 0
        if any(given) and not (all(given) and self.pp > 1 and self.virtual_stages == 1):
            must_be = "both 0, or both above 0 with pp above 1 and virtual_stages 1"
            raise ValueError(
                f"Plan.first_layers and last_layers must be {must_be}, not {self.first_layers}, {self.last_layers}"
            )

    @property
    def gpus(self) -> int:
        """GPUs that the plan needs, one per rank."""
        return self.dp * self.tp * self.pp * self.cp

    @property
    def replicas(self) -> int:
        """Ranks that hold the same matrices, experts apart, and sum their gradients."""
        return self.dp * self.cp

    @property
    def block(self) -> int:
        """Replicas, counted as in ``by_replica``, that are whole with all that they share sequences or experts with."""
        return lcm(self.ep, self.cp)

    @property
    def by_replica(self) -> NDArray[np.int32]:
        """``[replica, stage, tensor rank]``: the rank; the cp ranks that share sequences are replicas next to each other."""
        ranks = np.arange(self.gpus, dtype=np.int32).reshape(self.dp, self.pp, self.cp, self.tp)
        return ranks.swapaxes(1, 2).reshape(self.replicas, self.pp, self.tp)

    @property
    def degrees(self) -> tuple[int, int, int]:
        """The degrees of parallelism, in the order (dp, tp, pp)."""
        return self.dp, self.tp, self.pp

    @property
    def grouped(self) -> list["Plan"]:
        """The same plan with each size of ``expert_group`` that differs; one group of all ranks is as no groups."""
        return [replace(self, expert_group=size) for size in group_sizes(self.ep)]


def group_sizes(ep: int) -> list[int]:
    """Sizes of groups of ``ep`` ranks that differ; one group of all ranks is as no groups."""
    return [size for size in range(1, max(ep, 2)) if ep % size == 0]
