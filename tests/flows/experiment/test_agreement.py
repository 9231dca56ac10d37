"""Fluids and flits take as long on all fabrics of the table in the docs, those of 16 GPUs; and where they do not."""

import pytest

from lightfabric.flows.experiment.agreement import fabric_rows, fabrics
from lightfabric.model.fabric.electrical.electrical import TIMING

WITHIN, AT_ONCE = 0.03, 0.1
RELAYS = {"ring", "torus", "twisted torus", "OCS"}
"""Where flits of messages that begin at once wait behind others that go elsewhere, the more GPUs there are."""


@pytest.mark.parametrize("spec", fabrics(16), ids=lambda spec: spec.name)
def test_collectives_that_compete_take_as_long_flit_by_flit_as_fluids(spec):
    for row in fabric_rows(spec, 16, TIMING):
        print(row)
        waits = row["collective"] == "all-to-all at once" and spec.name in RELAYS
        assert row["ratio"] == pytest.approx(1, abs=AT_ONCE if waits else WITHIN)
