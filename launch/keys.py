"""Keys of hosts: files of 64 hexadecimal digits, `HOST.public` and `HOST.secret` (mode 0600)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

PUBLIC, SECRET = ".public", ".secret"
_DIGITS = re.compile(r"[0-9a-f]{64}")
_OPEN = 0o077  # a secret that others may read is none


class UnusableKey(ValueError):
    """A key cannot be made or used; says why and what to do."""


def make(folder: Path, hosts: Iterable[str]) -> dict[str, str]:
    """Makes a pair of keys for each host; host -> its public key.

    Raises:
        UnusableKey: there are keys already, which somebody may be using, or no place for them.
    """
    from safetypilot.nodes.kernel.link_sockets import make_pair

    names = list(hosts)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in names:
            for file in (folder / f"{name}{PUBLIC}", folder / f"{name}{SECRET}"):
                if file.exists():
                    raise UnusableKey(f"{file} exists; remove it, and the host is locked out")
        made = {}
        for name in names:
            public, secret = make_pair()
            _write(folder / f"{name}{SECRET}", secret.hex(), 0o600)
            _write(folder / f"{name}{PUBLIC}", public.hex(), 0o644)
            made[name] = public.hex()
    except OSError as error:
        raise UnusableKey(f"{error.filename}: {error.strerror}") from None
    return made


def _write(file: Path, digits: str, mode: int) -> None:
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(handle, "w") as opened:
        opened.write(f"{digits}\n")


def is_key(text: str) -> bool:
    """Whether a text is a key itself, and not the name of a file with one."""
    return _DIGITS.fullmatch(text) is not None


def read(file: Path) -> str:
    """The digits in a file of one key.

    Raises:
        UnusableKey: there are none.
    """
    try:
        words = file.read_text().split()
    except (OSError, UnicodeDecodeError):
        raise UnusableKey(f"there is no key in {file}") from None
    if len(words) != 1 or not is_key(words[0]):
        raise UnusableKey(f"{file} does not hold a key: 64 hexadecimal digits")
    return words[0]


def read_secret(file: Path) -> str:
    """The public key that belongs to the secret one in a file.

    Raises:
        UnusableKey: there is none, or others may read it.
    """
    from safetypilot.nodes.kernel.link_sockets import public_of

    secret = read(file)
    if file.stat().st_mode & _OPEN:
        raise UnusableKey(f"{file} can be read by others: chmod 600 {file}")
    return public_of(bytes.fromhex(secret)).hex()
