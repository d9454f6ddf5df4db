#!/bin/sh
# The expert's play of the first 50 test tasks: its mean reward, beside that of agents that know nothing.
exec python -m repro_rl.integrations.openenv figures sokoban
