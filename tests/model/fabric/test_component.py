"""The parts of every kind of fabric, against closed forms, and what they cost."""

from collections import Counter
from dataclasses import fields, replace
from typing import get_args

import pytest

from lightfabric.model.fabric.component import ComponentName, bill
from lightfabric.model.fabric.fabric import fabric_of
from lightfabric.model.spec import (
    COMPONENTS,
    ChipletSpec,
    CubeTorusSpec,
    CustomSpec,
    DragonflySpec,
    ElectricalClusterSpec,
    FatTreeSpec,
    PhotonicRailsSpec,
    PriceSpec,
    PricesSpec,
    RailOptimisedSpec,
    SipOcsSpec,
    SipRingSpec,
    SpecError,
    TopooptSpec,
    TorusSpec,
)

CHIPLET = ChipletSpec(ports=20, wavelengths_per_port=16, wavelength_gbps=25.0)
LANES = 20 * 16


def counts(spec, gpus, chiplet=CHIPLET):
    """Parts by their name, whatever their rates are."""
    found = Counter()
    for component, count in fabric_of(spec, chiplet).components(gpus).items():
        found[component.name] += count
    return dict(found)


def cost(spec, gpus, prices=None):
    return sum(item.usd for item in bill(fabric_of(spec, CHIPLET).components(gpus), prices or PricesSpec()))


@pytest.mark.parametrize("k", [4, 8, 16])
def test_a_full_fat_tree_has_5k2_over_4_switches_and_two_transceivers_a_cable(k):
    spec = FatTreeSpec("tree", "fat-tree", nic_gbps=400.0, radix=k, levels=3)
    hosts = k**3 // 4
    cables = 3 * hosts
    assert counts(spec, hosts) == {
        "nic": hosts, "switch_port": k * 5 * k**2 // 4, "transceiver": 2 * cables, "fibre": 2 * cables,
    }  # fmt: skip
    rates = {part.gbps for part in fabric_of(spec, CHIPLET).components(hosts) if part.name != "fibre"}
    assert rates == {400.0}


def test_a_tree_has_no_spines_for_one_leaf_and_fewer_of_them_with_oversubscription():
    spec = FatTreeSpec("tree", "fat-tree", nic_gbps=200.0, radix=64)
    assert counts(spec, 32) == {"nic": 32, "switch_port": 32, "transceiver": 64, "fibre": 64}
    assert counts(spec, 2048)["switch_port"] == 3 * 2048
    assert counts(replace(spec, oversubscription=3.0), 48 * 64)["switch_port"] == 48 * 64 * (1 + 2 / 3)


def test_tpuv4_has_48_switches_of_light_with_128_ports():
    """[ISCA 2023]: 64 cubes of 64 chips, 96 optical links a cube, 48 OCSs of which 128 ports are used."""
    spec = CubeTorusSpec("TPUv4", "cube-torus", link_gbps=400.0, electrical_latency_ns=75.0, optical_latency_ns=50.0)
    found = counts(spec, 4096)
    assert found["ocs_port"] == found["transceiver"] == 48 * 128 == 64 * 96
    assert 2 * found["copper_cable"] == 4096 * 6 - 64 * 96
    light = counts(replace(spec, link_gbps=None, electrical_latency_ns=None, optical_latency_ns=None), 4096)
    assert light["ocs_port"] == 3 * 48 * 128  # three of the twenty ports on each link
    assert light["laser"] == light["ocs_port"] * 16


def test_sip_ml_has_20_switches_with_a_port_per_gpu_or_fibres_from_gpu_to_gpu():
    light = {"laser": LANES * 1024, "modulator": LANES * 1024, "receiver": LANES * 1024}
    ring, ocs = SipRingSpec("ring", "sip-ring"), SipOcsSpec("ocs", "sip-ocs", ocs=20)
    assert counts(ring, 1024) == light | {"fibre": 20 * 1024}
    assert counts(ocs, 1024) == light | {"fibre": 2 * 20 * 1024, "ocs_port": 20 * 1024}
    panel = TopooptSpec("topoopt", "topoopt", degree=4)
    assert counts(panel, 1024) == light | {"fibre": 2 * 20 * 1024, "patch_port": 20 * 1024}
    rails = PhotonicRailsSpec("rails", "photonic-rails", island_gbps=3600.0)
    assert counts(rails, 1024) == counts(ocs, 1024) | {"island_port": 1024}


