"""What /proc/cpuinfo says on processors of several kinds, the lines that are read."""

from __future__ import annotations

ZEN4 = (
    "processor\t: 0\nvendor_id\t: AuthenticAMD\nflags\t\t: fpu avx2 avx512f avx512_bf16\n\n"
    "processor\t: 1\nflags\t\t: fpu\n"
)
ZEN3 = "vendor_id : AuthenticAMD\nflags : fpu avx2"
SAPPHIRE_RAPIDS = "vendor_id : GenuineIntel\nflags : avx2 avx512f amx_bf16 amx_tile"
HASWELL = "vendor_id\t: GenuineIntel\nflags\t\t: fpu sse2 avx2 fma bmi2"
GRAVITON3 = "processor : 0\nFeatures\t: fp asimd sve bf16 i8mm\n"
NEOVERSE_N1 = "Features\t: fp asimd crc32 atomics"
