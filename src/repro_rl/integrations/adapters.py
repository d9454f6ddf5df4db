"""What each adapter for another library can do, for docs/capabilities.md.

The adapters read the form of their texts, and what a caller may choose, from here. The tests of each adapter
try every feature against the real package. No other package is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from repro_rl.integrations.session import Form

OTHERS_TRAINER = (
    "An adapter gives episodes and rewards to another library, whose trainer learns from them. Credit rules, "
    "reflections and losses of ours are in 'repro-rl train' and 'repro-rl verl train'."
)
PICKED = {
    "task": "a task by its id",
    "index": "a task by its position",
    "seed": "a random task, by a seed",
    "split": "another split for one episode",
}
ANSWERS, TOOLS = "answers in text, <action>…</action>", "actions by tool calls"
PLAIN = "actions as they stand"
RULES, NO_LIST, STEP_REWARD, PICTURE = (
    "the rules come with the first text",
    "the possible actions can be left out",
    "the environment's reward at every step",
    "a picture of the state for people",
)
TRAINING = "training with our credit rules, reflections and losses"
FEATURES = (
    "evaluation on a fixed panel",
    "settings of the environment, official data",
    "an environment of your own",
    *PICKED.values(),
    *(PLAIN, ANSWERS, TOOLS),
    *(RULES, "the possible actions are shown", NO_LIST),
    *(STEP_REWARD, "won and score", "true progress, where the environment knows it"),
    *("many sessions in one process", PICTURE, TRAINING),
)


@dataclass(slots=True, frozen=True)
class Adapter:
    """A column of the matrix."""

    name: str  # of the library
    form: Form  # what its texts show, see ``open_session``
    picks: tuple[str, ...]  # what may be chosen for one episode, among the keys of ``PICKED``
    not_picked: str = ""  # why nothing else can be
    cannot: Mapping[str, str] = field(default_factory=dict)  # other features that it lacks, and why

    def refusal(self, feature: str) -> str | None:
        """Why it lacks ``feature``, one of ``FEATURES``; None where it has it."""
        if feature == TRAINING:
            return OTHERS_TRAINER
        missing = [words for key, words in PICKED.items() if key not in self.picks]
        return self.not_picked if feature in missing else self.cannot.get(feature)


READ_IT = "The caller reads the action out of a model's answer; only the action is played."
NO_TOOLS = "An action is one text; classes with tools are for TRL's environment_factory."
NO_PICTURE = "The library asks for no picture of the state; the observation is text already."
BY_CALLS = "TRL: a model acts by calling the methods of the class."
IN_ANSWER = "The action is what stands between <action> and </action> in a model's answer."
BY_ROWS = (
    "A row names its task, or the rollouts of a group would play different ones; the split is the data set's."
)

GYMNASIUM = Adapter(
    "gymnasium",
    "observation",
    tuple(PICKED),
    cannot={
        ANSWERS: READ_IT,
        TOOLS: NO_TOOLS,
        RULES: "gymnasium: an observation is what the environment shows; env.unwrapped.session.instructions "
        "has the rules.",
    },
)
OPENENV = Adapter(
    "OpenEnv",
    "observation",
    tuple(PICKED),
    cannot={
        ANSWERS: READ_IT,
        TOOLS: NO_TOOLS,
        NO_LIST: "OpenEnv: 'admissible' is in every observation; a client may ignore it.",
        STEP_REWARD: "OpenEnv wants rewards of a declared range: the score of the outcome, 0..1, comes with "
        "the last step.",
        PICTURE: NO_PICTURE,
    },
)
VERIFIERS = Adapter(
    "verifiers",
    "chat",
    (),
    "verifiers: a taskset is a whole panel in its order; -n takes the first tasks.",
    {
        PLAIN: IN_ANSWER,
        TOOLS: NO_TOOLS,
        STEP_REWARD: "verifiers scores whole episodes: won, and with a weight the score.",
        PICTURE: NO_PICTURE,
    },
)
TRL = Adapter(
    "TRL",
    "tools",
    ("task", "index"),
    BY_ROWS,
    {
        PLAIN: BY_CALLS,
        ANSWERS: BY_CALLS,
        NO_LIST: "TRL: the answer of a tool always lists the possible actions.",
        STEP_REWARD: "TRL takes one reward an episode: the sum of the environment's rewards.",
        PICTURE: NO_PICTURE,
    },
)
SKYRL = Adapter(
    "SkyRL-Gym",
    "chat",
    ("task", "index"),
    BY_ROWS,
    {PLAIN: IN_ANSWER, TOOLS: NO_TOOLS, PICTURE: NO_PICTURE},
)
ADAPTERS = (GYMNASIUM, OPENENV, VERIFIERS, TRL, SKYRL)
