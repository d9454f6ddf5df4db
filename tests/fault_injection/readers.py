"""Every reader of the package with a good file, for ``damage`` to damage.

``make_files`` writes one folder that holds them all; a ``Reader`` reads one of them as the package does.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repro_rl.config import DemosSection, PolicySection, TinySection, dump_config, load_config
from repro_rl.demos import collect_demos, load_demos, save_demos
from repro_rl.files import write_json
from repro_rl.policy.loading.checksums import OWN_SUM
from repro_rl.rollout import trajectory_record
from repro_rl.rollout.record import read_trajectories, write_records

LEVELS = """; 0
#######
#@ $ .#
#     #
#######

Title: two boxes
########
#@ $ . #
#  $ . #
#      #
########
"""
GOAL = {
    "name": "a mug",
    "category": "garden",
    "query": "mugs",
    "product_category": "Home",
    "instruction_text": "find a mug",
    "attributes": ["oak"],
    "price_upper": 30.0,
    "goal_options": {},
    "weight": 1.0,
}
KEY = "ab" * 32


@dataclass(slots=True, frozen=True)
class Reader:
    """One way in which the package reads one file."""

    name: str
    file: str  # in the folder of ``make_files``
    kind: str  # of ``damage.damaged``
    read: Callable[[Path], Any]  # the folder -> what was read, comparable through repr
    # Whether a checksum covers all of this damaged content: another value is a fault then.
    sealed: Callable[[bytes], bool] = lambda data: False


# Good files -----------------------------------------------------------------------------------------


def make_files(root: Path) -> None:
    """Write a good file for every reader into ``root``."""
    _make_run(root)
    _make_checkpoint(root)
    _make_study(root)
    _make_worlds(root)
    _make_shop(root)
    _make_models(root)


def _make_run(root: Path) -> None:
    import repro_rl
    from repro_rl.study.unfinished import UnfinishedEvaluation

    config = load_config(None)
    env = repro_rl.make(config.env.name, **config.env.settings)
    section = DemosSection(
        expert=3, winning=3, failing=3, labelled_mistakes=(0.5, 1.0), agent="planner", mistakes=(0.0,)
    )
    experts, labelled = collect_demos(env, env.panel("train").ids, section, seed=0)
    save_demos(root / "demos", experts, labelled)
    key = {"env": config.env.model_dump(mode="json"), "demos": {"expert": 3}, "seed": 0}
    write_json(root / "demos" / "demos.json", {"settings": key, "expert": 3})
    unfinished = UnfinishedEvaluation(root / "unfinished", "last", KEY, 0)
    unfinished.begin()
    for trajectory in experts:
        unfinished.add(trajectory)
    unfinished.close()
    run = root / "run"
    records = [trajectory_record(t, 0) for t in [*experts, *labelled]]
    write_records(run / "trajectories" / "eval-last.jsonl.gz", records)
    write_records(run / "trajectories" / "iteration-00001.jsonl.gz", records[3:])
    (run / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    panel = {"label": "p@d1", "digest": "d1", "tasks": 9}
    manifest = {
        **{"started": "2026-01-01T00:00:00+00:00", "seed": 0, "method": "repro", "context": "window"},
        **{"versions": {"python": "3.11"}, "git": "abc", "hardware": {"cpus": 2}, "agent": "model"},
        **{"panels": {"test": panel}, "continued": [{"started": "x", "git": None, "versions": {}}]},
    }
    write_json(run / "manifest.json", manifest)
    rows = [
        {
            "iteration": n,
            "env_steps": 100 * n,
            "seconds": 1.5 * n,
            "validation/success": n / 10,
            "loss": 0.5 / n,
        }
        for n in range(1, 7)
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    won = sum(record["won"] for record in records)
    write_json(run / "eval" / "last.json", _evaluation(won, len(records)))


def _evaluation(won: int, episodes: int) -> dict[str, Any]:
    success = won / episodes
    return {
        **{"name": "last", "iteration": 6, "success": success, "low": success / 2, "high": 1.0, "won": won},
        **{"episodes": episodes, "score": success, "length": 5.5, "invalid_rate": 0.1, "format_rate": 1.0},
        **{"errors": 0, "panel": "p@d1", "digest": "d1", "tasks": episodes, "rollouts_per_task": 1},
        **{"temperature": 0.4, "seed": 1, "by_type": {"a": {"success": 0.5, "episodes": 2}}},
        **{"progress": {"online": {"mae": 3.5, "spearman": None}}, "judge": "policy", "method": "repro"},
    }


def _make_checkpoint(root: Path) -> None:
    import torch

    from repro_rl.policy import TransformersPolicy, build_tiny
    from repro_rl.run.checkpoint import save_checkpoint

    size = TinySection(hidden=8, layers=1, heads=1, kv_heads=1, ffn=8, positions=64)
    model = build_tiny(root / "tiny", ["a", "b", "c"], size, seed=0)
    policy = TransformersPolicy.load(model, PolicySection(device="cpu"))
    optimizer = torch.optim.AdamW(policy.model.parameters())
    policy.model(input_ids=torch.tensor([[3, 4, 5]]), labels=torch.tensor([[3, 4, 5]])).loss.backward()
    optimizer.step()
    state = {"iteration": 6, "best_iteration": 4, "best": 0.5, "stopped": False}
    save_checkpoint(root / "run" / "checkpoints" / "00006", policy, optimizer, state)
    adapter = {"base_model_name_or_path": str(model), "peft_type": "LORA", "target_modules": ["q_proj"]}
    write_json(root / "adapter" / "adapter_config.json", adapter | {"r": 4, "lora_alpha": 8})


def _make_study(root: Path) -> None:
    from repro_rl.study.definition import load_study

    out = root / "study"
    run = out / "runs" / "repro" / "seed0"
    records = [
        {"task_id": f"t{n}", "won": n % 2 == 0, "score": 0.5, "steps": [], "error": None} for n in range(6)
    ]
    write_records(run / "trajectories" / "eval-last.jsonl.gz", records)
    write_json(run / "eval" / "last.json", _evaluation(3, 6))
    rows = (root / "run" / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(rows)
    settings = load_study(None, methods=["repro"], seeds=[0]).model_dump(mode="json")
    job = {"stage": "final", "after": [], "commands": ["repro-rl train"], "status": "finished"}
    write_json(out / "study.json", {"study": settings, "jobs": {"repro-seed0": job}, "continued": []})
    record = {"name": "j", "status": "finished", "seconds": 3.5, "attempts": 1, "commands": [["train"]]}
    write_json(out / "jobs" / "j.json", record)
    scores = [{"knobs": {"train.lr": 0.1}, "score": 0.5, "by_seed": [0.5]}]
    write_json(out / "sweep.json", {"arms": {"repro": {"chosen": {"train.lr": 0.1}, "scores": scores}}})
    (root / "study.yaml").write_text(
        "recipe: sokoban-tiny\nmethods: [repro, {name: grpo, set: [train.lr=0.1]}]\nseeds: [0, 1]\n"
        "set: [train.iterations=3]\n"
    )
    (root / "recipe.yaml").write_text(
        "base: sokoban-tiny\nseed: 3\ntrain:\n  lr: 0.0005\n  groups: 8\nmethod: grpo\n"
        "env:\n  name: sokoban\n  settings:\n    rows: 6\n    boxes: 1\nprompt: {context: window}\n"
    )


def _make_worlds(root: Path) -> None:
    from repro_rl.envs.alfworld.households import household

    for number in range(2):
        home = household("valid_unseen", number)
        path = root / "alfworld" / "json_2.1.1" / home.id / "game.tw-pddl"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(home.data), encoding="utf-8")
        (root / "alfworld.json").write_text(json.dumps(home.data), encoding="utf-8")
    (root / "levels.txt").write_text(LEVELS)


def _make_shop(root: Path) -> None:
    from repro_rl.envs.webshop.data import catalogue as module
    from support.webshop_data import originals, record

    names = [f"B{n}" for n in range(1, 7)]
    originals(root / "raw", True, *names)
    originals(root / "packed", True, *names, packed=True)
    wish = {"instruction": "oak", "instruction_attributes": ["oak"], "instruction_options": []}
    (root / "raw" / module.SMALL[2]).write_text(json.dumps({"B1": [wish]}))
    products = [record(asin, name="Oak Table") for asin in names]
    (root / "raw" / module.SMALL[0]).write_text(json.dumps(products))
    module.write_catalogue(_products(root), root / "catalogue", source={"kind": "test"})
    prices = [{"asin": asin, "price": 10.5} for asin in names]
    (root / "prices.jsonl").write_text("".join(json.dumps(row) + "\n" for row in prices))
    goals = "".join(json.dumps({"asin": asin, **GOAL}) + "\n" for asin in names)
    (root / "goals.jsonl.gz").write_bytes(gzip.compress(goals.encode(), mtime=0))


def _make_models(root: Path) -> None:
    from repro_rl.policy.http import Answer, AnswerStore
    from support.gguf_files import byte_level_keys, random_model, write_gguf

    store = AnswerStore(root / "answers")
    store.put(KEY, "m", Answer("text", "stop", 3, 4))
    store._db.execute("PRAGMA journal_mode=DELETE")  # one file, which is the one to damage
    store.close()
    keys = byte_level_keys()
    model = random_model("qwen2", len(keys["tokenizer.ggml.tokens"]))
    write_gguf(root / "model.gguf", model, "qwen2", keys)
    import base64

    lines = [f"{base64.b64encode(bytes([n])).decode()} {n}" for n in range(256)]
    (root / "ranks.tiktoken").write_text("\n".join(lines) + "\n")


# Readers --------------------------------------------------------------------------------------------


def _products(root: Path, folder: str = "raw") -> Any:
    from repro_rl.envs.webshop.data import catalogue as module
    from repro_rl.envs.webshop.data.reader import read_products

    ending = ".gz" if folder == "packed" else ""
    return list(read_products(*(root / folder / f"{name}{ending}" for name in module.SMALL)))


def _packed_products(root: Path) -> Any:
    return _products(root, "packed")


def _report(root: Path) -> Any:
    from repro_rl.report.load import read_records, read_run

    run = read_run(root / "run")
    records = [list(read_records(file)) for file in run.trajectory_files.values()]
    return run.label, run.series("loss"), run.evaluations, records


def _viewer(root: Path) -> Any:
    from repro_rl.report.view.library import Library
    from repro_rl.report.view.query import Search, parse_query, select_episodes

    library = Library([root / "run"])
    library.refresh(60)
    entries, _ = select_episodes(library, parse_query({"text": "room"}), Search(), 60)
    episodes = [library.read(file.key(episode))[2] for file, episode in entries]
    return library.notes, episodes, [e for file in library.files for e in file.episodes]


def _progress(root: Path) -> Any:
    from repro_rl.study.progress import compare_series, measures
    from repro_rl.study.recorded import find_episode_sets, read_episodes
    from repro_rl.study.resample import Resampler

    out = []
    for episode_set in find_episode_sets([root / "run"]):
        episodes = read_episodes(episode_set)
        sampler = Resampler(range(len(episodes)), resamples=0)
        out.append([measures(episodes, "online", sampler), compare_series(episodes, sampler)])
    return out


def _metrics_continued(root: Path) -> Any:
    from repro_rl.run.folder import UNREADABLE, MetricsLog

    (root / "run" / UNREADABLE).unlink(missing_ok=True)
    return MetricsLog(root / "run", 6).rows


def _run(root: Path) -> Any:
    import repro_rl
    from repro_rl.run.folder import write_manifest

    run = repro_rl.load_run(root / "run")
    write_manifest(root / "run", {"started": "now", "git": None, "versions": {}})
    return run.config, run.manifest, run.metrics(), run.evaluations()


def _continued(root: Path) -> Any:
    from repro_rl.run.folder import open_run
    from repro_rl.run.lineage import taught_modes, taught_prompt

    run = root / "run"
    return open_run(run, load_config(None)), taught_modes(run), taught_prompt(run)


def _state(root: Path) -> Any:
    from repro_rl.run.checkpoint import latest
    from repro_rl.run.model_paths import find_model

    checkpoint = latest(root / "run")
    assert checkpoint is not None
    # The order of the keys says nothing, and the sum does not cover it.
    return checkpoint.iteration, sorted(checkpoint.state.items()), find_model(root / "run")


def _weights(root: Path) -> Any:
    from repro_rl.policy import TransformersPolicy

    policy = TransformersPolicy.load(root / "run" / "checkpoints" / "00006", PolicySection(device="cpu"))
    return {name: weight.sum().item() for name, weight in policy.model.state_dict().items()}


def _optimizer(root: Path) -> Any:
    import torch

    from repro_rl.policy import TransformersPolicy
    from repro_rl.run.checkpoint import load_optimizer

    global _POLICY
    if _POLICY is None:
        _POLICY = TransformersPolicy.load(root / "tiny", PolicySection(device="cpu"))
    optimizer = torch.optim.AdamW(_POLICY.model.parameters())
    load_optimizer(root / "run" / "checkpoints" / "00006", optimizer)
    return {n: float(entry["exp_avg"].sum()) for n, entry in optimizer.state_dict()["state"].items()}


_POLICY: Any = None


def _result(root: Path) -> Any:
    from repro_rl.study.outcomes import read_result, type_results

    result = read_result(root / "study" / "runs" / "repro" / "seed0", "last", "repro", 0)
    return result and (result.data, result.tasks, type_results(result.data))


def _unfinished(root: Path) -> Any:
    from repro_rl.study.unfinished import UnfinishedEvaluation

    evaluation = UnfinishedEvaluation(root / "unfinished", "last", KEY, 1)
    try:
        return evaluation.begin()
    finally:
        evaluation.close()


def _curve(root: Path) -> Any:
    from repro_rl.study.outcomes import read_curve

    return read_curve(root / "study" / "runs" / "repro" / "seed0", "repro", 0)


def _study(root: Path) -> Any:
    from repro_rl.study.definition import load_study
    from repro_rl.study.folder import check_same, read_study

    check_same(root / "study", load_study(None, methods=["repro"], seeds=[0]))
    return read_study(root / "study")


def _job(root: Path) -> Any:
    from repro_rl.study.jobs import Job
    from repro_rl.study.runner import is_finished, read_record

    job = Job("j", "final", "repro", 0, root, (("train",),))
    return is_finished(root / "study", job), read_record(root / "study", job)


def _sweep(root: Path) -> Any:
    from repro_rl.study.definition import load_study
    from repro_rl.study.sweep import choose

    sweep = {"seeds": [9], "knobs": {"train.lr": [0.1]}, "last": 1}
    return choose(load_study(None, methods=["repro"], seeds=[0], sweep=sweep), root / "study")


def _demos_settings(root: Path) -> Any:
    from repro_rl.demos.environment import check_environment

    return check_environment(root / "demos", load_config(None).env)


def _game(root: Path) -> Any:
    from repro_rl.envs.alfworld.game import read_game

    return read_game(root / "alfworld.json")


def _games(root: Path) -> Any:
    import repro_rl
    from repro_rl.envs.alfworld import sources

    sources.game_source.cache_clear()  # as a new process
    env = repro_rl.make("alfworld", data=str(root / "alfworld"))
    panel = env.panel("valid_unseen")
    env.reset(options={"task": panel.ids[0]})
    return panel


def _levels(root: Path) -> Any:
    from repro_rl.envs.sokoban.levels import read_level_set

    return read_level_set(root / "levels.txt")


def _catalogue(root: Path) -> Any:
    from repro_rl.envs.webshop.data.catalogue import Catalogue

    shop = Catalogue.open(root / "catalogue")
    return (
        [shop.product(n) for n in range(len(shop))],
        shop.search("oak table"),
        shop.nouns(0),
        shop.number("B2"),
    )


def _rows(root: Path) -> Any:
    """As a large catalogue is opened, of which only the sizes of files are checked."""
    from repro_rl.envs.webshop.data.catalogue import Catalogue
    from repro_rl.envs.webshop.data.catalogue_files import check_files, read_manifest

    manifest = read_manifest(root / "catalogue")
    check_files(root / "catalogue", manifest, contents=False)
    shop = Catalogue(root / "catalogue", manifest)
    return [shop.product(n) for n in range(len(shop))], shop.search("oak table"), shop.nouns(0)


def _goals(root: Path) -> Any:
    from repro_rl.envs.webshop.data.catalogue import open_catalogue
    from repro_rl.envs.webshop.frozen import read_goals

    return read_goals(root / "goals.jsonl.gz", open_catalogue(root / "catalogue"))


def _prices(root: Path) -> Any:
    from repro_rl.envs.webshop.frozen import read_prices

    return read_prices(root / "prices.jsonl")


def _gguf(root: Path) -> Any:
    from repro_rl.policy.gguf import read_config

    return read_config(root / "model.gguf").to_dict()


def _answers(root: Path) -> Any:
    from repro_rl.policy.http import AnswerStore

    store = AnswerStore(root / "answers")
    try:
        return store.get(KEY)
    finally:
        store.close()


def _adapter(root: Path) -> Any:
    from repro_rl.policy.loading.lora import base_of

    return base_of(root / "adapter")


def _shape(root: Path) -> Any:
    from repro_rl.plan.model_shape import read_shape

    return read_shape(root / "tiny")


def _ranks(root: Path) -> Any:
    from repro_rl.policy.tokens.qwen_tokenizer import read_ranks

    return read_ranks(root / "ranks.tiktoken", 256)


def _definition(root: Path) -> Any:
    from repro_rl.study.definition import load_study

    return load_study(root / "study.yaml")


CHECKPOINT = "run/checkpoints/00006"
EPISODES = "run/trajectories/eval-last.jsonl.gz"
RESULT = "study/runs/repro/seed0"
SHOP = "catalogue"


def _always(data: bytes) -> bool:
    return True


def _has_own_sum(data: bytes) -> bool:
    """Whether state.json still holds its sum; without it nothing can tell."""
    return f'"{OWN_SUM}":'.encode() in data


READERS = (
    Reader("trajectories", EPISODES, "jsonl.gz", lambda root: list(read_trajectories(root / EPISODES))),
    Reader("demonstrations: expert", "demos/expert.jsonl.gz", "jsonl.gz", lambda r: load_demos(r / "demos")),
    Reader(
        "demonstrations: labels", "demos/labelled.jsonl.gz", "jsonl.gz", lambda r: load_demos(r / "demos")
    ),
    Reader("demonstrations: settings", "demos/demos.json", "json", _demos_settings),
    Reader("report: episodes", EPISODES, "jsonl.gz", _report),
    Reader("report: metrics", "run/metrics.jsonl", "jsonl", _report),
    Reader("report: manifest", "run/manifest.json", "json", _report),
    Reader("report: evaluation", "run/eval/last.json", "json", _report),
    Reader("report: settings", "run/config.yaml", "yaml", _report),
    Reader("viewer", EPISODES, "jsonl.gz", _viewer),
    Reader("progress", EPISODES, "jsonl.gz", _progress),
    Reader("metrics, continued", "run/metrics.jsonl", "jsonl", _metrics_continued),
    Reader("run: settings", "run/config.yaml", "yaml", _run),
    Reader("run: manifest", "run/manifest.json", "json", _run),
    Reader("settings, continued", "run/config.yaml", "yaml", _continued),
    Reader("recipe", "recipe.yaml", "yaml", lambda root: load_config(root / "recipe.yaml")),
    Reader("checkpoint: state", f"{CHECKPOINT}/state.json", "json", _state, _has_own_sum),
    Reader("checkpoint: weights", f"{CHECKPOINT}/model.safetensors", "binary", _weights, _always),
    Reader("checkpoint: optimizer", f"{CHECKPOINT}/optimizer.safetensors", "binary", _optimizer, _always),
    Reader("checkpoint: config", f"{CHECKPOINT}/config.json", "json", _weights, _always),
    Reader("checkpoint: tokenizer", f"{CHECKPOINT}/tokenizer.json", "json", _weights, _always),
    Reader("evaluation", f"{RESULT}/eval/last.json", "json", _result),
    Reader("evaluation: episodes", f"{RESULT}/trajectories/eval-last.jsonl.gz", "jsonl.gz", _result),
    Reader("evaluation, unfinished", "unfinished/eval-last.unfinished-0.jsonl", "jsonl", _unfinished),
    Reader("learning curve", f"{RESULT}/metrics.jsonl", "jsonl", _curve),
    Reader("study", "study/study.json", "json", _study),
    Reader("study: job", "study/jobs/j.json", "json", _job),
    Reader("study: sweep", "study/sweep.json", "json", _sweep),
    Reader("study: definition", "study.yaml", "yaml", _definition),
    Reader("alfworld: game", "alfworld.json", "json", _game),
    Reader("alfworld: folder", "", "json", _games),
    Reader("sokoban: levels", "levels.txt", "text", _levels),
    Reader("webshop: products", "raw/items_shuffle_1000.json", "json", _products),
    Reader("webshop: attributes", "raw/items_ins_v2_1000.json", "json", _products),
    Reader("webshop: instructions", "raw/items_human_ins_1000.json", "json", _products),
    Reader("webshop: packed products", "packed/items_shuffle_1000.json.gz", "json.gz", _packed_products),
    Reader("webshop: catalogue", f"{SHOP}/products.bin", "binary", _catalogue, _always),
    Reader("webshop: index", f"{SHOP}/index/docs.npy", "binary", _catalogue, _always),
    Reader("webshop: manifest", f"{SHOP}/manifest.json", "json", _catalogue),
    Reader("webshop: rows, unverified", f"{SHOP}/products.bin", "binary", _rows),
    Reader("webshop: nouns, unverified", f"{SHOP}/nouns.bin", "binary", _rows),
    Reader("webshop: index, unverified", f"{SHOP}/index/docs.npy", "binary", _rows),
    Reader("webshop: prices", "prices.jsonl", "jsonl", _prices),
    Reader("webshop: goals", "goals.jsonl.gz", "jsonl.gz", _goals),
    Reader("GGUF header", "model.gguf", "binary", _gguf),
    Reader("answers of a server", "answers/answers.sqlite", "binary", _answers),
    Reader("adapter", "adapter/adapter_config.json", "json", _adapter),
    Reader("shape of a model", "tiny/config.json", "json", _shape),
    Reader("Qwen's ranks", "ranks.tiktoken", "text", _ranks),
)
