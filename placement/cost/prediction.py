"""How good a plan is: where its iteration's time goes, what it holds and sends, and the rates that say so."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightfabric.placement.cost.gemm import Seconds
from lightfabric.placement.plan import Plan

Rate = NDArray[np.float64]
PARTS = ("compute", "tensor", "pipeline", "bubble", "data", "optimiser")


@dataclass(frozen=True)
class Prediction:
    """Seconds of an iteration by part, of one plan or ``[case]``; parts do not overlap: they add up.

    ``reconfiguration`` is what circuits take to change, on fabrics of light; so much of ``compute`` goes on ``beside`` sums
    of gradients, behind all other traffic, and there are so many ``exchanges`` one after the other, ``gathers`` of keys and
    values among them. ``memory`` is that of
    the fullest GPU, ``sent_bytes`` go from a GPU to its neighbours; None where nobody asks.
    """

    compute: Any
    tensor: Any
    pipeline: Any
    bubble: Any
    data: Any
    optimiser: Any
    reconfiguration: Any = 0.0
    beside: Any = 0.0
    exchanges: Any = 0
    gathers: Any = 0
    memory: Any = None
    sent_bytes: Any = None
    plan: Plan | None = None

    @property
    def total(self) -> Any:
        """How long the whole iteration takes."""
        return sum(self.parts.values()) + self.reconfiguration

    @property
    def parts(self) -> dict[str, Any]:
        """What each part takes, by its name."""
        return {name: getattr(self, name) for name in PARTS}

    def at(self, plan: Plan, index: Any = ()) -> "Prediction":
        """Take one case out of the columns, as numbers."""
        # A part may be one number for all cases, which has no entry of its own.
        shape = np.shape(self.total)
        parts = {name: float(np.broadcast_to(seconds, shape)[index]) for name, seconds in self.parts.items()}
        sent_bytes = int(np.broadcast_to(self.sent_bytes, shape)[index])
        return Prediction(**parts, memory=self.memory.at(index), sent_bytes=sent_bytes, plan=plan)


@dataclass(frozen=True)
class Rates:
    """Payload bytes/s, or arrays of them, at which a rank sends to its next tensor, pipeline and data neighbour.

    ``expert`` is that to all ranks that it exchanges tokens with together, ``data`` if None. A ``wait`` is the seconds that
    a message of a part is on its way however small it is.
    """

    tensor: Any
    pipeline: Any
    data: Any
    expert: Any = None
    tensor_wait: Any = 0.0
    pipeline_wait: Any = 0.0
    expert_wait: Any = 0.0
    data_wait: Any = 0.0

    @property
    def network(self) -> "Network":
        """Put rates and waits side by side, those of context parallelism with the rate of data."""
        rates = (self.tensor, self.pipeline, self.data, self.data if self.expert is None else self.expert)
        tensor, pipeline, data, expert = (np.asarray(rate, np.float64) for rate in rates)
        return Network(
            tensor, data, expert, data, data, pipeline, transfer_seconds=self.pipeline_wait,
            exchange_seconds=self.expert_wait, graph_exchange_seconds=self.expert_wait,
            tensor_step_seconds=self.tensor_wait, data_step_seconds=self.data_wait,
        )  # fmt: skip


@dataclass(frozen=True)
class Network:
    """Payload bytes/s at which a rank sends to its next neighbour of each dimension, ``[case]``, and what starting costs.

    A collective takes ``start_seconds`` and ``member_seconds`` for each member but one, and ``chunk_root_seconds`` times
    the root of its time on the wire; a transfer between stages ``transfer_seconds``: 0 where a fabric's own model has them.
    ``gather`` is the rate at which sharded weights are collected. Experts are on ``islands`` of ranks, inside of which
    tokens go at ``island``, and an exchange of tokens takes ``exchange_seconds`` more to begin, where the host does not wait
    for counts ``graph_exchange_seconds``. Each step round a ring takes ``tensor_step_seconds`` more, and so on.
    """

    tensor: Rate
    context: Rate
    expert: Rate
    data: Rate
    gather: Rate
    pipeline: Rate
    start_seconds: float = 0.0
    member_seconds: float = 0.0
    chunk_root_seconds: float = 0.0
    transfer_seconds: float = 0.0
    islands: Any = 1
    island: Any = np.inf
    exchange_seconds: float = 0.0
    graph_exchange_seconds: float = 0.0
    tensor_step_seconds: float = 0.0
    context_step_seconds: float = 0.0
    data_step_seconds: float = 0.0

    def pass_seconds(self, rate: Any, size_bytes: Any, members: Any, passes: int = 1, step_seconds: float = 0.0) -> Seconds:
        """A collective of ``size_bytes`` per member: reduce-scatter or all-gather is a pass round a ring, all-reduce two."""
        wire = passes * (members - 1) / members * size_bytes / rate
        start = self.start_seconds + (self.member_seconds + passes * step_seconds) * (members - 1)
        return np.where(members > 1, start + wire + self.chunk_root_seconds * np.sqrt(wire), 0.0)
