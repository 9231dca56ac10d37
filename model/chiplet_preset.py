"""Chiplets that the industry has told of, as far as this chiplet can be one, and what is assumed where they do not say."""

from dataclasses import dataclass

from lightfabric.model.spec import ChipletSpec


@dataclass(frozen=True)
class ChipletPreset:
    """Holds a spec by its name in files, where its figures are from, and which of its fields are ours."""

    spec: ChipletSpec
    source: str
    assumed: str


_EVERYWHERE = "ports, virtual channels, buffers, reach; a core clock that a block per cycle needs"
CHIPLETS: dict[str, ChipletPreset] = {
    "oci-gen1": ChipletPreset(
        ChipletSpec(wavelengths_per_port=4, wavelength_gbps=50.0, core_clock_mhz=800.0, bit_error_rate=1e-12),
        "Optical Compute Interconnect (2026): 4 wavelengths of 50 Gb/s NRZ per fibre and direction",
        f"{_EVERYWHERE}; no error correction, and the errors of DWDM NRZ engines",
    ),
    "oci-gen2": ChipletPreset(
        ChipletSpec(wavelengths_per_port=8, wavelength_gbps=50.0, core_clock_mhz=800.0, bit_error_rate=1e-12),
        "Optical Compute Interconnect (2026), second generation: 400 Gb/s per direction on one fibre",
        f"{_EVERYWHERE}; 8 wavelengths of the rate of the first generation, without error correction, and their errors",
    ),
    "teraphy-8x32": ChipletPreset(
        ChipletSpec(ports=8, wavelengths_per_port=8, wavelength_gbps=32.0, bit_error_rate=1e-15),
        "Ayar Labs TeraPHY: 8 ports of 8 wavelengths of 32 Gb/s NRZ, no error correction, bit error rate below 1e-15",
        "virtual channels, buffers, reach, core clock, flits",
    ),
    "teraphy-16x32": ChipletPreset(
        ChipletSpec(ports=8, wavelengths_per_port=16, wavelength_gbps=32.0, flit_bytes=256, bit_error_rate=1e-15),
        "Ayar Labs TeraPHY, 16 wavelengths of CW-WDM: 4 Tb/s per direction over 8 ports of 32 Gb/s NRZ",
        "virtual channels, buffers, reach, core clock, flits",
    ),
    "ualink-200g": ChipletPreset(
        ChipletSpec(
            wavelengths_per_port=8, wavelength_gbps=26.5625, core_clock_mhz=400.0, flit_bytes=256, fec="kp4", reach_m=5.0
        ),
        "UALink 200G 1.0: RS(544,514), 212.5 Gb/s on the line for 200 Gb/s",
        f"{_EVERYWHERE}; 8 wavelengths in place of an electrical lane, flits of 256 bytes in place of 640, no bit errors",
    ),
    "ucie-retimer": ChipletPreset(
        ChipletSpec(wavelengths_per_port=16, wavelength_gbps=32.0, flit_bytes=256, crc="crc16", bit_error_rate=1e-12),
        "UCIe 1.1: a x16 module at 32 GT/s, flits of 256 bytes, CRC 0x8005 over 128 bytes, retry",
        f"{_EVERYWHERE}; the errors of DWDM NRZ engines",
    ),
    "802.3-4x25": ChipletPreset(
        ChipletSpec(wavelengths_per_port=4, wavelength_gbps=25.78125, core_clock_mhz=400.0, fec="kr4"),
        "IEEE 802.3 clause 91: 4 lanes of 25.78125 Gb/s, RS(528,514)",
        f"{_EVERYWHERE}; flits in place of packets, no bit errors",
    ),
}
"""By the name in ``[chiplet] preset``; errors of engines: below 1e-12 [DWDM NRZ without strong error correction]."""
