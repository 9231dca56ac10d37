"""The chiplets that the industry has told of are specs that the RTL is built from."""

import pytest
from amaranth.hdl import Fragment

from lightfabric.model.chiplet_preset import CHIPLETS
from lightfabric.rtl.link import Link


@pytest.mark.parametrize("name", CHIPLETS)
def test_the_link_of_a_preset_is_built_with_its_code(name):
    preset = CHIPLETS[name]
    assert preset.source
    assert preset.assumed
    Fragment.get(Link(preset.spec), None).prepare()
