"""vLLM as the sampler: in this process, or behind a server. Training stays with the transformers model."""
