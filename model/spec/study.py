"""A study spec says everything that one study needs."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from lightfabric.model.spec.accelerator import AcceleratorSpec
from lightfabric.model.spec.chiplet import ChipletSpec
from lightfabric.model.spec.fabric import FabricSpec
from lightfabric.model.spec.job import JobSpec, NetworkJobSpec
from lightfabric.model.spec.require import FORBID, require, require_name


@dataclass(frozen=True)
class StudySpec:
    """Describes a study: a job and an accelerator, the fabrics to compare, and the numbers of GPUs.

    ``baseline`` names the fabric whose speed is 100 %, the first ideal switch if empty.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID

    name: str
    accelerator: AcceleratorSpec
    job: JobSpec | NetworkJobSpec
    fabrics: tuple[FabricSpec, ...]
    gpus: tuple[int, ...]
    chiplet: ChipletSpec = field(default_factory=ChipletSpec)
    baseline: str = ""

    def __post_init__(self) -> None:
        require_name(self)
        in_range = len(self.gpus) > 0 and all(2 <= n <= 1 << 17 for n in self.gpus)
        require(self, "gpus", in_range, "one or more counts from 2 to 131072")
        names = [fabric.name for fabric in self.fabrics]
        require(self, "fabrics", 0 < len(names) == len(set(names)), "one or more fabrics of different names")
        require(self, "baseline", self.baseline in ("", *names), f"the name of a fabric, one of {', '.join(names)}")
