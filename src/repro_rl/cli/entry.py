"""The entry point, and how errors and interruptions reach a person."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path

from repro_rl.dist.failures import exit_status, rank_process
from repro_rl.dist.launcher import rank_and_world
from repro_rl.errors import ConfigError, DeviceMemoryError, ReproError, TrainingStopped, missing_extra
from repro_rl.files import os_error
from repro_rl.interrupts import Interrupted, end_with_parent, handled, received

PARALLEL_COMMANDS = ("train", "warmup", "eval")  # those that share their work between processes
# Those that go on where they were when they are repeated.
CONTINUED = ("demos", "warmup", "train", "eval", "pilot", "compare", "demo", "verl")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def main() -> None:
    """Entry point.

    Errors of the package, and files that cannot be written, end with status 2 and no traceback; Ctrl-C with
    130, SIGTERM with 143, and a sentence.
    """
    _, world = rank_and_world()
    with rank_process(world):
        try:
            with handled():
                _run()
        except (Interrupted, KeyboardInterrupt) as error:  # the latter where signals are not ours to handle
            _leave(128 + (error.number if isinstance(error, Interrupted) else signal.SIGINT))


def _run() -> None:
    """The command, its errors printed."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    end_with_parent()
    rank, world = rank_and_world()
    from repro_rl.cli.show import console
    from repro_rl.cli.terminal import clean_the_rest, survive_encodings

    survive_encodings()
    clean_the_rest()
    console.quiet = rank > 0  # of the other processes only errors are printed
    status = 0
    try:
        command = sys.argv[1] if len(sys.argv) > 1 else None
        if world > 1 and command is not None and command not in PARALLEL_COMMANDS:
            raise ConfigError(
                f"'repro-rl {command}' runs in one process, but {world} were started; "
                f"{', '.join(PARALLEL_COMMANDS)} run in several."
            )
        from repro_rl.cli.commands import app

        app()
    except (ReproError, OSError, ModuleNotFoundError) as raised:
        error = missing_extra(raised) if isinstance(raised, ModuleNotFoundError) else raised
        if isinstance(error, ModuleNotFoundError):
            raise
        _report(error, rank)
        if os.environ.get("REPRO_RL_TRACEBACK"):
            raise
        status = 2
    except Exception as error:
        out_of_memory = _out_of_memory(error)
        if out_of_memory is None and os_error(error)[0] is None:
            raise
        _report(out_of_memory or error, rank)  # or an OSError in the message of another one
        status = 2
    except SystemExit as ended:
        number = received()
        if ended.code == 128 + signal.SIGINT and number is not None:  # what typer makes of an interruption
            raise Interrupted(number) from ended
        status = exit_status(ended)
    finally:
        with suppress(OSError):
            console.show_cursor(True)
    sys.exit(status if _flush() else status or 2)


def _out_of_memory(error: Exception) -> DeviceMemoryError | None:
    """What to print where memory ran out and nothing nearer explained it; None for other errors."""
    if "torch" not in sys.modules:
        return None
    from repro_rl.policy.model.memory import ANYWHERE, explained, lacks_memory

    return explained(error, "", ANYWHERE) if lacks_memory(error) else None


def _report(error: Exception, rank: int) -> None:
    """Print an error: its kind and its message."""
    if rank and isinstance(error, TrainingStopped):
        return  # all processes stop then, and the first one prints the reason
    from repro_rl.cli.show import error_console

    ours = isinstance(error, ReproError)
    with suppress(OSError):  # the terminal's file may be on the same full disk
        if rank:
            error_console.print(f"process {rank}:", highlight=False)
        error_console.print(type(error).__name__ if ours else "OSError", style="bold red")
        text = str(error) if ours else file_sentence(error)
        error_console.print(text, highlight=False, markup=False, soft_wrap=not ours)


def file_sentence(error: Exception) -> str:
    """What could not be done with which file, and what to do."""
    number, file = os_error(error)
    if number is None:
        return str(error)
    reason = os.strerror(number)
    in_the_way = None if file is None else _file_above(Path(file))
    if number in (errno.EEXIST, errno.ENOTDIR) and in_the_way is not None:
        return (
            f"{in_the_way} is a file, and a folder is needed there. Choose another folder, for results with "
            "--out, or rename that file."
        )
    if number == errno.ENOSPC and file is not None:
        place = next((p for p in (Path(file), *Path(file).absolute().parents) if p.is_dir()), Path("/"))
        with suppress(OSError):
            reason += f", {shutil.disk_usage(place).free / 1e6:,.1f} MB are free"
    if number == errno.EFBIG:
        advice = "Raise the limit on the size of files (ulimit -f), or choose a disk that takes larger ones"
    elif number in FULL:
        advice = "Make room"
    elif number in (errno.EROFS, errno.EACCES, errno.EPERM):
        advice = "Make it writable, or choose another folder"
    else:
        advice = "Choose another folder, or mend this one"
    if file is None and number not in FULL:  # of a network, perhaps
        return str(error)
    what = "A file cannot be written" if file is None else f"{file} cannot be used"
    return f"{what}: {reason}. {advice}; what was finished before is kept, and {_repeat('the command')}"


def _file_above(path: Path) -> Path | None:
    """``path`` or the folder above it that is a file; None where there is none."""
    return next((place for place in (path, *path.parents) if place.exists() and not place.is_dir()), None)


def _continues() -> bool:
    """Whether the command keeps what it finished, and goes on from there when it is repeated."""
    return len(sys.argv) > 1 and sys.argv[1] in CONTINUED


def _repeat(command: str) -> str:
    """What repeating the command does."""
    return f"repeating {command} continues it." if _continues() else f"{command} can be repeated."


def _leave(status: int) -> None:
    """End after an interruption, with one sentence."""
    rank, _ = rank_and_world()
    word = "Interrupted" if status == 128 + signal.SIGINT else "Ended by a signal"
    saved = "What was finished is saved, nothing half-written is left"
    if not _continues():
        saved = "Nothing is half-written"
    text = f"{word}. {saved}; {_repeat('the command')}\n"
    if not rank and sys.stderr is not None:
        with suppress(OSError, ValueError):
            sys.stderr.write(text)
            sys.stderr.flush()
    with suppress(Interrupted):
        _flush()
    sys.exit(status)


def _flush() -> bool:
    """Write out what was printed; False, with a sentence, where that is not possible.

    What is left must not raise when Python ends.
    """
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError) as error:
        with suppress(OSError, ValueError):
            sys.stderr.write(f"The output cannot be written: {error}\n")
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True
