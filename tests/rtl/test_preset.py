"""The chiplets that the industry has told of are specs that the RTL is built from."""

import pytest
from amaranth.hdl import Fragment

from lightfabric.model.chiplet_preset import CHIPLETS
from lightfabric.model.spec import SpecError
from lightfabric.rtl.link import BUILT_FEC, Link


@pytest.mark.parametrize("name", CHIPLETS)
def test_the_link_of_a_preset_is_built_with_its_code_or_not_at_all(name):
    preset = CHIPLETS[name]
    assert preset.source
    assert preset.assumed
    if preset.spec.fec in BUILT_FEC:
        Fragment.get(Link(preset.spec), None).prepare()
    else:
        with pytest.raises(SpecError, match=r"^ChipletSpec.fec must be one that the RTL has"):
            Fragment.get(Link(preset.spec), None)
