"""The whole program, run without Pulumi's engine, with everything that it asks for recorded.

For tests, prices and pictures of a stack. It shows what the program asks for; what AWS makes of it,
an emulator or AWS shows.
"""

import asyncio
import hashlib
import json
import runpy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import pulumi
from pulumi.runtime import mocks, rpc, run_in_stack, set_all_config, settings

from infra.settings import Settings
from trainyard.contract.naming import OUTPUTS, READY, RELEASE
from trainyard.contract.stack_config import as_texts, declared
from trainyard.paths import PROGRAM

ACCOUNT, REGION = "123456789012", "eu-central-1"
SIGNATURE = "4dabf18193072939515e22adb298388d"  # the key that marks a value of Pulumi's own kind

# Resources whose ARN is not `arn:aws:<service>:<region>:<account>:<name>`.
ARNS = {
    "aws:iam/role:Role": "arn:aws:iam::{account}:role/{name}",
    "aws:iam/policy:Policy": "arn:aws:iam::{account}:policy/{name}",
    "aws:iam/openIdConnectProvider:OpenIdConnectProvider": (
        "arn:aws:iam::{account}:oidc-provider/token.actions.githubusercontent.com"
    ),
    "aws:s3/bucket:Bucket": "arn:aws:s3:::{name}",
    "aws:ecs/cluster:Cluster": "arn:aws:ecs:{region}:{account}:cluster/{name}",
    "aws:ecs/taskDefinition:TaskDefinition": (
        "arn:aws:ecs:{region}:{account}:task-definition/{name}:1"
    ),
    "aws:cloudwatch/logGroup:LogGroup": "arn:aws:logs:{region}:{account}:log-group:{name}",
    "aws:cloudwatch/eventRule:EventRule": "arn:aws:events:{region}:{account}:rule/{name}",
    "aws:secretsmanager/secret:Secret": "arn:aws:secretsmanager:{region}:{account}:secret:{name}",
    "aws:kms/key:Key": "arn:aws:kms:{region}:{account}:key/{name}",
}


@dataclass(frozen=True)
class Resource:
    """One resource as the program asked for it."""

    type: str
    name: str
    inputs: Mapping[str, Any]
    parent: str
    """The parent's type and name; names alone needn't differ."""
    protect: bool
    ignored: tuple[str, ...]
    aliases: tuple[str, ...]
    """Types that it had before; what is in it has moved with it."""
    dependencies: tuple[str, ...]
    custom: bool
    provider: str
    id: str
    outputs: Mapping[str, Any]
    """What other resources may have read of it."""

    @property
    def plain(self) -> dict[str, Any]:
        """The inputs with secrets opened."""
        opened: dict[str, Any] = bare(self.inputs)
        return opened

    def document(self, key: str) -> dict[str, Any]:
        """An input that is a JSON document."""
        loaded: dict[str, Any] = json.loads(self.plain[key])
        return loaded


@dataclass
class Recording:
    """What a run of the program left."""

    resources: list[Resource] = field(default_factory=list)
    exports: dict[str, Any] = field(default_factory=dict)

    def of(self, kind: str) -> list[Resource]:
        """Resources by the end of their type: `s3/bucket:Bucket`, or just `Bucket`."""
        return [
            r for r in self.resources if r.type == kind or r.type.endswith((f"/{kind}", f":{kind}"))
        ]

    def one(self, kind: str, name: str) -> Resource:
        """The resource of a type whose name ends so."""
        (found,) = [r for r in self.of(kind) if r.name.endswith(name)]
        return found

    def component(self, resource: Resource) -> str:
        """The kind of the outermost component that a resource belongs to; empty without one."""
        components = {f"{r.type} {r.name}": r for r in self.resources if not r.custom}
        outermost = ""
        while resource.parent in components:
            resource = components[resource.parent]
            outermost = resource.type.rsplit(":", 1)[-1]
        return outermost

    def containers(self) -> Iterator[tuple[Resource, dict[str, Any]]]:
        """Every container of every task definition."""
        for definition in self.of("TaskDefinition"):
            for container in json.loads(definition.plain["containerDefinitions"]):
                yield definition, container

    def policies(self) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        """Every policy document: whose it is, and its statements."""
        for resource in self.resources:
            for key in ("policy", "assumeRolePolicy"):
                value = resource.plain.get(key)
                if isinstance(value, str) and "Statement" in value:
                    where = f"{resource.type.rsplit(':', 1)[1]} {resource.name}"
                    yield where, json.loads(value)["Statement"]


