"""What this machine's processor computes fast, as far as Linux tells."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")


@dataclass(slots=True, frozen=True)
class Processor:
    """The first processor of a machine."""

    vendor: str  # "GenuineIntel", "AuthenticAMD"; empty on Arm
    flags: frozenset[str]  # names of instruction sets
    name: str = ""  # "AMD EPYC 9654"; empty on Arm


def read_processor(path: Path) -> Processor | None:
    """The first processor that a file like /proc/cpuinfo names; None where it names no flags."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    vendor = model = ""
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip().lower() == "vendor_id":
            vendor = value.strip()
        if name.strip().lower() == "model name":
            model = value.strip()
        if name.strip().lower() in ("flags", "features"):
            return Processor(vendor, frozenset(value.split()), model)
    return None


def this_processor() -> Processor | None:
    """The processor of this machine; None where it is not known (not Linux)."""
    return read_processor(CPU_INFO)


@cache
def mkl_leaves_avx512() -> bool:
    """Whether MKL, which torch's float32 products run on, leaves this processor's AVX-512 unused.

    On AMD it does (torch 2.13.0 with its MKL: 113 GFLOP/s of one core; oneDNN, which tests for instructions
    and not for the vendor, 250). The answer depends on the processor alone, so a repeated command computes
    the same sums.
    """
    processor = this_processor()
    return processor is not None and processor.vendor == "AuthenticAMD" and "avx512f" in processor.flags
