"""GeneratedSecret: a password that only Secrets Manager and the services that use it know.

It is made once a version. Its later values at every run of the program are ignored, so nothing
changes by itself;
counting the version up makes a new password, and whoever names this version of the secret is
deployed anew with it.
That is how rotation can't break a running service: the password and its users change in one `make
up`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws
from pulumi import Input, Output, ResourceOptions


@dataclass(frozen=True)
class GeneratedSecretArgs:
    """Arguments of GeneratedSecret."""

    description: str
    fields: Mapping[str, str]
    """What the secret says beside its password, such as a user name."""
    version: int
    durable: bool
    derived: Mapping[str, str] | None = None
    """Fields made of the others: `{"auth": "{username}:{password}"}`."""


@dataclass(frozen=True)
class SecretField:
    """One field of one version of a secret, as an ECS container reads it."""

    arn: Input[str]
    field: str = ""
    version: Input[str] = ""

    @property
    def value_from(self) -> Output[str]:
        """ECS's name for it: ARN, field, stage (none), version."""
        if not self.field:
            return Output.from_input(self.arn)
        return Output.format("{0}:{1}::{2}", self.arn, self.field, self.version)


class GeneratedSecret(pulumi.ComponentResource):
    """Create a secret in Secrets Manager with a generated password, once per version.

    Inputs: `version`, incremented to rotate; `fields` beside the password, and `derived` ones made
    of these; `durable` keeps a deleted secret for 30 days.
    Outputs: `arn`, `password`; `field` names a field for a container.
    Idle cost: 0.40 $ a month.
    """

    arn: Output[str]
    password: Output[str]

    def __init__(self, name: str, args: GeneratedSecretArgs, opts: ResourceOptions | None = None):
        super().__init__("trainyard:secrets:GeneratedSecret", name, None, opts)
        secret = aws.secretsmanager.Secret(
            f"{name}-secret",
            description=args.description,
            # A deleted secret can be brought back for as long; its name is made unique, so it
            # blocks nothing.
            recovery_window_in_days=30 if args.durable else 0,
            opts=ResourceOptions(parent=self),
        )

        def content(password: str) -> str:
            fields = {**args.fields, "password": password}
            derived = {k: v.format(**fields) for k, v in (args.derived or {}).items()}
            return json.dumps({**fields, **derived})

        # No punctuation: the password must survive URLs, shells and connection strings.
        password = aws.secretsmanager.get_random_password_output(
            password_length=40,
            exclude_punctuation=True,
            opts=pulumi.InvokeOutputOptions(parent=self),
        ).random_password
        generated: Output[str] = Output.secret(password.apply(content))
        self._stored = aws.secretsmanager.SecretVersion(
            f"{name}-v{args.version}",
            secret_id=secret.id,
            secret_string=generated,
            opts=ResourceOptions(parent=self, ignore_changes=["secretString"]),
        )
        self.arn = secret.arn
        # From what was stored, not from what was generated just now.
        stored = self._stored.secret_string.apply(lambda text: text or "{}")
        self.password = pulumi.Output.secret(
            stored.apply(lambda text: str(json.loads(text)["password"]))
        )
        self.register_outputs({"arn": self.arn})

    def field(self, name: str) -> SecretField:
        """A field for a container, of this version and no other."""
        return SecretField(self.arn, name, self._stored.version_id)
