"""Makes a server's databases and brings their schemas to what its image wants: a one-off task.

`python -m trainyard.prefect.migrate mlflow` in MLflow's image, `... prefect` and `... flows` in the
worker's. Safe to repeat. Addresses and passwords come from libpq's own variables (PGHOST,
PGPASSWORD, ...).
"""

import argparse
import asyncio
import hmac
import os
import subprocess
import sys
from base64 import b64encode
from hashlib import pbkdf2_hmac, sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncpg import Connection

DATABASES = {"mlflow": ("mlflow", "mlflow_auth"), "prefect": ("prefect",), "flows": ("flows",)}
AUTH_URL = "postgresql+psycopg:///mlflow_auth"
UPGRADES = {
    "mlflow": (
        ("mlflow", "db", "upgrade", "postgresql+psycopg:///mlflow"),
        ("mlflow.server.auth", "db", "upgrade", "--url", AUTH_URL),
    ),
    "prefect": (("prefect", "server", "database", "upgrade", "--yes"),),
    "flows": (),  # a flow makes its own tables
}
FLOWS_USER = "flows"


async def create_databases(server: str) -> None:
    """Make a server's databases, where they aren't there; nobody else gets into them."""
    import asyncpg  # of Prefect; MLflow's image has it for this

    # The one that RDS made; a CREATE DATABASE needs some database to be said in.
    first = os.environ.get("PGDATABASE", "mlflow")
    connection = await asyncpg.connect(database=first)
    try:
        owner = ""
        if server == "flows":
            await keep_user(connection, os.environ["FLOWS_PASSWORD"])
            owner = f'OWNER "{FLOWS_USER}"'
        for name in DATABASES[server]:
            found = await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", name)
            if not found:
                # A name of ours, not of a user's: it can't be a parameter of this statement.
                await connection.execute(f'CREATE DATABASE "{name}" {owner}')
                sys.stdout.write(f"made the database {name}\n")
        for name in {*DATABASES[server], first}:
            await connection.execute(f'REVOKE CONNECT ON DATABASE "{name}" FROM PUBLIC')
    finally:
        await connection.close()


async def keep_user(connection: "Connection", password: str) -> None:
    """Make the flows' user, where there is none; give it the password that the stack has now."""
    if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", FLOWS_USER):
        await connection.execute(f'CREATE ROLE "{FLOWS_USER}"')
        sys.stdout.write(f"made the user {FLOWS_USER}\n")
    # RDS's administrator is no superuser: only who is in a role may give it a database.
    await connection.execute(f'GRANT "{FLOWS_USER}" TO CURRENT_USER')
    await connection.execute(
        f"ALTER ROLE \"{FLOWS_USER}\" LOGIN PASSWORD '{verifier(password, os.urandom(16))}'"
    )


def verifier(password: str, salt: bytes) -> str:
    """What PostgreSQL keeps of a password (RFC 5803): the password itself could end in its log."""
    rounds = 4096  # PostgreSQL's own
    key = pbkdf2_hmac("sha256", password.encode(), salt, rounds)
    stored = sha256(hmac.digest(key, b"Client Key", "sha256")).digest()
    server = hmac.digest(key, b"Server Key", "sha256")
    kept, first, second = (b64encode(part).decode() for part in (salt, stored, server))
    return f"SCRAM-SHA-256${rounds}:{kept}${first}:{second}"


def keep_admin_password() -> None:
    """Give MLflow's administrator, where there is one, the password that the stack has now.

    MLflow reads it at its first start only: a new one, or a database from before it, needs this.
    """
    from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore()
    store.init_db(AUTH_URL)  # type: ignore[no-untyped-call]
    name, password = "admin", os.environ["MLFLOW_AUTH_ADMIN_PASSWORD"]
    if store.has_user(name) and not store.authenticate_user(name, password):
        store.update_user(name, password=password)
        sys.stdout.write("MLflow's administrator has a new password\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("server", choices=sorted(DATABASES))
    server = parser.parse_args().server
    asyncio.run(create_databases(server))
    for command in UPGRADES[server]:
        subprocess.run([sys.executable, "-m", *command], check=True)  # noqa: S603
    if server == "mlflow":
        keep_admin_password()


if __name__ == "__main__":
    main()
