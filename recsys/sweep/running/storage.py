"""Where the studies of a sweep are kept: a file in its folder, or a database for many machines."""

from __future__ import annotations

import json
import os
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from recsys.errors import ConfigError, RecsysError
from recsys.runtime.locks import acquire_lock

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine

JOURNAL = "journal.log"
LOCK = "recover.lock"

BEAT = 15
"""Seconds between two signs of life of a driver on a database."""

STALE = 90
"""Seconds without one after which its trials are lost: a short outage of the network is none."""

_DRIVERS = {
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
}
"""SQLAlchemy's names for databases of which no driver is named."""

_PACKAGES = {"psycopg": "psycopg[binary]", "psycopg2": "psycopg2-binary", "mysqldb": "mysqlclient"}
"""What to install for drivers whose package has another name."""

_TIMED = ("psycopg", "psycopg2", "pymysql", "mysqldb")
"""Drivers that know `connect_timeout`."""

_SERVERS = ("postgresql", "mysql", "mariadb")

_PATIENCE = 600
"""Seconds to wait for MySQL's lock, within which a sampler has suggested something."""


@dataclass(frozen=True)
class StudyStorage:
    """The place of a sweep's studies.

    Attributes:
        folder: The sweep's folder on this machine.
        storage: For `optuna.create_study`.
        shown: What may be printed: a file, or a URL without its password.
        server: The database's connections, where it may serve other machines; else None.
    """

    folder: Path
    storage: BaseStorage
    shown: str
    server: Engine | None

    @contextmanager
    def guard(self, name: str) -> Iterator[None]:
        """Keeps every other driver out, on this machine and through the database on all.

        However the holder ends, the system or the database lets go of it. It must not be entered
        twice at a time.

        Args:
            name: Of the study.

        Raises:
            ConfigError: The folder's file system has no locks.
            RecsysError: The database is gone, before or within.
        """
        failures: tuple[type[Exception], ...] = (StorageInternalError,)
        if self.server is not None:
            from sqlalchemy.exc import SQLAlchemyError

            failures += (SQLAlchemyError,)
        try:
            with _lock_folder(self.folder, self.server, name):
                yield
        except failures as error:
            raise RecsysError(
                f"storage: {self.shown} does not answer any more; run the command again when it "
                "does, to go on."
            ) from error


def open_storage(folder: Path, url: str | None) -> StudyStorage:
    """Opens the studies of a sweep; what is not there yet is made.

    Args:
        folder: The sweep's folder, which is made.
        url: Of a database, as in `postgresql://user:password@host/database`; None for a journal
            file in the folder.

    Raises:
        ConfigError: The journal is damaged, a driver is missing, or the database cannot be used.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if url is None:
        return _open_journal(folder)
    return _open_database(folder, url)


def _open_journal(folder: Path) -> StudyStorage:
    path = folder / JOURNAL
    lock = _RepairingLock(path)
    with _lock_file(folder / LOCK):
        backend = JournalFileBackend(str(path), lock_obj=lock)
        lock.acquire()
        try:
            _cut_unreadable_line(path)
        finally:
            lock.release()
    try:
        storage = JournalStorage(backend)
    except (ValueError, KeyError, TypeError, AssertionError, RecursionError):
        raise ConfigError(
            f"{path} is damaged; restore it from a copy, or start the sweep in another folder."
        ) from None
    return StudyStorage(folder, storage, str(path), None)


class _RepairingLock(JournalFileOpenLock):
    """The lock under which a journal is written, and which first cuts what a crash left half.

    A process that is killed while it writes leaves a line without an end, to which the next would
    be appended, and which nobody could read then. A reader passes over it, so that the line never
    was: its writer is dead, and what it was about to tell is lost with it.

    The lock is a file made exclusively, which holds on local disks and on NFS from version 3 on,
    and excludes Optuna's other one, that of its dashboard. One that a dead process left is broken
    after 30 seconds.

    Args:
        path: The journal.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path

    def acquire(self) -> bool:
        """Waits for the lock and mends the file.

        Returns:
            True.
        """
        got = super().acquire()
        try:
            _cut_torn_line(self._path)
        except BaseException:
            self.release()
            raise
        return got


def _cut_torn_line(path: Path) -> None:
    """Cuts what follows the last line end of a file."""
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        if end == 0:
            return
        file.seek(end - 1)
        if file.read(1) == b"\n":
            return
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        os.fsync(file.fileno())


def _cut_unreadable_line(path: Path) -> None:
    """Cuts a last line that is no JSON, as a crash of the machine may leave one.

    Optuna passes over it, writes behind it, and could read neither from then on.
    """
    with path.open("r+b") as file:
        whole = file.read()
        begin = whole.rfind(b"\n", 0, max(0, len(whole) - 1)) + 1
        try:
            if whole:
                json.loads(whole[begin:])
        except (ValueError, RecursionError):
            file.truncate(begin)
            os.fsync(file.fileno())


