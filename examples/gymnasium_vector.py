"""Four ALFWorld games at once through gymnasium, played at random.

python examples/gymnasium_vector.py
"""

import gymnasium
import numpy as np

import repro_rl  # noqa: F401  (importing it registers the ids)

games = gymnasium.make_vec("repro_rl/ALFWorld-v0", num_envs=4, max_steps=20)
observations, info = games.reset(seed=0)
print(observations[0])
rng = np.random.default_rng(0)
for _ in range(20):
    actions = tuple(str(rng.choice(possible)) for possible in info["admissible"])
    observations, rewards, terminated, truncated, info = games.step(actions)
print("actions:", actions, "\nprogress:", info["progress"].round(2), "\nout of steps:", truncated)

room = gymnasium.make("repro_rl/ALFWorld-v0", render_mode="ansi")
room.reset(options={"index": 0})
print(room.render())
