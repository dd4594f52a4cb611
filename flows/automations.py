"""What a Prefect server does by itself for our runs: those that stop sending heartbeats are marked as crashed.

python -m flows.automations    creates it on the server at PREFECT_API_URL, or brings it up to date
"""

from __future__ import annotations

from datetime import timedelta

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

from flows.services import HEARTBEAT_SECONDS

NAME = "ra3: runs without heartbeats have crashed"
ENDS = ("Completed", "Failed", "Cancelled", "Crashed")


def main() -> None:
    """Put it in place of an earlier one of its name."""
    trigger = EventTrigger(
        after={"prefect.flow-run.heartbeat"},
        expect={"prefect.flow-run.heartbeat", *(f"prefect.flow-run.{end}" for end in ENDS)},
        match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=3 * HEARTBEAT_SECONDS),
    )
    action = ChangeFlowRunState(
        state=StateType.CRASHED, name=None, force=False, message="no heartbeat: its process or its machine is gone"
    )
    wanted = AutomationCore(name=NAME, trigger=trigger, actions=[action])
    with get_client(sync_client=True) as client:
        for automation in client.read_automations_by_name(NAME):
            client.delete_automation(automation.id)
        client.create_automation(wanted)


if __name__ == "__main__":
    main()
