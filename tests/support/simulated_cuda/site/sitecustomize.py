"""Python imports this first: the simulated device for a process whose environment names its library."""

import ctypes
import os

_library = os.environ.get("SIMULATED_CUDA")
if _library:
    _device = ctypes.CDLL(_library)  # before torch, which asks only once whether there is a device
    from support.simulated_cuda.calls import replace_calls

    replace_calls(_device)
