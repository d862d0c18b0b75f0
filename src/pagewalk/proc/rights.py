"""What this process may do: capabilities, user namespace, seccomp, lockdown, options of /proc."""

from typing import NamedTuple

from pagewalk.proc.files import decode_name, lines, numbers, read_bytes, words
from pagewalk.proc.mounts import parse_mounts

# include/uapi/linux/capability.h
CAPABILITIES = {
    "CAP_DAC_OVERRIDE": 1,
    "CAP_DAC_READ_SEARCH": 2,
    "CAP_FOWNER": 3,
    "CAP_SYS_RAWIO": 17,
    "CAP_SYS_PTRACE": 19,
    "CAP_SYS_ADMIN": 21,
    "CAP_PERFMON": 38,
    "CAP_BPF": 39,
    "CAP_CHECKPOINT_RESTORE": 40,
}


def has_capability(name: str) -> bool:
    """Return whether ``name`` is effective in the initial user namespace, where it counts."""
    held = effective(read_bytes("/proc/self/status")) >> CAPABILITIES[name] & 1
    return bool(held) and in_initial_user_namespace()


def effective(status: bytes) -> int:
    """Return CapEff of a status file, a bit mask (Documentation/filesystems/proc.rst)."""
    return (numbers(status, b"CapEff", 16) or [0])[0]


def reads_any_file() -> bool:
    """Return whether file modes do not restrict us, so that we can read others' 0400 files."""
    return has_capability("CAP_DAC_OVERRIDE") or has_capability("CAP_DAC_READ_SEARCH")


def in_initial_user_namespace() -> bool:
    """Return whether this process is in a user namespace that maps each uid to itself."""
    try:
        return is_initial(read_bytes("/proc/self/uid_map"))
    except OSError:
        return True


def is_initial(uid_map: bytes) -> bool:
    """Return whether a uid_map file is that of the initial user namespace."""
    return [words(line) for line in lines(uid_map, "uid_map")] == [[b"0", b"0", b"4294967295"]]


def proc_options() -> frozenset[bytes]:
    """Return the mount options of /proc, none if they cannot be read."""
    try:
        mounts = parse_mounts(read_bytes("/proc/self/mountinfo"))
    except OSError:
        return frozenset()
    options: list[bytes] = []
    for mount in mounts:
        if mount.point == b"/proc" and mount.kind == b"proc":
            options = mount.options  # a later mount covers an earlier one
    return frozenset(options)


def hides_processes() -> bool:
    """Return whether this /proc is mounted so that other users' processes are not listed."""
    hiding = {b"hidepid=2", b"hidepid=invisible", b"hidepid=ptraceable", b"hidepid=4"}
    return not hiding.isdisjoint(proc_options())


class Rights(NamedTuple):
    """The rights of this process that bpf(2) depends on.

    ``seccomp`` is the mode in /proc/self/status (0 none, 2 filter); ``lockdown`` the active mode
    ("" when the kernel has no lockdown); ``uid_map`` the text of /proc/self/uid_map; ``effective``
    the CapEff mask.
    """

    seccomp: int
    lockdown: str
    uid_map: bytes
    effective: int

    def has(self, capability: str) -> bool:
        """Return whether ``capability`` is effective."""
        return bool(self.effective >> CAPABILITIES[capability] & 1)


def _contents(path: str) -> bytes:
    try:
        return read_bytes(path)
    except OSError:
        return b""


def read_rights(root: str = "/") -> Rights:
    """Read this process's rights; ``root`` is the directory with proc and sys."""
    status = _contents(f"{root}/proc/self/status")
    lockdown = _contents(f"{root}/sys/kernel/security/lockdown")
    return Rights(
        seccomp=(numbers(status, b"Seccomp") or [0])[0],
        # "none [integrity] confidentiality": the brackets mark the active one.
        lockdown=decode_name(lockdown.partition(b"[")[2].partition(b"]")[0]),
        uid_map=_contents(f"{root}/proc/self/uid_map"),
        effective=effective(status),
    )
