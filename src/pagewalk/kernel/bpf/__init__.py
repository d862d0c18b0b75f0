"""BPF: an assembler, the system call, and why it was refused."""
