"""`prefect deploy --all` as users type it, after a strict look at prefect.yaml: after it
Prefect holds what that file says, and nothing else.

`python -m trainyard.prefect.deploy`, in the repository's folder, with the variables of
`deploy_environment` (trainyard/contract/outputs.py). Look and deployment both import every flow,
which takes most of their time: so one process does all.
"""

import os
import runpy
import sys
from collections.abc import Collection, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from trainyard.contract.outputs import DEPLOY_VARIABLES

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.orchestration import PrefectClient
    from prefect.events.schemas.automations import AutomationCore

# The exit code where prefect.yaml has problems, and nothing was deployed.
PROBLEMS = 3


def main() -> None:
    # Only now: it imports Prefect, which whoever starts this needn't wait for.
    from trainyard.prefect.lint import problems

    path, environment = Path("prefect.yaml"), {name: os.environ[name] for name in DEPLOY_VARIABLES}
    if found := problems(path, environment):
        print("\n".join(f"  {problem}" for problem in found))
        sys.exit(PROBLEMS)
    wanted = declared(path)
    sys.argv = ["prefect", "--no-prompt", "deploy", "--all"]
    try:
        with _replace_whole(), _keep_triggers():
            runpy.run_module("prefect", run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        if ended.code:  # the rest of the file wasn't deployed, so nothing is known to be gone
            raise
    pool = environment["TRAINYARD_WORK_POOL"]
    order_queues(pool, queues_of(path))
    for name in prune(pool, wanted):
        print(f"Deployment '{name}' removed: prefect.yaml has it no longer")


def declared(path: Path) -> set[str]:
    """The deployments of a file without problems, as Prefect names them: `flow/name`."""
    import yaml
    from prefect.utilities.templating import apply_values

    from trainyard.prefect.lint import load_flow

    # os.environ fills it in
    listed: Any = apply_values(yaml.safe_load(path.read_text())["deployments"], {})
    return {f"{load_flow(each['entrypoint']).name}/{each['name']}" for each in listed}


def _replace_whole() -> AbstractContextManager[Any]:
    """Make `prefect deploy` replace deployments as wholes; their ids stay.

    Where it finds a deployment it changes only what the file names: schedules, limits and others
    that the file has no longer would stay. One that it doesn't find is posted whole, and the
    server replaces what it has by that name.
    """
    from prefect.client.orchestration import PrefectClient
    from prefect.exceptions import ObjectNotFound

    absent = ObjectNotFound(LookupError("replaced whole"))
    return patch.object(PrefectClient, "read_deployment_by_name", side_effect=absent)


@contextmanager
def _keep_triggers() -> Iterator[None]:
    """Make `prefect deploy` leave a deployment's triggers alone where the file still has the same.

    It would remove their automations, twice, and make new ones, which don't know what has started
    a run already. So it does where one trigger differs, or somebody's own automation runs the
    deployment: Prefect doesn't tell whose an automation is.
    """
    from prefect.cli.deploy import _core, _triggers
    from prefect.deployments.runner import RunnerDeployment

    recreate = _triggers._create_deployment_triggers

    def said(automations: "Iterable[AutomationCore]") -> list[dict[str, Any]]:
        dumps = [each.model_dump(exclude={"id", "owner_resource"}) for each in automations]
        return sorted(dumps, key=lambda each: str(each["name"]))

    async def where_changed(client: "PrefectClient", deployment: "UUID", triggers: Any) -> None:
        for trigger in triggers:
            trigger.set_deployment_id(deployment)
        owner = f"prefect.deployment.{deployment}"
        there = await client.read_resource_related_automations(owner)
        if said(there) != said(trigger.as_automation() for trigger in triggers):
            await recreate(client, deployment, triggers)

    with (
        patch.object(RunnerDeployment, "_create_triggers"),  # the first time, without any
        patch.object(_core, "_create_deployment_triggers", where_changed),
    ):
        yield


def queues_of(path: Path) -> list[str]:
    """The work queues of a file, those whose runs start first in front."""
    import yaml

    definitions = yaml.safe_load(path.read_text()).get("definitions") or {}
    return list(definitions.get("work_queues") or [])


def order_queues(work_pool: str, names: list[str]) -> None:
    """Give a pool's queues their priorities, and make those that aren't there."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        there = {each.name: each for each in client.read_work_queues(work_pool_name=work_pool)}
        # Prefect lets no two have the same: it moves the others.
        for priority, name in enumerate(names, start=1):
            if name not in there:
                client.create_work_queue(name, work_pool_name=work_pool, priority=priority)
            elif there[name].priority != priority:
                client.update_work_queue(there[name].id, priority=priority)


def prune(work_pool: str, declared: Collection[str]) -> list[str]:
    """Remove deployments of a work pool that carry its tag and aren't declared; gives their names.

    Their triggers' automations go too, which Prefect would keep. Deployments without the tag were
    made by hand, and stay.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import DeploymentFilter, WorkPoolFilter
    from prefect.client.schemas.responses import DeploymentResponse

    pool = WorkPoolFilter.model_validate({"name": {"any_": [work_pool]}})
    tagged = DeploymentFilter.model_validate({"tags": {"all_": [work_pool]}})
    there: list[DeploymentResponse] = []
    removed = []
    with get_client(sync_client=True) as client:
        while page := client.read_deployments(
            work_pool_filter=pool, deployment_filter=tagged, offset=len(there)
        ):
            there += page
        flows = {id_: client.read_flow(id_).name for id_ in {each.flow_id for each in there}}
        for deployment in there:
            name = f"{flows[deployment.flow_id]}/{deployment.name}"
            if name not in declared:
                client.delete_resource_owned_automations(f"prefect.deployment.{deployment.id}")
                client.delete_deployment(deployment.id)
                removed.append(name)
    return removed


if __name__ == "__main__":
    main()
