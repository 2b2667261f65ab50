"""What a stack costs a month while nothing trains: `make cost`, by profile and component, or with
STACK= of that stack as its settings have it.

Prices are a dated file (prices.json). Every type of resource is either priced here or listed as
free or paid by use; one that is neither makes `idle_cost` fail, so a new resource can't be
forgotten.
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pulumi import RunError

from infra.estimate import recorder
from infra.estimate.recorder import Recording, Resource
from trainyard.contract.fargate_sizes import FREE_DISK, LEAST_DISK, RUN, Size
from trainyard.contract.profiles import PROFILES
from trainyard.contract.readiness import A_DATABASE, Servers, note
from trainyard.contract.stack_config import SettingsError, config_of
from trainyard.paths import REPO

PRICES: Mapping[str, Any] = json.loads((Path(__file__).parent / "prices.json").read_text())
HOURS: int = PRICES["hours_a_month"]

# Nothing to pay for these by themselves.
FREE = {
    "appautoscaling/policy",
    "appautoscaling/target",  # the tasks that it adds are by use
    "budgets/budget",  # those that only tell
    "cloudwatch/eventRule",
    "cloudwatch/eventTarget",
    "ec2/defaultSecurityGroup",
    "ec2/eip",  # priced with the NAT gateway that holds it
    "ec2/internetGateway",
    "ec2/route",
    "ec2/routeTable",
    "ec2/routeTableAssociation",
    "ec2/securityGroup",
    "ec2/subnet",
    "ec2/vpc",
    "ecr/lifecyclePolicy",
    "ecs/clusterCapacityProviders",
    "ecs/taskDefinition",
    "iam/openIdConnectProvider",
    "iam/policy",
    "iam/role",
    "iam/rolePolicy",
    "iam/rolePolicyAttachment",
    "kms/alias",
    "lb/listener",
    "lb/listenerRule",
    "lb/targetGroup",
    "rds/parameterGroup",
    "rds/subnetGroup",
    "s3/bucketLifecycleConfiguration",
    "s3/bucketLogging",
    "s3/bucketOwnershipControls",
    "s3/bucketPolicy",
    "s3/bucketPublicAccessBlock",
    "s3/bucketServerSideEncryptionConfiguration",
    "s3/bucketVersioning",
    "secretsmanager/secretVersion",
    "servicediscovery/service",
    "sns/topicPolicy",
    "sns/topicSubscription",
    "sqs/queuePolicy",
    "ssm/parameter",  # standard ones
    "vpc/securityGroupEgressRule",
    "vpc/securityGroupIngressRule",
}
# Paid by what goes through or stays in them; an idle stack's is cents.
BY_USE = {
    "cloudwatch/logGroup": "0.50 $ a GB taken in",
    "cloudwatch/logMetricFilter": "0.30 $ a metric and month, by the hours in which it counted",
    "ec2/flowLog": "0.50 $ a GB taken in",
    "ecr/repository": "0.10 $ a GB and month",
    "s3/bucket": "0.023 $ a GB and month",
    "sns/topic": "1000 e-mails a month are free",
    "sqs/queue": "a million requests a month are free",
}


@dataclass(frozen=True)
class Item:
    """One line of the bill."""

    component: str
    what: str
    usd: float


def kind(resource: Resource) -> str:
    """`ecs/service`, for example."""
    return resource.type.removeprefix("aws:").split(":")[0]


def _service(service: Resource, stack: Recording) -> float:
    have = service.plain
    definitions = {f"{d.name}-0123456": d.plain for d in stack.of("TaskDefinition")}
    name = have["taskDefinition"].rsplit("/", 1)[1].split(":")[0]
    task = definitions[name]
    hour = task_hour(
        Size(int(task["cpu"]), int(task["memory"])),
        architecture=task["runtimePlatform"]["cpuArchitecture"],
        spot=have["capacityProviderStrategies"][0]["capacityProvider"] == "FARGATE_SPOT",
    )
    if have["networkConfiguration"]["assignPublicIp"]:
        hour += PRICES["public_ipv4_hour"]
    return hour * HOURS * int(have["desiredCount"])


def task_hour(
    size: Size, *, spot: bool, disk: int = FREE_DISK, architecture: str = "X86_64"
) -> float:
    """Dollars an hour of a task on Fargate; `disk` in GiB."""
    price = PRICES["fargate"][architecture]
    usd = size.cpu / 1024 * price["vcpu_hour"] + size.memory / 1024 * price["gb_hour"]
    usd *= PRICES["fargate_spot_share"] if spot else 1
    return float(usd + (disk - FREE_DISK) * price["disk_gb_hour"])


def _database(database: Resource, stack: Recording) -> float:
    have = database.plain
    month = PRICES["rds_hour"][have["instanceClass"]] * HOURS
    month += have["allocatedStorage"] * PRICES["rds_gp3_gb_month"]
    return float(month * (2 if have["multiAz"] else 1))


def _endpoint(endpoint: Resource, stack: Recording) -> float:
    if endpoint.plain["vpcEndpointType"] == "Gateway":
        return 0.0
    zones = len(endpoint.plain["subnetIds"])
    return float(PRICES["interface_endpoint_zone_hour"] * HOURS * zones)


def _cluster(cluster: Resource, stack: Recording) -> float:
    if cluster.plain["settings"][0]["value"] == "disabled":
        return 0.0
    return float(PRICES["container_insights_service_month"] * len(stack.of("ecs/service:Service")))


PRICED: Mapping[str, Callable[[Resource, Recording], float]] = {
    "cloudwatch/dashboard": lambda r, s: PRICES["dashboard_month"],
    "cloudwatch/metricAlarm": lambda r, s: PRICES["alarm_month"],
    "ec2/natGateway": lambda r, s: (
        (PRICES["nat_gateway_hour"] + PRICES["public_ipv4_hour"]) * HOURS
    ),
    "ec2/vpcEndpoint": _endpoint,
    "ecs/cluster": _cluster,
    "ecs/service": _service,
    "lb/loadBalancer": lambda r, s: PRICES["load_balancer_hour"] * HOURS,
    "kms/key": lambda r, s: PRICES["kms_key_month"],
    "rds/instance": _database,
    "secretsmanager/secret": lambda r, s: PRICES["secret_month"],
    "servicediscovery/privateDnsNamespace": lambda r, s: PRICES["private_dns_zone_month"],
}


def idle_cost(stack: Recording) -> list[Item]:
    """What a stack costs a month by only being there.

    Raises:
        LookupError: a type of resource has no price and isn't known to be free.
    """
    items = []
    for resource in stack.resources:
        if not resource.custom or resource.type.startswith("pulumi:"):
            continue
        name = kind(resource)
        if name in PRICED:
            usd = PRICED[name](resource, stack)
            if usd:
                component = stack.component(resource) or "the stack"
                items.append(Item(component, name, usd))
        elif name not in FREE and name not in BY_USE:
            raise LookupError(
                f"{name} has no price: add it to PRICED, FREE or BY_USE in {__name__}"
            )
    return items


IMAGE = f"sha256:{'0' * 64}"
KEY_ARN = "arn:aws:secretsmanager:us-east-1:123456789012:secret:trainyard-key-AbCdEf"
CERTIFICATE = "arn:aws:acm:us-east-1:123456789012:certificate/0a-b"
CLOUD: dict[str, Any] = {
    "prefect": "cloud",
    "prefectApiUrl": "https://api.prefect.cloud/api/accounts/a/workspaces/w",
    "prefectApiKeySecretArn": KEY_ARN,
}


def running(stack: str = "dev", **config: Any) -> Recording:
    """A stack with these settings and everything on."""
    servers = Servers(
        mlflow="" if config.get("trackingUri") else IMAGE,
        prefect="" if config.get("prefect") == "cloud" else IMAGE,
        flows=A_DATABASE if config.get("flowsDatabase") else "",
    )
    images: dict[str, Any] = {"flowImage": IMAGE, "workerImage": IMAGE, "mlflowImage": IMAGE}
    given = {**config, **images}
    return recorder.run(stack, noted=note(servers), region=PRICES["region"], **given)


def by_component(stack: Recording) -> dict[str, float]:
    """Dollars a month; the largest first."""
    costs: dict[str, float] = defaultdict(float)
    for item in idle_cost(stack):
        costs[item.component] += item.usd
    return dict(sorted(costs.items(), key=lambda cost: -cost[1]))


def table() -> str:
    """Dollars a month, by component, for each profile and who runs Prefect."""
    columns = [(profile, prefect) for profile in PROFILES for prefect in ("cloud", "self-hosted")]
    costs: dict[str, dict[tuple[str, str], float]] = defaultdict(dict)
    for profile, prefect in columns:
        api = CLOUD if prefect == "cloud" else {}
        for component, usd in by_component(running(profile=profile, **api)).items():
            costs[component][profile, prefect] = usd
    titles = [f"{profile}, {prefect}" for profile, prefect in columns]
    lines = [f"| $ a month | {' | '.join(titles)} |", "|---" * (len(columns) + 1) + "|"]
    order = sorted(costs, key=lambda name: -max(costs[name].values()))
    for name in order:
        cells = [f"{costs[name][c]:.2f}" if c in costs[name] else "" for c in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    totals = [f"**{sum(row.get(c, 0.0) for row in costs.values()):.2f}**" for c in columns]
    lines.append(f"| **idle** | {' | '.join(totals)} |")
    lines.append("")
    lines.append(f"{PRICES['region']}, {PRICES['as_of']}: {PRICES['source']}.")
    lines.append("Flow runs, images, artifacts and logs come on top, by use.")
    lines.append(run_costs(yaml.safe_load((REPO / "prefect.yaml").read_text())))
    lines.append(serving_costs(costs))
    return "\n".join(lines) + "\n"


def run_costs(prefect_yaml: Mapping[str, Any]) -> str:
    """What an hour of a run costs by the sizes that prefect.yaml defines, as a sentence."""
    prices = []
    for name, definition in prefect_yaml["definitions"].items():
        if not isinstance(definition, dict) or "job_variables" not in definition:
            continue
        given = definition["job_variables"]
        size = Size(given.get("cpu", RUN.cpu), given.get("memory", RUN.memory))
        disk = given.get("disk", LEAST_DISK)
        spot = task_hour(size, spot=True, disk=disk)
        usual = task_hour(size, spot=False, disk=disk)
        always = given.get("launch_type") == "FARGATE_SPOT"
        prices.append(f"`*{name}` {spot:.3f} $" + ("" if always else f" on Spot, else {usual:.3f}"))
    return (
        f"An hour of a run costs, by prefect.yaml's sizes: {'; '.join(prices)}. A GiB of disk above"
        f" {FREE_DISK} (`disk:`) costs {PRICES['fargate']['X86_64']['disk_gb_hour']} $."
    )


def serving_costs(without: Mapping[str, Mapping[tuple[str, str], float]]) -> str:
    """What served models add, as a sentence: the difference to a stack without any."""
    https = {"serveDomain": "models.example", "serveCertificateArn": CERTIFICATE}
    adds = []
    for profile in PROFILES:
        idle = sum(row.get((profile, "self-hosted"), 0.0) for row in without.values())
        one = sum(by_component(running(profile=profile, serve=["a"])).values())
        adds.append(f"{one - idle:.2f} $ ({profile})")
    balanced = sum(by_component(running(profile=profile, serve=["a"], **https)).values())
    return (
        f"A served model (`serve`) adds {', '.join(adds)}; the load balancer of all of them "
        f"(`serveDomain`) {balanced - one:.2f} $ and what goes through it."
    )


def cost_of(stack: str) -> dict[str, float]:
    """Dollars a month of a stack as its file has it."""
    config = config_of(stack)
    config.pop("aws:region", None)  # prices are of one region
    given = {k.removeprefix("trainyard:"): v for k, v in config.items()}
    return by_component(running(stack, **given))


def main() -> None:
    """Print the table, or one stack's."""
    parser = argparse.ArgumentParser(prog="make cost", description=__doc__)
    parser.add_argument("stack", nargs="?", help="an environment, such as dev")
    parser.add_argument("--json", action="store_true", help="component -> dollars of that stack")
    given = parser.parse_args()
    if not given.stack:
        sys.stdout.write(table())
        return
    try:
        costs = cost_of(given.stack)
    except (FileNotFoundError, SettingsError, RunError) as error:
        sys.exit(f"{error}")
    if given.json:
        print(json.dumps(costs))
        return
    for component, usd in [*costs.items(), ("idle", sum(costs.values()))]:
        print(f"{component:<20}{usd:>10.2f} $ a month")


if __name__ == "__main__":
    main()
