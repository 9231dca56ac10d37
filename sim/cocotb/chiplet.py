"""The cocotb bench has two chiplets, line p of one to line p of the other, a client at every stream."""

import cocotb

from lightfabric.sim.cocotb.axi import Client, Run, exchange


@cocotb.test()
async def clients_of_both_chiplets_exchange_packets(dut):
    """Packets stay in a chiplet or cross to the other one."""
    ports = range(Run.of_environment().spec.ports)
    ends = {"a": 0, "b": len(ports)}
    clients = [Client(base + p, f"{end}_s{p}_axis", f"{end}_m{p}_axis") for end, base in ends.items() for p in ports]
    await exchange(dut, clients, [getattr(dut, f"{end}_rx{p}_flips") for end in ends for p in ports])
