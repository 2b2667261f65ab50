"""trainyard/prefect/migrate.py: what it does to the databases beside their schemas."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from trainyard.prefect import migrate

pytestmark = pytest.mark.server  # its database takes seconds to make


def test_mlflows_administrator_gets_the_password_that_the_stack_has_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # A part of MLflow's pages that its image has and this environment doesn't.
    forms: Any = ModuleType("flask_wtf.csrf")
    forms.CSRFProtect = object
    monkeypatch.setitem(sys.modules, "flask_wtf", ModuleType("flask_wtf"))
    monkeypatch.setitem(sys.modules, "flask_wtf.csrf", forms)
    from mlflow.server.auth import sqlalchemy_store as auth

    monkeypatch.setattr(migrate, "AUTH_URL", f"sqlite:///{tmp_path}/auth.db")
    monkeypatch.setenv("MLFLOW_AUTH_ADMIN_PASSWORD", "the new password of 2026")
    migrate.keep_admin_password()  # there is none yet: MLflow makes it at its first start
    assert capsys.readouterr().out == ""

    store = auth.SqlAlchemyStore()
    store.init_db(migrate.AUTH_URL)
    store.create_user("admin", "the password of before", is_admin=True)
    migrate.keep_admin_password()
    assert store.authenticate_user("admin", "the new password of 2026")
    assert store.get_user("admin").is_admin
    said = capsys.readouterr().out
    assert "has a new password" in said
    assert "2026" not in said
    migrate.keep_admin_password()
    assert capsys.readouterr().out == ""
