"""``python -m repro_rl``: the command line, in the form that torchrun can start."""

from repro_rl.cli import main

if __name__ == "__main__":
    main()
