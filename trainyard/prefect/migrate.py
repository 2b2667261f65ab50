"""Makes a server's databases and brings their schemas to what its image wants: a one-off task.

`python -m trainyard.prefect.migrate mlflow` in MLflow's image, `... prefect` in the worker's. Safe
to repeat. Addresses and passwords come from libpq's own variables (PGHOST, PGPASSWORD, ...).
"""

import argparse
import asyncio
import os
import subprocess
import sys

DATABASES = {"mlflow": ("mlflow", "mlflow_auth"), "prefect": ("prefect",)}
AUTH_URL = "postgresql+psycopg:///mlflow_auth"
UPGRADES = {
    "mlflow": (
        ("mlflow", "db", "upgrade", "postgresql+psycopg:///mlflow"),
        ("mlflow.server.auth", "db", "upgrade", "--url", AUTH_URL),
    ),
    "prefect": (("prefect", "server", "database", "upgrade", "--yes"),),
}


async def create_databases(names: tuple[str, ...]) -> None:
    import asyncpg  # of Prefect; MLflow's image has it for this

    # The one that RDS made; a CREATE DATABASE needs some database to be said in.
    connection = await asyncpg.connect(database=os.environ.get("PGDATABASE", "mlflow"))
    try:
        for name in names:
            found = await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", name)
            if not found:
                # A name of ours, not of a user's: it can't be a parameter of this statement.
                await connection.execute(f'CREATE DATABASE "{name}"')
                sys.stdout.write(f"made the database {name}\n")
    finally:
        await connection.close()


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
    asyncio.run(create_databases(DATABASES[server]))
    for command in UPGRADES[server]:
        subprocess.run([sys.executable, "-m", *command], check=True)  # noqa: S603
    if server == "mlflow":
        keep_admin_password()


if __name__ == "__main__":
    main()
