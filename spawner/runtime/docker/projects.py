"""Project quotas of a folder, by the kernel's own calls: a program for a container of a moment.

``state``: whether the folder's file system keeps limits of projects. ``limit ID BYTES``: all in the
folder belongs to project ID, which may have BYTES of the disk (0: any number); with ``new`` only
where nobody else has that project. Each prints one line of JSON.

The calls are those of quotactl_fd(2) and ioctl_xfs_fsgetxattr(2), which ext4 and XFS both have
(include/uapi/linux/quota.h, dqblk_xfs.h and fs.h of Linux).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import stat
import struct
import sys
import time

FOLDER = "/folder"
SECONDS = 540  # for one folder; what is left then is done at the next look
DEPTH = 200  # folders within each other
_KIB = 1024

_QUOTACTL_FD = 443  # on every machine
_PROJECTS = 2  # PRJQUOTA
_GET, _SET, _STATE = 0x800007, 0x800008, 0x5808  # Q_GETQUOTA, Q_SETQUOTA, Q_XGETQSTATV
_KEPT = 1 << 5  # FS_QUOTA_PDQ_ENFD
# if_dqblk: limit and soft limit (KiB), bytes; the same of inodes; two times; which of them count.
_DQBLK = struct.Struct("=8QI4x")
_BLOCK_LIMITS = 1  # QIF_BLIMITS
_FSXATTR = struct.Struct("=5I8x")  # flags, two sizes, project, one size more
_GET_ATTR, _SET_ATTR = 0x801C581F, 0x401C5820  # FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR
_INHERIT = 0x200  # FS_XFLAG_PROJINHERIT
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)  # or became another thing
# Never waits for the other end of what a person put in a file's place.
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

_libc = ctypes.CDLL(None, use_errno=True)


def _quotactl(folder: int, command: int, project: int, buffer: ctypes.Array[ctypes.c_char]) -> None:
    """Of the file system that an open folder is on. Raises OSError."""
    word = ctypes.c_uint(command << 8 | _PROJECTS)
    if _libc.syscall(_QUOTACTL_FD, folder, word, ctypes.c_uint(project), buffer):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def refusal(folder: int) -> str:
    """Why the file system keeps no limits of projects; "" where it does."""
    buffer = ctypes.create_string_buffer(b"\1", 256)  # fs_quota_statv, version 1
    try:
        _quotactl(folder, _STATE, 0, buffer)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error.errno))
    (flags,) = struct.unpack_from("=H", buffer, 2)
    return "" if flags & _KEPT else "off"


def is_used(folder: int, project: int) -> bool:
    """Whether somebody has that project: it has files or limits."""
    buffer = ctypes.create_string_buffer(_DQBLK.size)
    try:
        _quotactl(folder, _GET, project, buffer)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESRCH):
            return False
        raise
    return any(_DQBLK.unpack(buffer.raw)[:6])


def set_limit(folder: int, project: int, limit: int) -> None:
    """Bytes that a project may have, to the next KiB; 0: any number."""
    values = (-(-limit // _KIB), 0, 0, 0, 0, 0, 0, 0, _BLOCK_LIMITS)
    _quotactl(folder, _SET, project, ctypes.create_string_buffer(_DQBLK.pack(*values), _DQBLK.size))


def project_of(file: int) -> int:
    """The project that an open file or folder belongs to; 0: none."""
    return int(_attributes(file)[3])


def _attributes(file: int) -> list[int]:
    return list(_FSXATTR.unpack(fcntl.ioctl(file, _GET_ATTR, bytes(_FSXATTR.size))))


def give(file: int, project: int, is_folder: bool) -> None:
    """Let an open file belong to a project; of a folder, what is made in it will, too."""
    found = _attributes(file)
    flags = found[0] | (_INHERIT if is_folder else 0)
    if (found[0], found[3]) != (flags, project):
        found[0], found[3] = flags, project
        fcntl.ioctl(file, _SET_ATTR, _FSXATTR.pack(*found))


def give_all(path: str, project: int, seconds: float = SECONDS) -> bool:
    """Give a folder and all that is in it, through no link and into no other file system.

    What is in it is people's, of any number and depth, and changes meanwhile. Gives whether it was
    done to the end.
    """
    end, whole = time.monotonic() + seconds, True
    top = os.open(path, _OPEN | os.O_DIRECTORY)
    device = os.fstat(top).st_dev
    stack = [(top, os.scandir(top))]
    give(top, project, is_folder=True)
    try:
        while stack and time.monotonic() < end:
            folder, entries = stack[-1]
            entry = next(entries, None)
            if entry is None:
                entries.close()
                os.close(folder)
                stack.pop()
                continue
            try:
                if below := _give_entry(entry, folder, project, device):
                    if len(stack) < DEPTH:
                        stack.append((below, os.scandir(below)))
                    else:
                        os.close(below)
                        whole = False
            except OSError as error:
                whole = whole and error.errno in _GONE
        return whole and not stack
    finally:
        for folder, entries in stack:
            entries.close()
            os.close(folder)


def _give_entry(entry: os.DirEntry[str], folder: int, project: int, device: int) -> int | None:
    """Give a file or a folder; the folder, open. Of all else the kernel has no projects to set."""
    is_folder = entry.is_dir(follow_symlinks=False)
    if not is_folder and not entry.is_file(follow_symlinks=False):
        return None
    file = os.open(entry.name, _OPEN | (os.O_DIRECTORY if is_folder else 0), dir_fd=folder)
    try:
        found = os.fstat(file)
        if found.st_dev == device and (is_folder or stat.S_ISREG(found.st_mode)):
            give(file, project, is_folder)
            if is_folder:
                kept, file = file, -1
                return kept
        return None
    finally:
        if file >= 0:
            os.close(file)


def limit(path: str, project: int, most: int, new: bool) -> dict[str, object]:
    """``{"taken": True}``, or ``{"whole": …}`` where the limit is set. Raises OSError."""
    folder = os.open(path, _OPEN | os.O_DIRECTORY)
    try:
        if new and project_of(folder) != project and is_used(folder, project):
            return {"taken": True}
        # The limit comes last: what is over it must still be given.
        whole = give_all(path, project)
        set_limit(folder, project, most)
        return {"whole": whole}
    finally:
        os.close(folder)


def state(path: str) -> dict[str, object]:
    """``{"refusal": …}``: empty where limits are kept."""
    folder = os.open(path, _OPEN | os.O_DIRECTORY)
    try:
        return {"refusal": refusal(folder)}
    finally:
        os.close(folder)


def main(words: list[str], path: str = FOLDER) -> None:
    """Do what the words say, and print the answer."""
    if words == ["state"]:
        found = state(path)
    else:
        _, project, most, *more = words
        found = limit(path, int(project), int(most), new=more == ["new"])
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
