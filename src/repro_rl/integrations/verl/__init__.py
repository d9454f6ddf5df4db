"""RePro inside the stock verl trainer (docs/verl.md).

``recipe`` turns our settings into verl's, ``data`` writes its data files, and ``session`` plays one episode
with our own rollout. ``credit`` computes the advantages of a batch with our own credit rules. None of these
needs verl. ``agent_loop``, ``trainer`` and ``plugin`` are what verl loads.
"""
