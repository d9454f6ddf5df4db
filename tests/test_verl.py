"""verl's side without verl: the same episodes, samples, advantages and rows as the loop of our own."""

from __future__ import annotations

import importlib.util
import pickle
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml

from repro_rl.config import RunConfig, dump_config, load_config, parse_config, recipes
from repro_rl.errors import ConfigError, DataError, MissingDependencyError, PreflightError
from repro_rl.integrations.verl.credit import credit_batch
from repro_rl.integrations.verl.data import check_rows, sft_rows, task_rows, write_parquet
from repro_rl.integrations.verl.launch import prepare_run, run_verl
from repro_rl.integrations.verl.recipe import (
    hardware_names,
    load_verl_recipe,
    merged,
    our_settings,
    verl_recipes,
    verl_settings,
    write_verl_config,
)
from repro_rl.integrations.verl.session import (
    SEED_BITS,
    Answer,
    ServerPolicy,
    Task,
    light,
    play_session,
    session_samples,
    text_of,
)
from repro_rl.policy import TransformersPolicy
from repro_rl.policy.base import SamplingSettings
from repro_rl.rollout import EnvPool, Job, reflect, run_episodes
from repro_rl.train.build import (
    build_pool,
    build_prompts,
    forward_sampling,
    load_policy,
    reflect_sampling,
    validation_panel,
)
from repro_rl.train.loop import chosen_reflections, credit_groups, task_schedule
from repro_rl.train.samples import build_samples, progress_token_advantages
from repro_rl.train.warmup import warmup_data
from repro_rl.types import Completion, Group, Ids, Trajectory

GROUPS, SIZE = 3, 4


def config_of(warm, *more: str) -> RunConfig:
    sizes = f"train={{groups: {GROUPS}, group_size: {SIZE}, iterations: 4, minibatches: 1, kl: {{form: k3}}}}"
    return load_config(None, [*warm.settings, sizes, "method.rehearsal=0", *more])


class Masked:
    """The policy with the 63-bit seeds that servers take, in the place of our 64-bit keys."""

    def __init__(self, policy: TransformersPolicy):
        self.policy = policy

    def encode(self, prompt: str) -> Ids:
        return self.policy.encode(prompt)

    def generate(self, prompts: Sequence[str], keys, settings: SamplingSettings) -> list[Completion]:
        return self.policy.generate(prompts, keys & np.uint64(SEED_BITS), settings)


@pytest.fixture(scope="module")
def policy(warm) -> TransformersPolicy:
    return load_policy(config_of(warm), warm.model)


def server(policy: TransformersPolicy, text: TransformersPolicy) -> ServerPolicy:
    """verl's generation server, as a function: token ids in, token ids out."""

    def ask(ids: Ids, settings: SamplingSettings, seed: int) -> Answer:
        [done] = policy.generate_ids([ids], np.array([seed], dtype=np.uint64), settings)
        return Answer(done.token_ids, [float(p) for p in done.logprobs], {"global_steps": 7})

    return ServerPolicy(text, ask)


def play(config: RunConfig, warm, policy: TransformersPolicy) -> dict[tuple[str, int], Trajectory]:
    """The sessions of iteration 2, as verl's agent loop plays them: one after another, each by itself."""
    pool, prompts = build_pool(config), build_prompts(config)
    text = text_of(config, str(warm.model))
    tasks = task_schedule(pool.first.panel("train").ids, config.seed, 2, GROUPS)
    sessions = {}
    for place, task in enumerate(tasks):
        for number in range(SIZE):
            job = Task("train", task, 2, place, number)
            trajectory = play_session(config, pool, prompts, server(policy, text), job)
            # verl's name of a group is random: the order of the groups must not depend on it.
            sessions[f"uid{9 - place}", number] = trajectory
    return sessions


def own_groups(config: RunConfig, policy: TransformersPolicy) -> list[Group]:
    """The same iteration by the rollout of train.loop, all episodes at once."""
    pool, prompts = build_pool(config), build_prompts(config)
    tasks = task_schedule(pool.first.panel("train").ids, config.seed, 2, GROUPS)
    jobs = [Job(task, p * SIZE + k) for p, task in enumerate(tasks) for k in range(SIZE)]
    stream = ("train", config.seed, 2)
    masked = Masked(policy)
    done = run_episodes(pool, jobs, masked, prompts, forward_sampling(config, 1.0), stream=stream)
    if config.method.reflect:
        reflect(
            done,
            masked,
            prompts,
            reflect_sampling(config, 1.0),
            instructions=pool.first.instructions,
            stream=stream,
        )
    return [Group(task, done[i * SIZE : (i + 1) * SIZE]) for i, task in enumerate(tasks)]


