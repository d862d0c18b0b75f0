"""Run pagewalk with fewer rights: python -m tests.live.dropped --without CAP,... | --user UID ARGS.

All of pagewalk is imported before the rights are dropped: only root may be able to read the
checkout.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import pkgutil
import sys
from contextlib import suppress

# What functions of pagewalk import late: the same may be true of Python itself.
LATE = ("zlib", "shutil", "subprocess")

# include/uapi/linux/capability.h
CAPABILITIES = {
    "SYS_RAWIO": 17, "SYS_PTRACE": 19, "SYS_ADMIN": 21, "SYSLOG": 34, "PERFMON": 38, "BPF": 39,
    "CHECKPOINT_RESTORE": 40,
}
VERSION_3 = 0x20080522
PR_SET_DUMPABLE, PR_CAPBSET_DROP = 4, 24


def import_all() -> None:
    """Import every module of pagewalk except those whose optional package is missing."""
    import pagewalk

    for name in LATE:
        importlib.import_module(name)
    for module in pkgutil.walk_packages(pagewalk.__path__, "pagewalk."):
        if not module.name.endswith("__main__"):
            with suppress(ImportError):
                importlib.import_module(module.name)
    importlib.metadata.version("pagewalk")


def become(uid: int) -> None:
    """Become an ordinary user without capabilities, permanently, as after a login."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    # A change of user hides /proc/self from its owner; an exec, as by a login shell, undoes that.
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1)


def lose(*names: str) -> None:
    """Drop capabilities from this thread and from whatever it executes."""
    libc = ctypes.CDLL(None, use_errno=True)
    mask = 0
    for name in names:
        mask |= 1 << CAPABILITIES[name]
        if libc.prctl(PR_CAPBSET_DROP, CAPABILITIES[name]):
            raise OSError(ctypes.get_errno(), f"drop {name} from the bounding set")
    header = (ctypes.c_uint32 * 2)(VERSION_3, 0)
    # For each half of the 64 bits: effective, permitted, inheritable.
    sets = (ctypes.c_uint32 * 6)()
    libc.capget(header, sets)
    for half in (0, 1):
        for kind in range(3):
            sets[3 * half + kind] &= ~(mask >> 32 * half) & 0xFFFFFFFF
    if libc.capset(header, sets):
        raise OSError(ctypes.get_errno(), "capset")


def take(words: list[str], option: str) -> str | None:
    # The value of an option in front of pagewalk's own arguments; None without it.
    if words[:1] != [option]:
        return None
    del words[0]
    return words.pop(0)


if __name__ == "__main__":
    from pagewalk.cli import main

    words = sys.argv[1:]
    import_all()
    if (names := take(words, "--without")) is not None:
        lose(*names.split(","))
    if (uid := take(words, "--user")) is not None:
        become(int(uid))
    sys.exit(main(words))
