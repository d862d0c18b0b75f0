"""Where recordings are: files, object stores, data sets of many hosts, and words for one.

A data set is a directory ``ROOT/host=HOST/time=TIME/snapshot.parquet`` (Hive's layout, which other
programs read as columns host and time), on a disk or in an object store (``s3://BUCKET/PREFIX``).
Only whole files get their name, so a host that dies while it writes leaves nothing to read.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from errno import EIO
from stat import S_ISDIR, S_ISREG
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

from pagewalk.model.arrow import arrow, file_systems
from pagewalk.model.errors import BadRecording
from pagewalk.proc.mounts import answered_elsewhere, real_path
from pagewalk.snapshot.schema import MAGIC
from pagewalk.snapshot.write import whole_file

NAME = "snapshot.parquet"
ENDING = ".pagewalk"  # what a recording is usually called; any other name will do
URL = re.compile(r"[a-z][a-z0-9+.-]*://")
WHEN = "%Y-%m-%dT%H-%M-%S.%fZ"
PIECE = 8 << 20
# What the armed recorder calls its recordings: when, why, and of which cgroup (history.kept).
OF_ARMED = re.compile(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.\d{6}Z-[a-z]+-.+\.parquet")


class Entry(NamedTuple):
    """A recording of a data set: its host, its time (nanoseconds since 1970), and where it is."""

    host: str
    time: int
    path: str


def is_url(path: str) -> bool:
    """Return whether ``path`` is in an object store."""
    return URL.match(path) is not None


def place_of(root: str, host: str, time_ns: int) -> str:
    """Return where a recording of ``host`` at that time belongs in the data set ``root``."""
    when = datetime.fromtimestamp(time_ns // 1000 / 1e6, UTC).strftime(WHEN)
    base, mark, options = root.partition("?") if is_url(root) else (root, "", "")
    return f"{base.rstrip('/')}/host={quoted(host)}/time={when}/{NAME}{mark}{options}"


def quoted(host: str) -> str:
    """Return a host's name as a directory can have it."""
    name = quote(host, safe="")
    return name.replace(".", "%2E") if name in (".", "..") else name


def shown(path: str) -> str:
    """Return ``path`` without the credentials and options that an address may have."""
    if not is_url(path):
        return path
    scheme, _, rest = path.partition("?")[0].partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


@contextmanager
def written(path: str) -> Iterator[Any]:
    """Yield a file to write to, which is at ``path`` when the block has ended well; see whole_file.

    The directories of a data set are made, and removed again if it fails. Raises OSError.
    """
    if is_url(path):
        with stored(path) as out:
            yield out
        return
    made = make_folders(os.path.dirname(path)) if os.path.basename(path) == NAME else []
    try:
        with whole_file(path) as out:
            yield out
    except BaseException:
        for folder in reversed(made):
            with suppress(OSError):
                os.rmdir(folder)
        raise