def test_a_session_is_the_episode_that_our_own_loop_plays(warm, policy):
    config = config_of(warm)
    sessions = play(config, warm, policy)
    for place, group in enumerate(own_groups(config, policy)):
        for number, expected in enumerate(group.trajectories):
            found = sessions[f"uid{9 - place}", number]
            assert (found.task_id, found.rollout, found.won) == (
                expected.task_id,
                expected.rollout,
                expected.won,
            )
            assert [s.completion.token_ids for s in found.steps] == [
                s.completion.token_ids for s in expected.steps
            ]
            assert [(s.action, s.online, s.defects) for s in found.steps] == [
                (s.action, s.online, s.defects) for s in expected.steps
            ]
            assert [s.completion.finished for s in found.steps] == [
                s.completion.finished for s in expected.steps
            ]
            assert found.reflection.values == expected.reflection.values
            assert found.reflection.completion.token_ids == expected.reflection.completion.token_ids
            for mine, theirs in zip(found.steps, expected.steps, strict=True):
                np.testing.assert_allclose(mine.completion.logprobs, theirs.completion.logprobs, atol=1e-5)


METHODS = {
    "repro": [],
    "repro-share": ["method.reflect_share=0.5", "method.reflect_coef=0.3"],
    "repro-split": ["method.advantage_on=split"],
    "repro-judge": ["method.reflect_coef=0"],
    "grpo": [],
    "rloo": [],
    "gigpo": [],
    "hgpo": [],
    "meta": [],
    "l2": ["method.advantage_on=action"],
}


@pytest.fixture(scope="module")
def played(warm, policy):
    """Sessions by whether progress and a reflection are asked for: several methods share them."""
    kept = {}

    def of(config: RunConfig):
        key = (config.method.progress, config.method.reflect)
        if key not in kept:
            kept[key] = pickle.dumps(play(config, warm, policy))
        return pickle.loads(kept[key])

    return of


@pytest.mark.parametrize("name", METHODS)
def test_credit_and_samples_are_those_of_our_own_loop(warm, policy, played, name):
    config = config_of(warm, f"method.name={name.split('-')[0]}", *METHODS[name])
    sessions, method = played(config), config.method
    prompts = build_prompts(config)
    sent = pickle.loads(pickle.dumps({key: light(trajectory) for key, trajectory in sessions.items()}))
    credited = credit_batch(config, sent, 2, prompts.fmt, policy.decode)

    groups = [
        Group(sessions[f"uid{9 - p}", 0].task_id, [sessions[f"uid{9 - p}", k] for k in range(SIZE)])
        for p in range(GROUPS)
    ]
    credit_groups(config, groups)
    chosen = {(g, i) for g in range(GROUPS) for i in chosen_reflections(config, 2, g, SIZE)}
    expected = build_samples(
        groups,
        fmt=prompts.fmt,
        decode=policy.decode,
        advantage_on=method.advantage_on,
        progress_advantages=progress_token_advantages(groups) if method.advantage_on == "split" else None,
        reflections=chosen,
    )
    # What verl's rows hold: the samples of every session in turn.
    rows = [
        (kind, completion, credited.advantages[f"uid{9 - p}", k, index])
        for p in range(GROUPS)
        for k in range(SIZE)
        for index, (kind, completion) in enumerate(
            session_samples(sessions[f"uid{9 - p}", k], (p, k) in chosen)
        )
    ]
    assert len(rows) == len(expected) == len(credited.advantages)
    tokens = Counter(kind for kind, completion, _ in rows for _ in completion.token_ids)
    total = sum(tokens.values())
    weight = {"forward": total / tokens["forward"]}
    if tokens["reflect"]:
        weight["reflect"] = method.reflect_coef * total / tokens["reflect"]
    for (kind, completion, values), sample in zip(rows, expected, strict=True):
        assert kind == sample.kind
        assert (*completion.prompt_ids, *completion.token_ids) == tuple(sample.ids.tolist())
        np.testing.assert_allclose(values, sample.advantage[sample.trained] * weight[kind], rtol=1e-5)
    assert any(np.abs(values).max() > 0 for _, _, values in rows)
    asked = max(1, round(SIZE * method.reflect_share)) if method.reflect and method.reflect_coef else 0
    assert credited.metrics["samples/reflect"] == GROUPS * asked
    assert credited.metrics["samples/forward"] == sum(t.length for t in sessions.values())
    assert "rollout/entropy" not in credited.metrics


