"""How Prefect's API is reached: its address, and the secret that opens it."""

from dataclasses import dataclass

from pulumi import Input

from infra.components.secret import SecretField

API_KEY, AUTH_STRING = "PREFECT_API_KEY", "PREFECT_API_AUTH_STRING"


@dataclass(frozen=True)
class PrefectApi:
    """Prefect Cloud, or the stack's own server."""

    url: Input[str]
    secret: SecretField
    secret_variable: str
    """The variable that Prefect's client reads: the key of Prefect Cloud, or a server's
    `user:password`.
    """
