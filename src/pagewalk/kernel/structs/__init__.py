"""What kernel memory means: structs found by BTF."""
