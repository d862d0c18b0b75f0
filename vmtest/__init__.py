"""Other kernels under QEMU: boot one with this machine's files, run a command, bring it back."""
