"""The cocotb bench tries the switch with a client at every port."""

import cocotb

from lightfabric.sim.cocotb.axi import Client, Run, exchange


@cocotb.test()
async def every_port_sends_to_every_other(dut):
    """Exchange packets between random pairs of ports."""
    ports = range(Run.of_environment().spec.switch_ports)
    await exchange(dut, [Client(port, f"s{port}_axis", f"m{port}_axis") for port in ports])