def test_islands_have_cards_and_the_ideal_core_is_a_fat_tree_that_never_limits():
    spec = ElectricalClusterSpec("islands", "electrical-cluster", island_gbps=3600.0, nic_gbps=400.0)
    tree = FatTreeSpec("tree", "fat-tree", nic_gbps=400.0, levels=2)
    for gpus, levels in ((1024, 2), (4096, 3), (98_304, 3)):
        core = replace(tree, levels=levels, radix=64 if gpus < 65_536 else 128)
        assert counts(spec, gpus) == counts(core, gpus) | {"island_port": gpus}


def test_rails_and_dragonflies_have_a_port_at_both_ends_of_each_cable_between_switches():
    rails = RailOptimisedSpec("rails", "rail-optimised", 3600.0, 400.0, rail_islands=16, oversubscription=4.0)
    assert counts(rails, 128)["switch_port"] == 128
    # 64 islands: 8 rails of 4 switches, each with 16 / 4 uplinks.
    assert counts(rails, 512) == {
        "island_port": 512, "nic": 512, "switch_port": 512 + 2 * 32 * 4, "transceiver": 2 * (512 + 32 * 4), "fibre": 1280,
    }  # fmt: skip
    fly = DragonflySpec("fly", "dragonfly", 400.0, 200.0, gpus_per_router=2, routers_per_group=4, global_links=2)
    # 9 groups of 4 routers: 6 cables in each, and one for each pair of groups.
    found = fabric_of(fly, CHIPLET).components(72)
    assert {part.gbps: count for part, count in found.items() if part.name == "switch_port"} == {
        400.0: 72, 200.0: 2 * (9 * 6 + 36),
    }  # fmt: skip


def test_direct_links_are_fibres_of_chiplets_or_cables_with_transceivers():
    torus = TorusSpec("torus", "torus", shape=(4, 4, 8))
    assert counts(torus, 128) == {"laser": 128 * LANES, "modulator": 128 * LANES, "receiver": 128 * LANES, "fibre": 3 * 768}
    own = CustomSpec("own", "custom", 2, ((0, 2, 400.0, 50.0), (1, 2, 400.0, 50.0)))
    assert counts(own, 2) == {"transceiver": 4, "switch_port": 2, "fibre": 4}


def test_every_kind_of_fabric_has_a_bill_that_grows_with_the_gpus(fabric_spec):
    fabric = fabric_of(fabric_spec, ChipletSpec())
    per_count = [bill(fabric.components(gpus), PricesSpec()) for gpus in (32, 64)]
    assert all(item.pieces > 0 and item.source for items in per_count for item in items)
    less, more = (sum(item.usd for item in items) for items in per_count)
    assert 0 < less <= more
    assert [sum(item.w for item in items) > 0 for items in per_count] == [True, True]


def test_all_components_have_prices_with_a_source_and_a_year():
    prices = PricesSpec()
    assert set(COMPONENTS) == {entry.name for entry in fields(prices)} == {"accelerator", *get_args(ComponentName)}
    for name in COMPONENTS:
        assert "20" in getattr(prices, name).source


@pytest.mark.parametrize(
    ("gbps", "usd"), [(50, 659), (100, 659), (150, 869), (400, 1499), (800, 2248), (1600, 4496)]
)  # fmt: skip
def test_a_price_is_interpolated_between_rates_and_proportional_beyond_them(gbps, usd):
    assert PricesSpec().nic.at(gbps)[0] == pytest.approx(usd)


def test_one_rate_is_a_price_per_gigabit_and_none_a_price_per_piece():
    assert PriceSpec((2.0,), (1.0,), (10.0,)).at(25.0) == (5.0, 2.5)
    assert PriceSpec((2.0,), (1.0,)).at(25.0) == (2.0, 1.0)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"gbps": (200.0, 100.0)}, "PriceSpec.gbps must be rates above 0 that rise, not (200.0, 100.0)"),
        ({"usd": (1.0, 2.0)}, "PriceSpec.usd must be 1 values of at least 0, one for each rate, not (1.0, 2.0)"),
        ({"w": (-1.0,)}, "PriceSpec.w must be 1 values of at least 0, one for each rate, not (-1.0,)"),
    ],
)
def test_a_wrong_price_is_refused(wrong, text):
    with pytest.raises(SpecError) as error:
        PriceSpec(**({"usd": (1.0,), "w": (1.0,)} | wrong))
    assert str(error.value) == text


def test_a_price_of_the_spec_counts_in_proportion_to_the_parts():
    dear = PricesSpec(ocs_port=PriceSpec((1520.0,), (0.8,)))
    ocs = SipOcsSpec("ocs", "sip-ocs")
    assert cost(ocs, 64, dear) - cost(ocs, 64) == pytest.approx(64 * 20 * 1000)
    assert cost(SipRingSpec("ring", "sip-ring"), 64, dear) == cost(SipRingSpec("ring", "sip-ring"), 64)
