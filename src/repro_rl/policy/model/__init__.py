"""A model in memory: what may be done with it, its adapter, and how its linear layers are computed."""
