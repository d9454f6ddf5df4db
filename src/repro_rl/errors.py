"""Every error the package raises on purpose. Each message says what is wrong, where, and what to do.

Each class is also a standard-library type, so callers may catch either.
"""

from __future__ import annotations

import difflib
import importlib.util
import sysconfig
import traceback
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


class ReproError(Exception):
    """Base class. The command line prints these without a traceback and exits with status 2."""


class ConfigError(ReproError, ValueError):
    """A setting is unknown, has the wrong type, or contradicts another one."""


class UnknownNameError(ReproError, LookupError):
    """A registry (environments, methods, annotators, credit rules, ...) has no such name."""


class DataError(ReproError, ValueError):
    """A data file is broken. Names the file, the record and the field."""

    def __init__(self, message: str, *, file: object = None, record: object = None, field: str | None = None):
        where = ", ".join(
            f"{label} {value}"
            for label, value in (("file", file), ("record", record), ("field", field))
            if value is not None
        )
        super().__init__(f"{where}: {message}" if where else message)
        self.file, self.record, self.field = file, record, field


class TaskError(ReproError, LookupError):
    """A task id or a split does not exist in this environment."""


class EnvError(ReproError, RuntimeError):
    """An environment broke its contract; it fails its episode, not the others."""


class CheckpointError(ReproError, FileNotFoundError):
    """A checkpoint is missing, incomplete, or belongs to another run."""


class NonFiniteError(ReproError, FloatingPointError):
    """A model's weights or logits are NaN or infinite: what it computes means nothing."""


class DeviceMemoryError(ReproError, MemoryError):
    """The memory of the GPU, or of the machine, was not enough; the message names settings that need less."""


class MissingDependencyError(ReproError, ImportError):
    """An optional package is needed; the message holds the install command."""


class PreflightError(ReproError, RuntimeError):
    """Something would certainly fail later; found before anything expensive started."""


class TrainingStopped(ReproError, RuntimeError):
    """An alarm stopped training. The last good checkpoint is kept."""


class CallbackError(ReproError, RuntimeError):
    """A callback of the user's raised, and the settings say that this stops the run."""


class RankLostError(ReproError, ConnectionError):
    """Another rank of the same run failed or was lost; the message says which, where that is known."""


class ApiError(ReproError, ConnectionError):
    """A model server refuses every call: wrong key, wrong model, wrong address. Never holds the key."""


class BudgetError(ReproError, RuntimeError):
    """The budget for paid calls is used up. What was answered is kept; a larger budget continues."""


EXTRAS = {  # importable package: (extra that installs it, what it is for)
    **dict.fromkeys(
        ("torch", "transformers", "accelerate", "safetensors", "tokenizers"),
        ("train", "training, and models that run here"),
    ),
    "matplotlib": ("plots", "figures"),
    "peft": ("lora", "policy.lora and adapter folders"),
    "gguf": ("gguf", "models in GGUF files"),
    **dict.fromkeys(("openenv", "fastapi", "uvicorn"), ("openenv", "environments as OpenEnv servers")),
    "verifiers": ("verifiers", "environments as tasksets of verifiers"),
    "skyrl_gym": ("skyrl", "the environments in SkyRL-Gym"),
    **{
        name: (name, f"the tracker {name} (train.trackers)")
        for name in ("tensorboard", "wandb", "mlflow", "trackio")
    },
}


def install_command(extra: str) -> str:
    """How an extra of this package is installed: from its checkout, as the package is not on PyPI."""
    return f"pip install '.[{extra}]' in the checkout"


def missing_extra(error: ModuleNotFoundError) -> Exception:
    """What to raise for an import that failed: a MissingDependencyError where an extra of ours is missing."""
    package = (error.name or "").partition(".")[0]
    if package not in EXTRAS:
        return error
    extra, use = EXTRAS[package]
    advice = (
        " (on Linux without a GPU first: pip install torch --index-url https://download.pytorch.org/whl/cpu; "
        "the default brings gigabytes of CUDA)"
    )
    return MissingDependencyError(
        f"{package} is not installed; it is needed for {use}. Install it: {install_command(extra)}"
        f"{advice if extra == 'train' else ''}."
    )


def require_extra(package: str) -> None:
    """Raise MissingDependencyError where ``package``, of an extra of ours, is missing; it is not imported."""
    if importlib.util.find_spec(package) is None:
        raise missing_extra(ModuleNotFoundError(name=package))


def did_you_mean(name: str, known: Iterable[str], near: Sequence[str] = ()) -> str:
    """Return ``"; did you mean 'x'? Known: a, b, c"`` for an unknown ``name``.

    ``near``: what may be meant, if that is known better than by spelling. The nearest name is left out when
    nothing is near.
    """
    names = sorted(known)
    near = near or difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else "."
    return f"{hint} Known: {', '.join(names) or 'none'}"


OWN_NAME = "One of your own is known after its module is imported: plugins=[MODULE]."


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """ "1 question", "2 questions"; ``plural``: of a noun that takes more than an s."""
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"


def some(names: Sequence[str], most: int = 3) -> str:
    """The first names, and how many there are besides; "nothing" for none."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "nothing") + more


# categories: control, format, surrogate, line and paragraph separators
UNSAFE = ("Cc", "Cf", "Cs", "Zl", "Zp")


def visible(text: str) -> str:
    """``text`` safe to print: control and text-direction characters are written as codes."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char if char in "\n\t" or unicodedata.category(char) not in UNSAFE else f"\\u{ord(char):04x}"
        for char in text
    )


def clause(message: object) -> str:
    """A message, such as an error, to stand inside a longer sentence: without the full stop at its end."""
    return str(message).rstrip(".")


def unencodable(text: str) -> str | None:
    """What keeps ``text`` from being written as UTF-8, "a lone surrogate" and where it is; else None."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"a lone surrogate {text[error.start]!a} at position {error.start}"
    return None


@contextmanager
def named_failure(what: str) -> Iterator[None]:
    """Raise ConfigError, naming ``what``, for an exception of a user's code; errors of ours pass.

    ``what``: such as "The credit rule 'mine'".
    """
    try:
        yield
    except ReproError:
        raise
    except Exception as error:
        raise ConfigError(
            f"{what} failed: {type(error).__name__}: {clause(error)}{place_of(error)}. Mend it there; "
            "REPRO_RL_TRACEBACK=1 prints the whole traceback."
        ) from error


def place_of(error: BaseException) -> str:
    """File and line that led to an error, such as " (rules.py, line 12)"; "" where they are not known.

    Of several the last one that its user can change: outside this package, Python's library and, where there
    is one, installed packages.
    """
    frames = [] if isinstance(error, SyntaxError) else traceback.extract_tb(error.__traceback__)
    files = [frame for frame in frames if not frame.filename.startswith("<")]  # not Python's own importer
    others = [frame for frame in files if not _inside(frame, PACKAGE)]
    unshipped = [frame for frame in others if _inside(frame, *INSTALLED) or not _inside(frame, *LIBRARY)]
    own = [frame for frame in unshipped if not _inside(frame, *INSTALLED)]
    found = own or unshipped or others or files
    return f" ({Path(found[-1].filename).name}, line {found[-1].lineno})" if found else ""


PACKAGE = Path(__file__).parent
LIBRARY = [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")]
INSTALLED = [Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")]  # below it without a venv


def _inside(frame: traceback.FrameSummary, *folders: Path) -> bool:
    return any(folder in Path(frame.filename).parents for folder in folders)
