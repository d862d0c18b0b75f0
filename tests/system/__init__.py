"""Tests of all of RAM, all processes, every cgroup."""
