"""Which files this account has written: each ends with a keyed hash (HMAC-SHA256) of its text.

The key lies in the user's folder for settings, is made on first use and never leaves it. A file that somebody
else wrote, or that was edited since, has no valid hash.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from contextlib import suppress
from pathlib import Path

from repro_rl.files.roots import settings_root

KEY_BYTES = 32
MARK = "# written here: "  # begins the last line of a signed text; a comment in YAML


def signed(text: str) -> str:
    """``text`` with its hash as the last line; as it is where no key can be kept."""
    digest = signature(text)
    return text if digest is None else f"{text}{MARK}{digest}\n"


def is_signed(text: str) -> bool:
    """Whether ``signed`` made this text, on this account."""
    body, mark, digest = text.rpartition(MARK)
    return bool(mark) and digest.endswith("\n") and has_signature(body, digest[:-1])


def signature(text: str) -> str | None:
    """The hash of ``text`` with this account's key, 64 hexadecimal digits; None where no key can be kept."""
    key = _read_key() or _make_key()
    return None if key is None else _hash(key, text)


def has_signature(text: str, digest: object) -> bool:
    """Whether ``digest`` is what ``signature`` gives for ``text``."""
    key = _read_key()
    return key is not None and isinstance(digest, str) and hmac.compare_digest(_hash(key, text), digest)


def _hash(key: bytes, text: str) -> str:
    return hmac.new(key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def _key_file() -> Path:
    return settings_root() / "key"


def _read_key() -> bytes | None:
    try:
        key = _key_file().read_bytes()
    except OSError:
        return None
    return key if len(key) == KEY_BYTES else None


def _make_key() -> bytes | None:
    """A new key, readable by its owner alone; of several processes at once, the first one's key stays."""
    path = _key_file()
    temporary = path.with_name(f".key.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as handle:
            handle.write(secrets.token_bytes(KEY_BYTES))
            handle.flush()
            os.fsync(handle.fileno())
        if path.exists():  # damaged: what it signed has no valid hash any more
            os.replace(temporary, path)
        else:
            with suppress(FileExistsError):
                os.link(temporary, path)
    except OSError:  # a home that cannot be written: files stay without a hash
        return _read_key()
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return _read_key()
