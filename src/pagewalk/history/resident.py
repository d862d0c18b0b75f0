"""Keep in RAM what is in RAM of ourselves: to be read back is what one waits for under pressure."""

import ctypes

MCL_CURRENT, MCL_ONFAULT = 1, 4  # include/uapi/asm-generic/mman.h


def lock_memory() -> bool:
    """Lock what is in RAM of this process now, and nothing more; return whether we may.

    That takes CAP_IPC_LOCK, or a limit (ulimit -l) of our whole address space: VmLck counts that,
    although only what is in RAM is locked. Source: mlockall(2).
    """
    return int(ctypes.CDLL(None).mlockall(MCL_CURRENT | MCL_ONFAULT)) == 0
