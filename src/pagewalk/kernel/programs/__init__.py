"""BPF programs that spare copying."""
