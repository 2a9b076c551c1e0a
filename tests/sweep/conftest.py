"""A PostgreSQL for the tests: a cluster of its own in a temporary folder."""

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def postgres():
    """The URL of an empty database, with a password that is no template; any would do."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not found:
        pytest.skip("PostgreSQL's server is not installed (Debian's package postgresql)")
    pytest.importorskip("psycopg", reason="psycopg[binary] is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Not among pytest's folders, which only their owner may enter; the server refuses to be root.
    folder, server = Path(tempfile.mkdtemp(prefix="recsys-postgresql-")), found[-1]
    user = {"user": "postgres", "group": "postgres", "extra_groups": []} if not os.getuid() else {}
    if user:
        shutil.chown(folder, "postgres")

    def run(program, *words):
        log = folder.with_suffix(".out")
        with log.open("ab") as out:  # the server keeps the output open, so no pipe
            done = subprocess.run(
                [server / program, *words], stdout=out, stderr=out, cwd="/", **user
            )
        assert done.returncode == 0, log.read_text()

    settings = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
    settings += " -c fsync=off -c full_page_writes=off"
    data = folder / "data"
    try:
        run("initdb", "-D", data, "-A", "trust", "-U", "recsys", "--no-sync", "-E", "UTF8")
        run("pg_ctl", "-D", data, "-w", "-s", "-o", settings, "-l", folder / "log", "start")
        run("createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "recsys", "optuna")
        yield f"postgresql://recsys:se{{cret}}%25@127.0.0.1:{port}/optuna"
    finally:
        if (data / "postmaster.pid").exists():
            run("pg_ctl", "-D", data, "-m", "immediate", "-s", "stop")
        shutil.rmtree(folder)
        folder.with_suffix(".out").unlink(missing_ok=True)
