"""Unpacking an archive of a data set, which a stranger may have packed."""

from __future__ import annotations

import gzip
import stat
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, cast

from engine.data.base import DataError

MAX_MEMBERS, MAX_UNPACKED = 250_000, 4 << 30  # Tiny ImageNet's archive holds 120 000 files and 0.25 GB
LARGEST_SIP = 1 << 24


def unpack(archive: Path, target: Path) -> None:
    """Unpack the folder `target.name` of a .tar.gz or .zip to `target`; nothing can land outside, nor half of it.

    DataError names the archive, and the member that has no business in one of a data set.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=".unpack-", dir=target.parent) as temporary:
            (_unzip if archive.suffix == ".zip" else _untar)(archive, Path(temporary))
            inner = Path(temporary) / target.name
            if not inner.is_dir():
                raise DataError(f"{archive}: holds no folder {target.name}", "get the official archive")
            inner.rename(target)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{archive}: cannot be unpacked: {error}",
            f"delete it to have it fetched again, or unpack it to {target} yourself",
        ) from None


def _unzip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as zipped:
        members = zipped.infolist()
        content = _Content(archive)
        for member in members:
            kind = stat.S_IFMT(member.external_attr >> 16)
            content.add(member.filename, member.file_size, plain=kind in (0, stat.S_IFREG, stat.S_IFDIR))
        zipped.extractall(folder, members)


def _untar(archive: Path, folder: Path) -> None:
    """Each member is looked at before it is unpacked: a list of them would cost unpacking all of it twice."""
    content = _Content(archive)
    plain = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE)
    with (
        gzip.open(archive) as unzipped,
        tarfile.open(fileobj=cast("IO[bytes]", _Sips(unzipped, archive)), mode="r:") as tarred,
    ):
        for member in tarred:
            content.add(member.name, member.size, plain=member.type in plain)
            tarred.extract(member, folder, filter="data")


class _Content:
    """What an archive has said that it holds, member by member."""

    def __init__(self, archive: Path) -> None:
        self.archive = archive
        self.members = self.bytes = 0

    def add(self, name: str, size: int, *, plain: bool) -> None:
        """DataError for a member that leads out of the folder, is neither a file nor a folder, or is one too many."""
        self.members += 1
        self.bytes += size
        path = PurePosixPath(name)
        if not plain:
            reason = "is a link or a device"
        elif path.is_absolute() or ".." in path.parts or "\\" in name or not name.isprintable():
            reason = "would leave the folder"
        elif size < 0 or self.members > MAX_MEMBERS or self.bytes > MAX_UNPACKED:
            reason = f"would be too much: more than {MAX_MEMBERS} files or {MAX_UNPACKED >> 30} GiB"
        else:
            return
        message = f"{self.archive}: member {name[:200]!r} {reason}; nothing was unpacked"
        raise DataError(message, "get the official archive")


class _Sips:
    """A file that is only read in pieces: a header of an archive may claim to be gigabytes long."""

    def __init__(self, file: gzip.GzipFile, archive: Path) -> None:
        self.file, self.archive = file, archive
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        """`size` bytes, at most LARGEST_SIP; DataError for more, and behind MAX_UNPACKED."""
        if not 0 <= size <= LARGEST_SIP or self.file.tell() > 2 * MAX_UNPACKED:
            raise DataError(f"{self.archive}: one of its headers is too long", "get the official archive")
        return self.file.read(size)
