"""Other kernels under QEMU: boot one on this machine's files, run a command, return its output."""
