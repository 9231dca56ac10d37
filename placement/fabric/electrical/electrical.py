"""What electrical fabrics share: one way to serve traffic, at the rates of the busiest link of each part alone."""

from lightfabric.model.fabric.electrical import electrical as model
from lightfabric.placement.fabric.by_link import ByLink


class Electrical(model.Electrical, ByLink):
    """An electrical fabric serves traffic without any circuits."""

    @property
    def bytes_per_s(self) -> float:
        """The rate of the fastest link."""
        return self.port_bytes_per_s
