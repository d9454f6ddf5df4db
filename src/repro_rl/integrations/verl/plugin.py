"""What verl imports first (``VERL_USE_EXTERNAL_MODULES``): it registers the agent loop and the trainer."""

import repro_rl.integrations.verl.agent_loop
import repro_rl.integrations.verl.trainer  # noqa: F401
