"""Downloading a file and having an archive unpacked, whole or not at all.

Several runs may start at once and miss the same data set: a lock in its folder lets one of them fetch it and
the others wait.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from engine.data._unpack import unpack
from engine.data.base import DataError, Source

TIMEOUT = 30.0  # seconds without an answer, after which a server counts as out of reach


@dataclass(frozen=True)
class Remote:
    """A file in the net: its address, whom that belongs to, and the MD5 of its content."""

    url: str
    owner: str
    md5: str

    @property
    def name(self) -> str:
        """The file's name."""
        return Path(urlsplit(self.url).path).name


def md5(path: Path) -> str:
    """MD5 of a file's content, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def check_md5(path: Path, expected: str) -> None:
    """DataError if the file's content is not the published one."""
    found = md5(path)
    if found != expected:
        raise DataError(
            f"{path}: wrong checksum: MD5 {found}, expected {expected}",
            "the file is damaged or another one: delete it to have it fetched again, "
            "or set data.verify = false to take it as it is",
        )


def obtain_archive(remote: Remote, source: Source, folder: str) -> Path:
    """The folder `source.root / folder`, unpacked from the archive beside it, or from a download."""
    target, archive = source.root / folder, source.root / remote.name
    if target.is_dir():
        return target
    with locked(source.root, remote, source):
        if target.is_dir():  # another process was quicker
            return target
        if not archive.exists():
            download(remote, archive, source)
        elif source.verify:
            check_md5(archive, remote.md5)
        unpack(archive, target)
    return target


@contextmanager
def locked(folder: Path, remote: Remote, source: Source) -> Iterator[None]:
    """Hold `folder` alone to fetch or unpack `remote` there; DataError if that is not allowed."""
    if not source.download and not (folder / remote.name).exists():
        raise _missing(remote, source, folder, "data.download is false")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR, 0o666)
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be written ({error.strerror}), but {remote.name} must be fetched or unpacked there",
            f"set data.root or TRAINCTL_DATA, now {source.root}, to one that can be written or holds the data set",
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def download(remote: Remote, target: Path, source: Source) -> None:
    """Fetch `remote` to `target`; DataError names the owner of the address, the file and where to put it."""
    from torchvision.datasets.utils import download_url

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        with tempfile.TemporaryDirectory(prefix=".download-", dir=target.parent) as temporary:
            download_url(remote.url, temporary, filename=target.name, md5=remote.md5 if source.verify else None)
            (Path(temporary) / target.name).replace(target)
    except (OSError, HTTPException, RuntimeError) as error:  # RuntimeError: torchvision's wrong checksum
        reason = f"{urlsplit(remote.url).netloc} ({remote.owner}) could not deliver it ({error})"
        raise _missing(remote, source, target.parent, reason) from None
    finally:
        socket.setdefaulttimeout(before)


def _missing(remote: Remote, source: Source, folder: Path, reason: str) -> DataError:
    host = urlsplit(remote.url).netloc
    return DataError(
        f"{remote.name} is not in {folder}, and {reason}",
        f"get {remote.url} (from {host}, {remote.owner}) and put it in {folder}; "
        f"or set data.root or TRAINCTL_DATA, now {source.root}, to the folder that holds the data set",
    )
