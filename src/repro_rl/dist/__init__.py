"""Several ranks of one run: who they are, what they share, what happens when one fails, sharded weights."""