def test_the_mean_over_all_tokens_is_the_weighted_sum_of_the_means_of_each_kind(warm, policy, played):
    """verl's token mean of what is linear in the advantage, against that of train.update."""
    config = config_of(warm, "method.reflect_coef=0.3", "method.reflect_share=0.5")
    sessions = {key: light(t) for key, t in played(config).items()}
    prompts = build_prompts(config)
    credited = credit_batch(config, sessions, 2, prompts.fmt, policy.decode)
    samples = build_samples(
        credited.groups,
        fmt=prompts.fmt,
        decode=policy.decode,
        advantage_on="all",
        reflections={(g, i) for g in range(GROUPS) for i in chosen_reflections(config, 2, g, SIZE)},
    )
    forward, judged = (
        np.concatenate([s.advantage[s.trained] for s in samples if s.kind == kind]).mean()
        for kind in ("forward", "reflect")
    )
    flat = np.concatenate(list(credited.advantages.values()))
    assert flat.mean() == pytest.approx(forward + 0.3 * judged, abs=1e-5)


def test_a_session_that_did_not_come_back_is_no_part_of_its_group(warm, policy, played):
    config = config_of(warm, "method.name=grpo")
    sessions = {key: light(t) for key, t in played(config).items()}
    del sessions["uid9", 1]
    won = [sessions["uid9", k] for k in (0, 2, 3)]
    for trajectory, value in zip(won, (6.0, 0.0, 0.0), strict=True):
        for step in trajectory.steps:
            step.env_reward, step.valid, step.defects = 0.0, True, ()
        trajectory.steps[-1].env_reward = value
    credited = credit_batch(config, sessions, 2, build_prompts(config).fmt, policy.decode)
    assert credited.advantages["uid9", 0, 0].tolist() == [4.0] * len(won[0].steps[0].completion.token_ids)
    assert credited.advantages["uid9", 3, 0][0] == -2.0
    assert ("uid9", 1, 0) not in credited.advantages


def test_a_server_that_gives_nothing_ends_the_episode(warm):
    config = config_of(warm)
    pool, prompts = build_pool(config), build_prompts(config)
    text = text_of(config, str(warm.model))
    task = pool.first.panel("train").ids[0]
    silent = ServerPolicy(text, lambda ids, settings, seed: Answer((), []))
    trajectory = play_session(config, pool, prompts, silent, Task("train", task, 1, 0, 0))
    assert "no tokens" in trajectory.error
    assert session_samples(trajectory, True) == []


def test_validation_sessions_are_those_of_our_own_validation(warm, policy):
    from repro_rl.train.contexts import panel_jobs, play_jobs

    config = config_of(warm)
    pool, prompts = build_pool(config), build_prompts(config)
    panel = validation_panel(config, pool)
    text = text_of(config, str(warm.model))
    own = play_jobs(
        config,
        pool,
        panel_jobs(panel, 1),
        Masked(policy),
        prompts,
        forward_sampling(config, config.eval.validation_temperature),
        None,
        stream=("panel", config.eval.seed),
    )
    for place, (task, expected) in enumerate(zip(panel, own, strict=True)):
        job = Task("validation", task, 0, place, 0)
        found = play_session(config, pool, prompts, server(policy, text), job)
        assert [s.action for s in found.steps] == [s.action for s in expected.steps]
        assert found.reflection is None


# Data files ---------------------------------------------------------------------------------------


