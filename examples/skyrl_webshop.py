"""WebShop in SkyRL-Gym, played by our expert in a model's place. In the checkout: `pip install '.[skyrl]'`

python examples/skyrl_webshop.py
"""

import skyrl_gym

from repro_rl.integrations.skyrl import register_envs, rows

register_envs()
row = rows("webshop", split="test", count=1)[0]  # a data set of SkyRL's has such rows
env = skyrl_gym.make(row["env_class"], env_config={"split": "test"}, extras={**row, "max_turns": 15})
conversation, _ = env.init(row["prompt"])
print(conversation[-1]["content"])
done = False
while not done:
    answer = f"<think>The expert knows.</think><action>{env.session.env.expert()}</action>"
    output = env.step(answer)
    done = output["done"]
    print(f"{answer}\n{output['observations'][0]['content'][:200] if not done else output['metadata']}")
print(env.get_metrics())
