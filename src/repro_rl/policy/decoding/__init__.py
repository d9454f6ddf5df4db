"""From a model to answers: the sampling loop, decoders over KV caches, and conversations."""
