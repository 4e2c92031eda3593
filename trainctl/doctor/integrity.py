"""Is the index what SQLite wrote?"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time

from trainctl.home import Home
from trainctl.registry import schema

GLANCE = 0.3  # seconds that the look may take


def damage(home: Home) -> str:
    """What is wrong with the index, as far as a short look tells; "" if nothing or there is none."""
    index = home.index
    files = [index, *(index.with_name(index.name + suffix) for suffix in ("-wal", "-shm"))]
    odd = [path.name for path in files if os.path.lexists(path) and not path.is_file()]
    if odd or not index.exists():
        return f"{odd[0]} is no plain file" if odd else ""
    end = time.monotonic() + GLANCE
    connection = sqlite3.connect(f"{index.absolute().as_uri()}?mode=ro", uri=True, timeout=1.0)
    try:
        with contextlib.closing(connection):
            connection.set_progress_handler(lambda: time.monotonic() > end, 1000)
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if 0 < version <= schema.VERSION:
                connection.execute("SELECT id FROM runs LIMIT 1").fetchone()
            said = [str(row[0]) for row in connection.execute("PRAGMA quick_check(1)")]
            return "" if said == ["ok"] else said[0].splitlines()[0] if said else ""
    except sqlite3.Error as error:
        # Without damage, the time was up, or what a killed writer left must be put in order by the next one.
        harmless = getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_READONLY)
        return str(error) if schema.is_damage(error) and not harmless else ""
