"""What people can do when the system refuses something, by its error number. No torch here: both programs say it."""

from __future__ import annotations

import errno

_ROOM = "the disk is full: make room on it (`trainctl rm` deletes runs, `df -h` shows what is free)"
_RIGHTS = "let this user read and write it (`ls -ld` shows whose it is)"
_CONNECTION = "the disk, or the connection to it, failed: `dmesg` and its administrator know more"
REMEDIES = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: "make room in your quota (`trainctl rm` deletes runs, `quota -s` shows it), or have it raised",
    errno.EFBIG: "files may not grow so large here: raise the limit (`ulimit -f unlimited`)",
    errno.EROFS: "the file system is mounted read-only, often after an error (`dmesg`): have it mounted writable again",
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EMFILE: "allow more open files (`ulimit -n 4096`)",
    errno.ENFILE: "this machine has too many open files: end what holds them, or raise fs.file-max",
    errno.EIO: _CONNECTION,
    errno.ESTALE: "the network file system forgot the file: see that its folder is there, or have it mounted again",
}


def remedy_of(error: BaseException) -> str:
    """What to do about an error that the system is known for; "" for any other."""
    return REMEDIES.get(error.errno or 0, "") if isinstance(error, OSError) else ""
