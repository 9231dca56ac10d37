"""A row of a table of training runs as cells that were read and checked; ValueError names the column of what is wrong."""

import math
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from lightfabric.flows.run.run_software import SOFTWARE
from lightfabric.model.spec import Precision
from lightfabric.placement.plan import Recompute
from lightfabric.placement.workload.case import Schedule

Row = dict[str, str]
SEQUENCE_PARALLEL = "+sp"
"""At the end of ``recompute``: norms and dropout are cut by sequence, whatever the software does by default."""
MOST = 1 << 40

_Count = Annotated[int, BeforeValidator(float), Field(ge=1, le=MOST)]
_LOWER = BeforeValidator(str.lower)
_HYPHENS = BeforeValidator(lambda text: text.lower().replace("_", "-"))
_Number = Annotated[float, Field(ge=0, le=MOST, allow_inf_nan=False)]


class Line(BaseModel):
    """The cells of a row that are read; an empty one is as left out."""

    hidden: _Count = 0
    vocab: _Count = 0
    seq: _Count
    gbs: _Count
    mbs: _Count = 0
    config: str = ""
    accel: str = ""
    system: str = ""
    layers: _Count = 0
    params_b: Annotated[_Number, Field(ge=1e-6)] = 0.0
    heads: _Count = 0
    kv_heads: _Count = 0
    ffn: _Count = 0
    tp: _Count = 1
    pp: _Count = 1
    dp: _Count = 1
    vp: _Count = 1
    cp: _Count = 1
    ep: _Count = 1
    recompute: Annotated[Literal[Recompute, "none+sp", "selective+sp", "full+sp"], _LOWER] = "none"
    zero: Annotated[int, BeforeValidator(float), Field(ge=0, le=3)] | None = None
    fsdp: Annotated[int, BeforeValidator(float), Field(ge=0, le=MOST)] = 0
    software: Annotated[Literal[tuple(SOFTWARE)] | None, _LOWER] = None  # type: ignore[valid-type]
    overlap: Annotated[str, _LOWER] = ""
    max_nodes: Annotated[int, BeforeValidator(float), Field(ge=0, le=MOST)] | None = None
    next_tokens: Annotated[int, BeforeValidator(float), Field(ge=0, le=8)] | None = None
    gradient_precision: Annotated[Literal["fp32", "bf16", "fp16"] | None, _LOWER] = None
    schedule: Annotated[Schedule, _LOWER] = "1f1b"
    precision: Annotated[Literal[Precision, "bf16/fp16", "fp8-cs", "fp8-ds", "fp8-sc", "fp8-mx"] | None, _HYPHENS] = None
    n_acc: _Count = 0
    step_s: _Number = math.nan
    mem_gib: _Number = math.nan
    model: str = ""
    release: str = ""
    notes: str = ""

    @property
    def recomputed(self) -> Recompute:
        """What is computed again, without the mark of sequence parallelism."""
        kept: dict[str, Recompute] = {name: name for name in get_args(Recompute)}
        return kept[self.recompute.removesuffix(SEQUENCE_PARALLEL)]

    @property
    def of_bridge(self) -> bool:
        """Tell whether the row is one of Megatron-Bridge's tables: it names a system or a release, and no software."""
        return not self.software and bool(self.release or (self.system and not self.accel))


OF_CONFIG = ("hidden", "vocab")
"""Columns that are not needed where a config.json or a name tells the shape."""
TOLD_SHAPE = ("hidden", "layers", "params_b", "heads", "kv_heads", "ffn")
"""Columns any of which says that the shape is told by columns."""
_NO_NUMBER = ("value_error", "float_parsing", "finite_number", "missing")
_MUST_BE: dict[str, str] = dict.fromkeys(_NO_NUMBER, "a number") | {"int_from_float": "a whole number"}


def line_of(row: Row) -> Line:
    """A row as read; ValueError names the column of what is wrong."""
    cells = {name: text for name in Line.model_fields if (text := (row.get(name) or "").strip())}
    if "layers" in cells:
        cells.pop("params_b", None)
    # A name alone stands for a model whose shape is published.
    if "config" not in cells and not ("model" in cells and cells.keys().isdisjoint(TOLD_SHAPE)):
        for name in OF_CONFIG if "layers" in cells else (*OF_CONFIG, "params_b"):
            cells.setdefault(name, "")
    try:
        return Line.model_validate(cells)
    except ValidationError as error:
        first = error.errors()[0]
        name, must_be = str(first["loc"][0]), _MUST_BE.get(first["type"], first["msg"].removeprefix("Input should be "))
        raise ValueError(f"{name} must be {must_be}, not {cells.get(name, '')[:60]!r}") from None