def test_rows_follow_the_schedule_and_carry_the_panels(warm):
    config = config_of(warm)
    pool = build_pool(config)
    train, validation = task_rows(config, pool)
    ids = pool.first.panel("train").ids
    assert [row["task"] for row in train] == [
        task for it in range(1, 5) for task in task_schedule(ids, config.seed, it, GROUPS)
    ]
    assert [(row["iteration"], row["place"]) for row in train[:4]] == [(1, 0), (1, 1), (1, 2), (2, 0)]
    assert [row["extra_info"]["index"] for row in train] == list(range(12))
    panel = validation_panel(config, pool)
    assert [row["task"] for row in validation] == list(panel)
    assert {row["data_source"] for row in validation} == {panel.label()}
    assert {row["digest"] for row in validation} == {panel.digest}
    assert {row["stage"] for row in train} == {"train"}
    labels = check_rows(config, pool, train[0], validation[0])
    assert labels == [pool.first.panel("train").label(), panel.label()]


def test_rows_of_other_tasks_are_refused(warm):
    config = config_of(warm)
    train, validation = task_rows(config, build_pool(config))
    other = EnvPool("sokoban", {**config.env.settings, "seed": 5})
    with pytest.raises(DataError, match=r"digest.*repro-rl verl data"):
        check_rows(config, other, train[0], validation[0])


def test_supervised_rows_are_the_warmup(warm, policy):
    """The texts, encoded, are token for token what our own warmup trains on."""
    from repro_rl.demos import load_demos

    config = load_config(None, warm.settings)
    pool = build_pool(config)
    rows = sft_rows(config, warm.demos, pool.first)
    experts, labelled = load_demos(warm.demos)
    data = warmup_data(config, policy, pool, experts, labelled)
    own = Counter(tuple(r.ids.tolist()) for r in (*data.forward, *data.won, *data.lost))
    found = Counter(
        (*policy.encode(user["content"]), *policy.encode_target(assistant["content"]))
        for user, assistant in (row["messages"] for row in rows)
    )
    assert found == own
    assert [m["role"] for m in rows[0]["messages"]] == ["user", "assistant"]
    kinds = Counter(row["kind"] for row in rows)
    assert kinds == {"forward": len(data.forward), "reflect": len(data.won) + len(data.lost)}


def test_supervised_rows_do_not_show_demonstrations(warm):
    config = load_config(None, [*warm.settings, "warmup.forward_modes=[demos-plain]"])
    with pytest.raises(ConfigError, match="demos-plain"):
        sft_rows(config, warm.demos, build_pool(config).first)


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is not None, reason="pyarrow is installed here")
def test_without_pyarrow_the_error_says_where_it_is(tmp_path):
    with pytest.raises(MissingDependencyError, match="make verl-setup"):
        write_parquet(tmp_path / "rows.parquet", [{"a": 1}])


@pytest.mark.skipif(importlib.util.find_spec("verl") is not None, reason="verl is installed here")
def test_without_verl_the_error_says_how_to_install_it():
    with pytest.raises(MissingDependencyError, match="make verl-setup"):
        run_verl(["python", "-m", "verl.trainer.main_ppo"], {})


# Settings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("hardware", hardware_names())
@pytest.mark.parametrize("name", verl_recipes())
def test_shipped_recipes_are_valid(name, hardware):
    recipe = load_verl_recipe(name, ["train.init=somewhere"], hardware)
    assert parse_config(yaml.safe_load(dump_config(recipe.config))) == recipe.config
    assert recipe.config.train.kl.form == "k3"
    assert {"trainer", "actor_rollout_ref"} <= set(recipe.verl)
    nodes = {"1gpu": (1, 1), "8gpu": (1, 8), "2nodes": (2, 8)}[hardware]
    if not name.endswith("cpu"):
        trainer = recipe.verl["trainer"]
        assert (trainer["nnodes"], trainer["n_gpus_per_node"]) == nodes


