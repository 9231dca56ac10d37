"""Time of a pipeline: its slowest stage, what stages wait for each other in steady state, and to begin and to end."""

from dataclasses import dataclass

import numpy as np

from lightfabric.placement.cost.calibration import Calibration
from lightfabric.placement.cost.gemm import Seconds
from lightfabric.placement.cost.layer import logit_seconds, lookup_seconds, next_token_seconds
from lightfabric.placement.workload.case import DUALPIPE, ZERO_BUBBLE, Cases, where


@dataclass(frozen=True)
class Stages:
    """Both passes of a micro-batch, ``[case]``: through the first stage, all between, the last, and through the slowest.

    ``compute`` and ``tensor`` are computation and communication of the slowest; all others are both together.
    """

    first: Seconds
    between: Seconds
    last: Seconds
    compute: Seconds
    tensor: Seconds

    @property
    def slowest(self) -> Seconds:
        """What computation and communication of the slowest stage take."""
        return self.compute + self.tensor

    @property
    def everything(self) -> Seconds:
        """All stages, one after the other."""
        return self.first + self.between + self.last


def stages(cases: Cases, fitted: Calibration, layer: Seconds, tensor: Seconds) -> Stages:
    """Stages of layers that compute for ``layer`` and communicate for ``tensor``; one alone is first, others are empty."""
    logits, lookup, alone = sum(logit_seconds(cases, fitted)), 2 * lookup_seconds(cases, fitted), cases.pp == 1
    if np.any(cases.next_tokens):
        logits = logits + cases.next_tokens * next_token_seconds(cases, fitted, layer)
    first, middle, last = cases.layers_at
    last = where(alone, 0, last)
    ends = (lookup + where(alone, logits, 0), 0.0, where(alone, 0, logits))
    computes = np.broadcast_arrays(*(n * layer + end for n, end in zip((first, middle, last), ends, strict=True)))
    further = (where(alone, cases.next_tokens, 0), 0, where(alone, 0, cases.next_tokens))
    tensors = np.broadcast_arrays(*((n + more) * tensor for n, more in zip((first, middle, last), further, strict=True)))
    times = [compute + reduced for compute, reduced in zip(computes, tensors, strict=True)]
    between = (cases.layers - first - last) * (layer + tensor)
    # DualPipe's first GPU has the last stage, too, for half of the micro-batches each [DeepSeek-V3, 3.2.1].
    both = (cases.schedule == DUALPIPE) & (cases.pp > 1)
    computes, tensors = ([where(both, (ends[0] + ends[2]) / 2, ends[0]), *ends[1:]] for ends in (computes, tensors))
    # Both times must be of one stage, that which is slowest in their sum.
    paces = [computes[0] + tensors[0], times[1], where(both, 0.0, times[2])]
    slowest = np.argmax(np.stack(np.broadcast_arrays(*paces)), axis=0)
    return Stages(times[0], between, times[2], np.choose(slowest, computes), np.choose(slowest, tensors))


def wait_seconds(cases: Cases, stages: Stages, transfer: Seconds) -> Seconds:
    """By how much a micro-batch takes longer than the slowest stage in the steady state of 1F1B.

    k stages in a row hold k micro-batches in a loop of their passes and 2 (k - 1) transfers, so a row of slow stages sets
    the pace: all of them, all but an end, all between, or those at the front that have a layer more. Interleaved, a stage
    has passes of another chunk to run while it waits.
    """
    p, v, left = cases.pp, cases.virtual_stages, where(cases.first_layers > 0, 0, cases.layers % cases.pp)
    rows = (
        (stages.everything, p),
        (stages.first + stages.between, p - 1),
        (stages.between + stages.last, p - 1),
        (stages.between, p - 2),
        (stages.first * left, left),
    )
    # Rows that a short pipeline does not have are of no stages, and are no slower than the slowest stage.
    paces = [(seconds + 2 * (k - 1) * transfer) / np.maximum(k, 1) for seconds, k in rows]
    together = np.maximum(np.maximum.reduce(np.broadcast_arrays(*paces)) - stages.slowest, 0)
    interleaved = v * (p - 1) / p * np.maximum(0, 2 * transfer - stages.slowest / v)
    return where(v > 1, interleaved, together)


def bubble_seconds(cases: Cases, stages: Stages, by_weights: Seconds) -> Seconds:
    """Time in which the slowest stage waits to begin and to end.

    GPipe's and 1F1B's are the same. Zero-bubble (ZB-H1) fills it with the backward passes by weights [Qi 2023, table 1];
    DualPipe feeds half as many stages from either end and runs a forward beside a backward pass, which is two thirds of
    both [DeepSeek-V3, table 2].
    """
    others = stages.everything - stages.slowest
    p, passes = cases.pp, others / np.maximum(cases.pp - 1, 1)
    zero_bubble = (p - 1) * np.maximum(passes - 2 * by_weights, 0)
    dualpipe = np.maximum(p / 2 - 1, 0) * np.maximum(passes * 5 / 3 - 3 * by_weights, 0)
    plain = others / cases.virtual_stages
    return np.select([cases.schedule == ZERO_BUBBLE, cases.schedule == DUALPIPE], [zero_bubble, dualpipe], plain)
