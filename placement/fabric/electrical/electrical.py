"""What electrical fabrics share: one way to serve traffic, and rates by the bottleneck of each part alone."""

from lightfabric.model.circuit import Circuits
from lightfabric.placement.cost.prediction import Rates
from lightfabric.placement.fabric.fabric import Fabric, most_moved, rate_of
from lightfabric.placement.mapping.traffic import DATA, EXCHANGE, PIPELINE, TENSOR, Traffic
from lightfabric.placement.plan import Plan


class Electrical(Fabric):
    """An electrical fabric serves traffic without any circuits."""

    def rate_options(self, plan: Plan, placed: Traffic) -> list[tuple[Rates, Circuits | None]]:
        """The rate of each part when it is moved alone."""
        rates: list[float] = []
        for part in (TENSOR, PIPELINE, DATA, EXCHANGE):
            flows = placed.at_once(part)
            rates.append(rate_of(most_moved(flows, part), self.bottleneck_seconds(flows, plan.gpus)))
        return [(Rates(*rates), None)]
