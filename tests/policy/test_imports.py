"""What importing policies loads."""

from __future__ import annotations

import subprocess
import sys


def test_importing_policies_loads_neither_torch_nor_transformers():
    code = (
        "import sys, repro_rl.policy, repro_rl.policy.http.policy, repro_rl.policy.loading.codec; "
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
