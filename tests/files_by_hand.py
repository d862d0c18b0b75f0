"""A page cache by file, written by hand: one file of each sort, and more."""

from __future__ import annotations

from pagewalk.kernel.structs.open_files import Holder
from pagewalk.proc.places import Place
from pagewalk.system.files import Amounts, CachedFile, Charge, FilesReport, FilesTotal, Sort

MIB = 1 << 20
WEB, DB, GONE = 0xFFFF_8881_0000_0000, 0xFFFF_8881_0000_1000, 0xFFFF_8881_0000_2000
NAMES = {WEB: "/web.slice", DB: "/db.slice"}


def amounts(cached: int, mapped: int = 0, dirty: int = 0, huge: int | None = 0) -> Amounts:
    return Amounts(cached * MIB, mapped * MIB, dirty * MIB, cached * MIB // 2, huge)


LOG = CachedFile(
    Sort.DELETED, amounts(2900, dirty=3), "ext4", 254 << 32, 77, 0, "/var/log/app.log", True,
    Place(b"/var/log/app.log", (), None), (Charge(WEB, 2900 * MIB),),
    (Holder(812, "java", True, False), Holder(900, "tail", True, True),
     Holder(901, "tail", False, True)),
)
OLD = LOG._replace(
    amounts=amounts(100), inode=78, inside="/tmp/old", kept_by=(),
    place=Place(b"/tmp/old", (), None), charges=(Charge(WEB, 60 * MIB), Charge(DB, 40 * MIB)),
)
TABLE = CachedFile(
    Sort.FILE, amounts(500, mapped=200), "xfs", 254 << 32 | 1, 9, 1, "/base/1/2", False,
    Place(b"/srv/base/1/2", (b"/data/1/2",), None), (Charge(DB, 500 * MIB),), None,
)
LAYER = TABLE._replace(
    amounts=amounts(40), inode=10, inside="/upper/x", place=Place(b"/x", (), 4711),
    charges=(Charge(GONE, 40 * MIB),),
)
HIDDEN = TABLE._replace(amounts=amounts(30), inode=11, inside="/lost", place=None, charges=None)
NAMELESS = TABLE._replace(amounts=amounts(20), inode=12, inside=None, place=None, charges=())
SHM = TABLE._replace(
    sort=Sort.TMPFS, amounts=amounts(64, mapped=64, dirty=64), file_system="tmpfs", dev=27,
    inside="/segment", place=Place(b"/dev/shm/segment", (), None), charges=(Charge(0, 64 * MIB),),
)
MEMFD = SHM._replace(
    sort=Sort.UNNAMED, amounts=amounts(300), inside="memfd:cache", place=None, nlink=0,
    kept_by=(Holder(5, "compositor", True, False),), charges=(Charge(DB, 300 * MIB),),
)
ZERO = MEMFD._replace(amounts=amounts(8, mapped=8), inside="dev/zero")
DISK = CachedFile(
    Sort.DEVICE, amounts(60), "bdev", 254 << 32 | 1, 5, 1, None, False, None,
    (Charge(DB, 60 * MIB),), None,
)
WENT = CachedFile(Sort.GONE, amounts(1), "", 0, 0, 0, None, False, None, None, None)

FILES = (LOG, OLD, TABLE, LAYER, HIDDEN, NAMELESS, SHM, MEMFD, ZERO, DISK, WENT)
OTHERS = 1000  # files of 1 MiB each that are not listed


def total(*files: CachedFile, others: int = 0) -> FilesTotal:
    columns = [sum(column) for column in zip(*(file.amounts for file in files), strict=True)]
    whole = Amounts(*columns) if files else Amounts(0, 0, 0, 0, 0)
    more = others * MIB
    return FilesTotal(
        len(files) + others,
        whole._replace(cached=whole.cached + more, active=whole.active + more),
    )


REPORT = FilesReport(
    FILES,
    {sort: total(*(file for file in FILES if file.sort is sort),
                 others=OTHERS * (sort is Sort.FILE)) for sort in Sort},
    {"ext4": total(LOG, OLD), "xfs": total(TABLE, LAYER, HIDDEN, NAMELESS, others=OTHERS),
     "tmpfs": total(SHM, MEMFD, ZERO), "bdev": total(DISK), "": total(WENT)},
    holders_complete=True,
)
