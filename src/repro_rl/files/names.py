"""Names of files and folders that several parts of the package look into."""

# A run folder.
CONFIG_FILE = "config.yaml"  # the resolved settings
MANIFEST_FILE = "manifest.json"  # versions, panels, hardware, what it was made from
METRICS_FILE = "metrics.jsonl"  # one row an iteration
EVALUATIONS = "eval"  # folder of results, <name>.json
TRAJECTORIES = "trajectories"  # folder of recorded episodes
CHECKPOINTS = "checkpoints"  # folder of <iteration>/
RECORDS = ".jsonl.gz"  # how the name of a file of records ends

# Demonstrations: those of the expert, and those with progress labels.
EXPERT_FILE, LABELLED_FILE = f"expert{RECORDS}", f"labelled{RECORDS}"
DEMOS_FILE = "demos.json"  # what made them, and their counts

# What metrics were called in files of version 0.1.0, and their present names.
OLD_METRICS = {
    **{f"eval/{name}": f"validation/{name}" for name in ("success", "tasks", "low", "high")},
    "rollout/failed_groups": "rollout/lost_groups",
    "rollout/truncated_prompts": "rollout/shortened_prompts",
    "reflect/truncated_prompts": "reflect/shortened_prompts",
}
