"""Names of files in folders that several parts of the package look into."""

# Demonstrations: those of the expert, and those with progress labels.
EXPERT_FILE, LABELLED_FILE = "expert.jsonl.gz", "labelled.jsonl.gz"
DEMOS_FILE = "demos.json"  # what made them, and their counts
