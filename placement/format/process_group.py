"""Process groups as PyTorch records them in a Chakra trace: a node of that name whose first input is JSON.

The input is a list of objects with ``pg_name`` and ``ranks``, all ranks if there are none
[pytorch/pytorch#126995, "Ability to capture Process Groups information into Execution Traces"].
"""

import json
from collections.abc import Iterator
from typing import Any, cast

MARK = "process_group:init"
"""Part of the name of the node."""


def read(where: str, values: str) -> Iterator[tuple[str, list[int]]]:
    """Name and ranks of every group in the values of the node's inputs, if any; ValueError if they are something else."""
    if not values.strip("[]'\" "):
        return
    # The JSON is a string in a Python list that was printed, so brackets and quotes are around it.
    begin, end = values.find("[{"), values.rfind("}]")
    try:
        listed: Any = json.loads(values[begin : end + 2]) if begin >= 0 else None
    except (ValueError, RecursionError):
        listed = None
    if not isinstance(listed, list):
        raise ValueError(f"{where} must be a list of process groups in JSON, not {values[:40]!r}")
    for each in cast("list[object]", listed):
        fields = cast("dict[str, object]", each) if isinstance(each, dict) else {}
        name, ranks = fields.get("pg_name"), fields.get("ranks")
        whole = isinstance(ranks, list) and all(type(rank) is int for rank in cast("list[object]", ranks))
        if not isinstance(name, str | int) or not whole:
            raise ValueError(f"{where} must be process groups with pg_name and a list of ranks, not {str(fields)[:40]!r}")
        yield str(name), cast("list[int]", ranks)
