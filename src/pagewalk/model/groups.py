"""Cgroups as columns: every group of the hierarchy that has the memory controller."""

from pagewalk.model.columns import I64, U64, Rows


class Groups(Rows):
    """The memory cgroups of a machine, each after its parent.

    ``inode`` u64 of its directory, which is also the id by which the kernel knows it; ``parent``
    i64 row of its parent, -1 for what is mounted; ``path`` as /proc/PID/cgroup shows it, where
    os.fsencode() gives the kernel's bytes back.
    """

    inode: U64
    parent: I64
    path: tuple[str, ...]
