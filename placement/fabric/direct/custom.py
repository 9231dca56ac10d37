"""Placement on any topology, whose links are loaded as evenly as its ways allow."""

import numpy as np

from lightfabric.model.fabric.direct import custom as model
from lightfabric.placement.fabric.direct.direct import Direct


class Custom(model.Custom, Direct):
    """The fullest link is the bottleneck, be it of a GPU or of a switch."""

    @property
    def bytes_per_s(self) -> float:
        """All links of the GPU that has most send together."""
        wires = self.wires(self.spec.gpus)
        return float(np.bincount(wires.source, wires.bytes_per_s)[: self.spec.gpus].max())
