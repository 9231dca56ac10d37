"""A study spec says everything that one study needs."""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from lightfabric.model.spec.accelerator import AcceleratorSpec
from lightfabric.model.spec.chiplet import ChipletSpec
from lightfabric.model.spec.fabric import FabricSpec
from lightfabric.model.spec.job import DecodeJobSpec, JobSpec, NetworkJobSpec, PlanSpec
from lightfabric.model.spec.price import PricesSpec
from lightfabric.model.spec.require import FORBID, require, require_name


@dataclass(frozen=True)
class StudySpec:
    """Describes a study: a job and an accelerator, the fabrics to compare, and the numbers of GPUs.

    ``plan`` fixes parts of the plan by which a job is cut. With strong ``scaling`` all counts share one batch; with weak
    scaling the batch is that of the smallest count and grows with the GPUs. ``baseline`` names the fabric whose speed is
    100 %, the first ideal switch if empty. ``prices`` are those of the parts of networks.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID

    name: str
    accelerator: AcceleratorSpec
    job: JobSpec | NetworkJobSpec | DecodeJobSpec
    fabrics: tuple[FabricSpec, ...]
    gpus: tuple[int, ...]
    chiplet: ChipletSpec = field(default_factory=ChipletSpec)
    plan: PlanSpec = field(default_factory=PlanSpec)
    scaling: Literal["strong", "weak"] = "strong"
    baseline: str = ""
    prices: PricesSpec = field(default_factory=PricesSpec)

    def __post_init__(self) -> None:
        require_name(self)
        in_range = len(self.gpus) > 0 and all(2 <= n <= 1 << 18 for n in self.gpus)
        require(self, "gpus", in_range, "one or more counts from 2 to 262144")
        names = [fabric.name for fabric in self.fabrics]
        require(self, "fabrics", 0 < len(names) == len(set(names)), "one or more fabrics of different names")
        is_cut = isinstance(self.job, JobSpec) or self.plan.given in [{}, *({"tp": tp} for tp in self.job.splits)]
        require(self, "plan", is_cut, "left out but for a transformer, or a tp of 1, 2, 4 or 8 of a network without tables")
        of_passes = self.plan.given.keys() & {"virtual_stages", "cp", "zero", "recompute"}
        trains = not isinstance(self.job, DecodeJobSpec) or not of_passes
        require(self, "plan", trains, "without virtual_stages, cp, zero and recompute to decode")
        for count in self.gpus:
            self.at(count)
        require(self, "baseline", self.baseline in ("", *names), f"the name of a fabric, one of {', '.join(names)}")

    def at(self, gpus: int) -> "StudySpec":
        """Give the spec of one count, with strong scaling and the batch of so many GPUs; SpecError if that is not whole."""
        if self.scaling == "strong":
            return self
        batch, rest = divmod(self.job.batch * gpus, min(self.gpus))
        must_be = f"strong for {gpus} GPUs, whose part of a batch of {self.job.batch} on {min(self.gpus)} is not whole"
        require(self, "scaling", rest == 0, must_be)
        return replace(self, job=replace(self.job, batch=batch), gpus=(gpus,), scaling="strong")