def bare(value: Any) -> Any:
    """A value with the marks of its secrets taken off."""
    if isinstance(value, Mapping):
        if SIGNATURE in value:
            return bare(value.get("value"))
        return {k: bare(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [bare(v) for v in value]
    return value


def is_secret(value: Any) -> bool:
    """Whether Pulumi keeps a value encrypted."""
    return isinstance(value, Mapping) and SIGNATURE in value


def type_and_name(urn: str) -> str:
    """What tells two resources of a stack apart."""
    return " ".join(urn.split("$")[-1].split("::")[-2:])


class Cloud(mocks.Mocks):
    """Answers as AWS would; in a preview it knows only what the program said."""

    def __init__(self, *, preview: bool, noted: str, released: str):
        self.preview, self.passwords = preview, 0
        parameters = {OUTPUTS: "{}", READY: noted, RELEASE: released}
        self.noted = {name: value for name, value in parameters.items() if value} if noted else {}

    def call(self, args: mocks.MockCallArgs) -> Any:
        """What a lookup finds."""
        called = args.token.rsplit(":", 1)[1]
        if called == "getParametersByPath":
            path = args.args["path"]
            names = [f"{path}/{name}" for name in self.noted]
            return {"names": names, "values": list(self.noted.values()), "path": path}
        if called == "getRandomPassword":
            self.passwords += 1  # another one each time, as AWS gives
            made = hashlib.sha256(str(self.passwords).encode()).hexdigest()[:40]
            return {"randomPassword": made}
        return {
            "getPartition": {"partition": "aws"},
            "getPolicy": {"arn": args.args.get("arn")},
            "getCallerIdentity": {"accountId": ACCOUNT},
            "getAvailabilityZones": {"names": [f"{REGION}{zone}" for zone in "cab"]},
        }[called]

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        """A resource's id and what is known of it once it exists."""
        state = dict(args.inputs)
        if not args.custom or self.preview:
            return ("" if self.preview else f"{args.name}-id"), state
        name = str(bare(state.get("name")) or f"{args.name}-0123456")
        service = args.typ.split(":")[1].split("/")[0]
        default = "arn:aws:{service}:{region}:{account}:{name}"
        state.setdefault("name", name)
        state["arn"] = ARNS.get(args.typ, default).format(
            service=service, region=REGION, account=ACCOUNT, name=name
        )
        state.setdefault("bucket", name)
        state["keyId"] = f"{name}-key-id"
        state["address"] = f"{name}.example.internal"
        state.setdefault("identifier", name)
        state["dnsName"] = f"{name}.elb.example"
        state["url"] = f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/{name}"
        state["versionId"] = f"{args.name}-version-id"
        state["repositoryUrl"] = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/{name}"
        return f"{args.name}-id", state


class Recorder(mocks.MockMonitor):
    """Notes what the mocks aren't told: parents, protection, dependencies, exports."""

    def __init__(self, cloud: Cloud, recording: Recording):
        super().__init__(cloud)
        self.recording = recording

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802
        """Note a resource."""
        answer = super().RegisterResource(request)  # type: ignore[no-untyped-call]
        if request.type != "pulumi:pulumi:Stack":
            self.recording.resources.append(
                Resource(
                    type=request.type,
                    name=request.name,
                    inputs=rpc.deserialize_properties(request.object),
                    parent=type_and_name(request.parent),
                    protect=request.protect,
                    ignored=tuple(request.ignoreChanges),
                    aliases=tuple(alias.spec.type for alias in request.aliases),
                    dependencies=tuple(type_and_name(d) for d in request.dependencies),
                    custom=request.custom,
                    provider=request.provider,
                    id=answer.id,
                    outputs=rpc.deserialize_properties(answer.object),
                )
            )
        return answer

    def RegisterResourceOutputs(self, request: Any) -> Any:  # noqa: N802
        """Note what the stack exports."""
        if "pulumi:pulumi:Stack" in request.urn.split("::")[2].split("$")[-1]:
            self.recording.exports = rpc.deserialize_properties(request.outputs)
        return super().RegisterResourceOutputs(request)  # type: ignore[no-untyped-call]


def program() -> None:
    """What Pulumi runs."""
    runpy.run_path(str(PROGRAM / "__main__.py"), run_name="__main__")


def run(
    stack: str = "dev",
    *,
    preview: bool = False,
    noted: str = "",
    released: str = "",
    region: str = REGION,
    **config: Any,
) -> Recording:
    """Run the program for a stack with these settings; `noted` is what `make up` wrote down,
    `released` what `make release` did.
    """
    # As Pulumi does: every declared setting arrives, as text.
    values = {f"trainyard:{k}": v["default"] for k, v in declared(Settings).items()}
    values |= {"aws:region": region} | {f"trainyard:{k}": v for k, v in config.items()}

    recording = Recording()
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        cloud = Cloud(preview=preview, noted=noted, released=released)
        mocks.set_mocks(
            cloud, "trainyard", stack, preview=preview, monitor=Recorder(cloud, recording)
        )
        settings.SETTINGS.outputs.clear()  # what an earlier program left belongs to a closed loop
        settings.set_root_resource(cast(pulumi.Resource, None))  # run_in_stack makes its own
        set_all_config(as_texts(values))
        loop.run_until_complete(run_in_stack(program))
    finally:
        loop.close()
        settings.set_root_resource(cast(pulumi.Resource, None))
    return recording
