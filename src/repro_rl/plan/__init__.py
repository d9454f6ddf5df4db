"""What a run will cost, before anyone pays: tokens, memory, hours."""