def test_the_reference_settings_reach_verl():
    """METHOD: group size 8, 16 or 32 groups, lr 1e-6, KL .01 (low variance), clip .2, 150 iterations."""
    for name, groups in (
        ("webshop-qwen2.5-1.5b", 16),
        ("alfworld-qwen2.5-1.5b", 16),
        ("sokoban-qwen3-4b", 32),
    ):
        config = load_verl_recipe(name).config
        settings = verl_settings(config, "model", Path("out"))
        actor, rollout = (settings["actor_rollout_ref"][part] for part in ("actor", "rollout"))
        assert settings["data"]["train_batch_size"] == groups
        assert (rollout["n"], rollout["val_kwargs"]["temperature"]) == (8, 0.4)
        assert (actor["optim"]["lr"], actor["kl_loss_coef"], actor["kl_loss_type"]) == (
            1e-6,
            0.01,
            "low_var_kl",
        )
        assert actor["clip_ratio_low"] == actor["clip_ratio_high"] == 0.2
        assert settings["trainer"]["total_training_steps"] == 150
        assert (config.method.gamma, config.method.omega, config.method.invalid_penalty) == (0.95, 1.0, 0.1)
        assert config.prompt.history == 2
        longest = settings["data"]["max_prompt_length"] + settings["data"]["max_response_length"]
        assert actor["ppo_max_token_len_per_gpu"] >= longest


def test_a_method_without_reflections_needs_no_room_for_them():
    with_judge = verl_settings(load_verl_recipe("sokoban-qwen3-4b").config, "m", Path("o"))["data"]
    without = verl_settings(load_verl_recipe("sokoban-qwen3-4b", ["method=gigpo"]).config, "m", Path("o"))[
        "data"
    ]
    assert (with_judge["max_prompt_length"], without["max_prompt_length"]) == (4096, 2048)


def test_our_section_comes_back_as_it_was(tmp_path):
    recipe = load_verl_recipe("sokoban-tiny-cpu", ["train.init=m"])
    path = write_verl_config(recipe, "m", tmp_path)
    content = yaml.safe_load(path.read_text())
    assert our_settings(content["repro_rl"]) == (recipe.config, tmp_path)
    assert content["defaults"] == ["ppo_trainer", "_self_"]
    assert content["actor_rollout_ref"]["rollout"]["name"] == "repro_rl_cpu"  # the recipe wins
    assert content["actor_rollout_ref"]["rollout"]["n"] == 4  # and ours is kept beside it


def test_recipes_of_ours_and_files_are_taken_too(tmp_path):
    assert load_verl_recipe("sokoban-qwen3").verl == {}
    file = tmp_path / "mine.yaml"
    file.write_text(
        "recipe: sokoban-qwen3\nsettings: {seed: 3, env: {settings: {rows: 7}}}\nverl: {a: {b: 1}}\n"
    )
    recipe = load_verl_recipe(file, ["method=l2"], "1gpu")
    assert (recipe.config.seed, recipe.config.method.name) == (3, "l2")
    assert recipe.config.env.settings["rows"] == 7
    assert recipe.verl["a"] == {"b": 1}
    assert recipe.verl["trainer"]["n_gpus_per_node"] == 1
    assert not set(verl_recipes()) & set(recipes())


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.kl.form=exact", "train.kl.form=k3"),
        ("method.rehearsal=4", "method.rehearsal=0"),
        ("train.env_steps=1000", "train.env_steps=null"),
    ],
)
def test_what_verl_cannot_do_is_said(override, said):
    with pytest.raises(ConfigError, match=said):
        load_verl_recipe("sokoban-qwen3-4b", [override])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("recipe: sokoban-qwen3\nsetings: {}\n", "did you mean 'settings'"),
        ("- 1\n", "mapping"),
        ("recipe: [\n", "not YAML"),
    ],
)
def test_broken_recipe_files_are_named(tmp_path, text, said):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=said):
        load_verl_recipe(file)


def test_unknown_names_are_named():
    with pytest.raises(ConfigError, match="did you mean 'sokoban-qwen3-4b'"):
        load_verl_recipe("sokoban-qwen3-4B")
    with pytest.raises(ConfigError, match="did you mean '8gpu'"):
        load_verl_recipe("sokoban-qwen3-4b", [], "8gpus")
    with pytest.raises(ConfigError, match="No config file"):
        load_verl_recipe("absent.yaml")


def test_merging_keeps_what_is_not_replaced():
    assert merged({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"c": 4}, "d": {"e": 5}}) == {
        "a": {"b": 1, "c": 4},
        "d": {"e": 5},
    }


def test_a_run_needs_a_model(tmp_path):
    with pytest.raises(PreflightError, match="--init"):
        prepare_run(load_verl_recipe("sokoban-tiny-cpu"), tmp_path)
