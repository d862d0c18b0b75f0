"""The machine is the one that other interfaces name too."""

import subprocess

from pagewalk.proc.host import read_host


def test_the_host_is_the_one_that_uname_names() -> None:
    said = subprocess.run(["uname", "-nr"], capture_output=True, text=True, check=True).stdout
    host = read_host()
    assert said.split() == [host.name, host.kernel]
    assert len(host.boot) == 36
