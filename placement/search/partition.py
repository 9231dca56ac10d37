"""Where to cut a pipeline so that its slowest stage is as fast as can be: layers that differ, or alike but for the ends."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from lightfabric.placement.cost.calibration import Calibration
from lightfabric.placement.cost.layer import layer_seconds, logit_seconds, lookup_seconds
from lightfabric.placement.cost.prediction import Network
from lightfabric.placement.cost.step import tensor_seconds
from lightfabric.placement.workload.case import Cases, Column


def balanced(even: Cases, fitted: Calibration, network: Callable[[Cases], Network]) -> Cases:
    """Find the cases whose slowest stage is faster with other stages, and give them the first and last layers that do it.

    ``even`` have all layers dealt out alike; the output layer then makes the last stage slowest, if the embedding does not
    the first. A stage computes and communicates at the rates of ``network``: a slow one makes layers longer, and what the
    output layer is worth in layers less. Interleaved pipelines are left out.
    """
    chosen = even[(even.pp > 1) & (even.virtual_stages == 1) & (even.layers > even.pp)]
    passes = np.sum(layer_seconds(chosen, fitted), axis=0)
    layer = passes + tensor_seconds(chosen, network(chosen), passes)
    forward, backward = logit_seconds(chosen, fitted)
    first_end, last_end = 2 * lookup_seconds(chosen, fitted) / layer, (forward + backward) / layer
    first, last, slowest = end_layers(chosen.layers, chosen.pp, first_end, last_end)
    before, middle, after = chosen.layers_at
    # What differs by rounding is no gain, and would only put the same pipeline into the table twice.
    better = slowest < np.maximum.reduce([before + first_end, middle, after + last_end]) - 1e-9
    return replace(chosen, first_layers=first, last_layers=last)[better]


def end_layers(layers: Any, stages: Column, first_end: Column, last_end: Column) -> tuple[Column, Column, Column]:
    """Layers of the first and the last stage, and the slowest stage's time, such that this is least.

    Layers all take a time of 1, the first stage ``first_end`` more, the last ``last_end``; there are two stages or more,
    each of a layer or more. The slowest stage takes a whole number of layers, or that and what one end adds: of these
    times the least in which the stages together have time for all layers, which is less than 1 above their mean. Of the
    cuts that are as fast one whose fullest stage has fewest layers: memory and gradients are those of the fullest.
    """
    mean = (layers + first_end + last_end) / stages
    best = np.full(stages.shape, np.inf)
    for end in (np.zeros_like(first_end), first_end, last_end):
        least = np.ceil(np.maximum(mean - end, 1) - 1e-9)
        for time in (least + end, least + 1 + end):
            first, between, last = (_whole(time - own) for own in (first_end, 0, last_end))
            fits = (first >= 1) & (last >= 1) & (first + between * (stages - 2) + last >= layers)
            best = np.where(fits, np.minimum(best, time), best)
    first, last = (_whole(best - own) for own in (first_end, last_end))
    fullest = _fullest(layers, stages, first, last)
    return *_without_spare(layers, stages, np.minimum(first, fullest), np.minimum(last, fullest)), best


def _whole(time: Column) -> Column:
    """Layers that there is time for."""
    # A time that is whole but for rounding has room for that many layers.
    return np.floor(time + 1e-9).astype(np.int64)


def _fullest(layers: Column, stages: Column, first: Column, last: Column) -> Column:
    """What the first and the last stage need at most, of the layers that each may have, to spare the fullest.

    m layers in each stage but where less are allowed are enough if they are for every choice of stages that have m; where
    both ends have less, m is of no matter to them.
    """
    needed = ((layers, stages), (layers - first, stages - 1), (layers - last, stages - 1))
    return np.maximum.reduce([-(-rest // among) for rest, among in needed])


def _without_spare(layers: Column, stages: Column, first: Column, last: Column) -> tuple[Column, Column]:
    """Take layers that are too many for the stages between to have one each from the last stage, then from the first."""
    spare = np.maximum(first + last + np.maximum(stages - 2, 0) - layers, 0)
    less = np.minimum(spare, last - 1)
    return first - (spare - less), last - less
