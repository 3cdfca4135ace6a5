"""Landlock: limits file access of this process to some folders, without privileges. Linux 5.13 and newer.

Standard library only: it runs inside the sandbox. Numbers from the kernel's linux/landlock.h; the calls have the same
numbers on every architecture.
"""

from __future__ import annotations

import ctypes
import os
import struct

__all__ = ["restrict", "version"]

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_READ = 0b1100  # read a file, list a folder
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # ABI: how many kinds of access it knows
_libc = ctypes.CDLL(None, use_errno=True)


def version() -> int:
    """The kernel's ABI of Landlock; 0 where it has none."""
    return max(0, int(_libc.syscall(_CREATE, None, 0, 1)))


def restrict(room: str, readable: list[str]) -> bool:
    """Allow all access below ``room``, reading below ``readable``; False where the kernel has no Landlock.

    From ABI 4 also no TCP, from 6 no signals and abstract sockets to other domains. Needs no_new_privs, which it sets.
    """
    abi = version()
    if not abi:
        return False
    rights = (1 << _RIGHTS.get(abi, 16)) - 1
    asked = struct.pack("QQQ", rights, 3 if abi >= 4 else 0, 3 if abi >= 6 else 0)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    rules = _libc.syscall(_CREATE, ctypes.create_string_buffer(asked), ctypes.c_size_t(size), 0)
    if rules < 0:
        raise OSError(ctypes.get_errno(), "landlock_create_ruleset")
    allowed = [(room, rights), *((path, _READ) for path in readable)]
    allowed += [(f"/dev/{name}", 0b110) for name in ("null", "zero", "urandom", "random", "full")]
    for path, access in allowed:
        try:
            folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue  # not on this system: nothing to allow
        rule = struct.pack("=Qi", access & rights, folder)
        if _libc.syscall(_ADD, rules, 1, ctypes.create_string_buffer(rule), 0):
            raise OSError(ctypes.get_errno(), f"landlock_add_rule {path}")
        os.close(folder)
    if _libc.prctl(38, 1, 0, 0, 0) or _libc.syscall(_RESTRICT, rules, 0):
        raise OSError(ctypes.get_errno(), "landlock_restrict_self")
    os.close(rules)
    return True
