"""A run: settings turned into objects, its folder and checkpoints, checks before it starts, validation."""