def make_folders(folder: str) -> list[str]:
    """Make ``folder`` and those above it that are missing, mode 0700; return which were made."""
    missing = []
    while folder and not os.path.isdir(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    for one in reversed(missing):
        with suppress(FileExistsError):
            os.mkdir(one, 0o700)
    return missing[::-1]


@contextmanager
def stored(url: str) -> Iterator[Any]:
    # It is sent when it is complete: an object store shows an object when its last byte is there.
    with tempfile.TemporaryFile(prefix="pagewalk.") as out:
        yield out
        out.seek(0)
        with refusals(url):
            system, path = file_systems().FileSystem.from_uri(url)
            with system.open_output_stream(path) as stream:
                shutil.copyfileobj(out, stream, PIECE)


def opened(path: str) -> Any:
    """Return what pyarrow reads a recording in an object store from; raises OSError."""
    with refusals(path):
        system, inside = file_systems().FileSystem.from_uri(path)
        return system.open_input_file(inside)


@contextmanager
def refusals(url: str) -> Iterator[None]:
    """Raise what an object store says as OSError, in a line; it may be several pages."""
    try:
        yield
    except (OSError, arrow().ArrowException, ValueError) as error:
        said = str(error).partition("\n")[0][:300]
        raise OSError(getattr(error, "errno", None) or EIO, said, shown(url)) from None


def recordings_in(root: str, unread: list[str] | None = None) -> list[Entry]:
    """Return the recordings of a data set by host and time; raises BadRecording, OSError.

    What cannot be listed, or has no time, is added to ``unread`` in a sentence, or raised if that
    is None. Files that are not where one belongs are passed over: half of one has no such name.
    """
    if not is_url(root) and os.path.isfile(root):
        raise BadRecording(root, "it is a file, not a directory of many: show, query and diff take"
                           " a single recording")
    found, refused = list[Entry](), list[BadRecording]()
    for path in files_in(root, refused):
        parts = parts_of(path)
        if [part.partition("=")[0] for part in parts[-3:]] != ["host", "time", NAME]:
            continue
        entry = entry_of(path)
        if entry is None:
            refused.append(BadRecording(shown(path), "its directory is not called by a time, such"
                                        " as time=2026-11-27T06-34-56.000000Z"))
        else:
            found.append(entry)
    if refused and (unread is None or not found):
        raise refused[0]
    if not found:
        inside = recordings_directly_in(root)
        but = f", but with recordings, such as {inside[-1]}" if inside else ""
        raise BadRecording(shown(root), f"it is a directory without host=*/time=*/{NAME}{but}"
                           + ": give the directory to query" * bool(inside))
    if unread is not None:
        unread += map(str, refused)
    return sorted(found)


def files_in(root: str, refused: list[BadRecording]) -> Iterator[str]:
    """Yield what may be a recording of a data set; what cannot be listed goes to ``refused``."""
    if is_url(root):
        with refusals(root):
            fs = file_systems()
            system, inside = fs.FileSystem.from_uri(root)
            every = system.get_file_info(fs.FileSelector(inside, recursive=True))
        base = root.partition("?")
        for one in every:
            rest = one.path.removeprefix(inside).lstrip("/")
            yield f"{base[0].rstrip('/')}/{rest}{base[1]}{base[2]}"
        return
    for host in subfolders(root, "host="):
        try:
            for time in subfolders(host, "time="):
                if may_be_there(f"{time}/{NAME}"):
                    yield f"{time}/{NAME}"
        except OSError as error:
            refused.append(BadRecording(host, (error.strerror or str(error)).lower()))


def may_be_there(path: str) -> bool:
    """Return False only for what is not there: whoever opens anything else is told what it is."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        pass
    return True


def subfolders(folder: str, begin: str) -> Iterator[str]:
    with os.scandir(folder) as rows:
        yield from (row.path for row in rows if row.name.startswith(begin) and row.is_dir())


def parts_of(path: str) -> list[str]:
    return (path.partition("?")[0] if is_url(path) else path).split("/")


def entry_of(path: str) -> Entry | None:
    """Return what the place of a recording says, None if it is not one of a data set."""
    parts = parts_of(path)
    if len(parts) < 3 or parts[-1] != NAME:
        return None
    host, when = parts[-3].removeprefix("host="), parts[-2].removeprefix("time=")
    try:
        moment = datetime.strptime(when, WHEN).replace(tzinfo=UTC)
    except ValueError:
        return None
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    micros = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    return Entry(unquoted(host), micros * 1000, path)


def unquoted(name: str) -> str:
    """Return the host that a directory is called after; itself if that is not UTF-8."""
    try:
        return unquote(name, errors="strict")
    except UnicodeDecodeError:
        return name


def is_dataset(word: str) -> bool:
    """Return whether ``word`` names a data set: a directory with a host, or a place in a store."""
    if is_url(word):
        return not word.partition("?")[0].endswith((".parquet", ENDING))
    try:
        return os.path.isdir(word) and any(True for _ in subfolders(word, "host="))
    except OSError:
        return False


def recordings_directly_in(folder: str) -> list[str]:
    """Return the files directly in ``folder`` that are recordings by their names, newest last.

    Those are ``*.pagewalk``, and what the armed recorder writes: others write Parquet too.
    """
    found = list[tuple[int, str]]()
    try:
        with os.scandir(folder) as rows:
            for row in rows:
                if row.name.endswith(ENDING) or OF_ARMED.fullmatch(row.name):
                    with suppress(OSError):  # the armed recorder removes old ones
                        if row.is_file():
                            found.append((row.stat().st_mtime_ns, row.path))
    except (OSError, ValueError):
        return []
    return [path for _, path in sorted(found)]


def may_be_recording(word: str) -> bool:
    """Return whether ``word``, as FILE or FILE:PROCESS, may name a recording."""
    return is_recording(word) or (":" in word and is_recording(word.rpartition(":")[0]))


def is_recording(word: str) -> bool:
    """Return whether ``word`` names a file that begins as a recording does, or is called so.

    A number is a pid. A directory of many recordings is taken for one if its name has a slash (else
    a process or a cgroup may be called so), so that whoever opens it is told what to name instead.

    A file that is neither is not opened, nor is one in an object store: its name decides. Where
    a file system may never answer, only a name that ends as one of a recording is looked at.
    """
    if word.isdecimal():
        return False
    if is_url(word):
        return word.partition("?")[0].endswith((".parquet", ENDING))
    if not word.endswith((".parquet", ENDING)) and "/" in word and (
            real_path(os.path.abspath(word), answered_elsewhere())[1]):
        return False
    try:
        mode = os.stat(word).st_mode
        if not S_ISREG(mode):
            many = S_ISDIR(mode) and "/" in word
            return many and (is_dataset(word) or bool(recordings_directly_in(word)))
        with open(word, "rb") as file:
            return file.read(4) == MAGIC or word.endswith(ENDING)
    except PermissionError:
        return os.path.isfile(word)  # whoever opens it is told why that is refused
    except (OSError, ValueError):
        return word.endswith(ENDING)
