"""The settings of huge pages, from a tree like /sys/kernel/mm/transparent_hugepage."""

from __future__ import annotations

from pathlib import Path

from pagewalk.proc.hugepages import Policy, chosen, read_policy


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


def test_each_size_is_an_order(tmp_path: Path) -> None:
    write(tmp_path, enabled="always [madvise] never\n",
          shmem_enabled="always within_size advise [never] deny force\n", defrag="[always]\n")
    # 8 KiB is too small for anonymous memory, 2 MiB is order 9.
    write(tmp_path / "hugepages-8kB", shmem_enabled="always inherit within_size [advise] never\n")
    write(tmp_path / "hugepages-64kB", enabled="[always] inherit madvise never\n",
          shmem_enabled="always inherit within_size advise [never]\n")
    write(tmp_path / "hugepages-2048kB", enabled="always [inherit] madvise never\n")
    assert read_policy(str(tmp_path)) == Policy(
        "madvise", "never",
        {"always": 1 << 4, "inherit": 1 << 9}, {"advise": 1 << 1, "never": 1 << 4},
    )


def test_older_kernels_have_the_top_level_only(tmp_path: Path) -> None:
    write(tmp_path, enabled="[always] madvise never\n")
    write(tmp_path / "khugepaged", defrag="1\n")
    assert read_policy(str(tmp_path)) == Policy("always", "never", {}, {})


def test_a_kernel_without_huge_pages_has_no_settings(tmp_path: Path) -> None:
    assert read_policy(str(tmp_path / "none")) is None


def test_the_word_in_brackets_is_the_setting() -> None:
    assert chosen(b"always [madvise] never\n") == "madvise"
    assert chosen(b"") == ""
