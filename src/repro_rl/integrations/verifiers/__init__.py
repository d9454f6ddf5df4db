"""Our environments as tasksets of verifiers 0.4 (docs/adapters.md): ``vf-eval repro-rl-sokoban`` and so on.

``taskset`` is what verifiers loads, through the packages repro_rl_sokoban, repro_rl_alfworld and
repro_rl_webshop, since verifiers looks for a taskset in a top-level package of its name.
"""
