"""cocotb bench: two ends of a link, a client at each end of each stream."""

import cocotb

from lightfabric.sim.axi import Client, exchange


@cocotb.test()
async def packets_cross_the_link_both_ways(dut):
    """Clients 0 and 1 send to each other."""
    clients = [Client(0, "a_s_axis", "a_m_axis"), Client(1, "b_s_axis", "b_m_axis")]
    await exchange(dut, clients, [dut.a_rx_flips, dut.b_rx_flips])
