"""What a run will cost: tokens, memory, hours."""