@contextmanager
def _lock_file(path: Path) -> Iterator[None]:
    """Holds a lock on a file, which is made."""
    with path.open("ab") as file:
        try:
            acquire_lock(file, wait=True)
        except OSError as error:
            raise ConfigError(
                f"{path} cannot be locked ({error.strerror}); put the sweep's folder on a file "
                "system with locks."
            ) from None
        yield


@contextmanager
def _lock_folder(folder: Path, server: Engine | None, name: str) -> Iterator[None]:
    with _lock_file(folder / LOCK), _lock_server(server, name) if server else nullcontext():
        yield


@contextmanager
def _lock_server(engine: Engine, name: str) -> Iterator[None]:
    """Holds a lock of the database's own, which ends with the connection at the latest."""
    from sqlalchemy import text

    key = zlib.crc32(f"recsys {name}".encode())
    if engine.dialect.name == "postgresql":
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})
            yield
        return
    words = {"key": f"recsys-{key:08x}", "patience": _PATIENCE}
    with engine.connect() as connection:
        _get_mysql_lock(connection, words)
        try:
            yield
        finally:
            connection.execute(text("SELECT RELEASE_LOCK(:key)"), words)


def _get_mysql_lock(connection: Connection, words: dict[str, Any]) -> None:
    from sqlalchemy import text

    if connection.execute(text("SELECT GET_LOCK(:key, :patience)"), words).scalar() != 1:
        raise ConfigError(
            f"storage: another driver has kept the database's lock for {_PATIENCE} s; end it."
        )


def _open_database(folder: Path, url: str) -> StudyStorage:
    from sqlalchemy import create_engine
    from sqlalchemy.exc import NoSuchModuleError, SQLAlchemyError

    parsed = _parse_url(url)
    kind, driver = parsed.get_backend_name(), parsed.get_driver_name()
    options: dict[str, Any] = {"pool_pre_ping": True}  # a trial lasts longer than a connection may
    if driver in _TIMED and "connect_timeout" not in parsed.query:
        options["connect_args"] = {"connect_timeout": 10}
    try:
        engine = create_engine(parsed, **options)
    except (ImportError, NoSuchModuleError):
        raise ConfigError(
            f"storage: {kind} needs a package that is missing; install it with "
            f"pip install '{_PACKAGES.get(driver, driver)}'."
        ) from None
    served = kind in _SERVERS
    shown = parsed.set(query={}).render_as_string(hide_password=True)
    try:
        # Two that make the tables at the same time would fail.
        with _lock_folder(folder, engine if served else None, "schema"):
            storage = _make_rdb_storage(parsed, options, served)
    except (SQLAlchemyError, StorageInternalError) as error:
        raise _make_storage_error(shown, parsed, error) from None
    except RuntimeError:  # by Optuna, and with a sentence that does not name the database
        raise ConfigError(
            f"storage: the tables in {shown} are of another version of Optuna; upgrade them with "
            "optuna storage upgrade, or name another database."
        ) from None
    finally:
        engine.dispose()
    return StudyStorage(folder, storage, shown, storage.engine if served else None)


def _parse_url(url: str) -> URL:
    """A URL with the driver that is meant.

    Raises:
        ConfigError: It is none, or that of a database which Optuna does not know.
    """
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # whose words have the password in them
        raise ConfigError(
            "storage is not the URL of a database; write it as "
            "postgresql://user:password@host/database."
        ) from None
    parsed = parsed.set(drivername=_DRIVERS.get(parsed.drivername, parsed.drivername))
    kind = parsed.get_backend_name()
    if kind not in (*_SERVERS, "sqlite"):
        raise ConfigError(
            f"storage: {kind} is not known; it is one of postgresql, mysql, mariadb and sqlite."
        )
    return parsed


def _make_rdb_storage(parsed: URL, options: dict[str, Any], served: bool) -> RDBStorage:
    """Optuna's storage, with signs of life where other machines look for them."""
    # Optuna takes the text for a template.
    text = parsed.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return RDBStorage(
            text,
            engine_kwargs=options,
            heartbeat_interval=BEAT if served else None,
            grace_period=STALE if served else None,
        )


def _make_storage_error(shown: str, parsed: URL, error: Exception) -> ConfigError:
    """What a database or its driver says, in a sentence without secrets."""
    from sqlalchemy.exc import DBAPIError

    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    words = str(cause.orig if isinstance(cause, DBAPIError) else cause).strip()
    reason = words.splitlines()[0].rstrip(".:") if words else "it does not answer"
    hidden = [str(value) for key, value in parsed.query.items() if "pass" in key]
    for secret in [parsed.password, *hidden]:
        reason = reason.replace(secret, "***") if secret else reason
    return ConfigError(f"storage: {shown} cannot be used ({reason}).")
