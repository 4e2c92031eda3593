"""What file system a path lies on: over a network locks are weak, and SQLite's WAL does not work at all."""

from __future__ import annotations

import os
from pathlib import Path

MOUNTS = Path("/proc/self/mounts")
NETWORK = (
    "nfs", "cifs", "smb", "fuse.sshfs", "fuse.s3fs", "fuse.rclone", "lustre", "beegfs", "fuse.beegfs", "gpfs", "ceph",
    "fuse.ceph", "glusterfs", "fuse.glusterfs", "afs", "9p", "orangefs", "pvfs2", "wekafs", "fuse.juicefs",
)  # fmt: skip
"""How the names of their types begin."""


def filesystem(path: Path, mounts: Path = MOUNTS) -> str:
    """Type of the file system under `path`, which need not be there yet; "" if unknown."""
    try:
        lines = os.fsdecode(mounts.read_bytes()).splitlines()
    except OSError:
        return ""
    place, best, kind = os.path.realpath(path), "", ""
    for line in lines:
        parts = line.split(" ")
        if len(parts) < 3:
            continue
        point = _plain(parts[1])
        # The later of two mounts on the same point is the one in use.
        if len(point) >= len(best) and f"{place}/".startswith(f"{point.rstrip('/')}/"):
            best, kind = point, parts[2]
    return kind


def is_network(kind: str) -> bool:
    """Whether a type of file system, as `filesystem` names it, is one over a network."""
    return kind.startswith(NETWORK)


def _plain(point: str) -> str:
    """A mount point as it is; the kernel writes blanks and backslashes as octal numbers."""
    for octal, sign in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        point = point.replace(octal, sign)
    return point
