"""The cocotb bench has two ends of a link, a client at each end of each stream, a master at the registers of each end."""

import cocotb
from cocotbext.axi import AxiLiteBus, AxiLiteMaster

from lightfabric.rtl.register_map import REGISTERS, WORD_BYTES
from lightfabric.sim.cocotb.axi import Client, Run, exchange

STATE_ACTIVE = 6
# On a worse line a link need not be up at the end.
MAX_BER_IN_SERVICE = 1e-2


@cocotb.test()
async def packets_cross_the_link_both_ways(dut):
    """Clients 0 and 1 send to each other; then the registers tell what the lines have seen."""
    masters = {end: AxiLiteMaster(AxiLiteBus.from_prefix(dut, f"{end}_s_axil"), dut.clk, dut.rst) for end in "ab"}
    for master in masters.values():
        master.write_if.log.setLevel("WARNING")
        master.read_if.log.setLevel("WARNING")
    clients = [Client(0, "a_s_axis", "a_m_axis"), Client(1, "b_s_axis", "b_m_axis")]
    await exchange(dut, clients, [dut.a_rx_flips, dut.b_rx_flips])
    for end, master in masters.items():
        await _write(master, "control", 0b101)  # enabled and frozen
        is_up = await _read(master, "status") & 0b11111 == STATE_ACTIVE | 1 << 4
        assert is_up or Run.of_environment().ber > MAX_BER_IN_SERVICE
        for name in ("replays", "crc_errors"):
            assert await _read(master, name) <= int(getattr(dut, f"{end}_{name}").value)
        assert not is_up or await _read(master, "flits_received") > 0
        assert await _read(master, "credit_leaks") == 0


def _address(name: str) -> int:
    return WORD_BYTES * next(n for n, register in enumerate(REGISTERS) if register.name == name)


async def _read(master, name: str) -> int:
    return await master.read_dword(_address(name))


async def _write(master, name: str, value: int) -> None:
    await master.write_dword(_address(name), value)
