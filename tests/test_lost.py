"""What may be tried again, whatever it came through."""

import pytest
from ray.exceptions import ActorDiedError, NodeDiedError, OwnerDiedError, RayTaskError

from deployments.core.errors import GenerationFailed
from deployments.lost import ReplicaRestarts, is_dead, is_lost


@pytest.mark.parametrize(
    ("error", "lost", "dead"),
    [
        (ActorDiedError(), True, True),
        (OwnerDiedError("", None, ""), True, False),
        (NodeDiedError("gone"), True, False),
        (ReplicaRestarts(), True, False),
        (GenerationFailed("out of paint"), False, False),
    ],
)
def test_what_is_lost_may_be_tried_again(error: Exception, lost: bool, dead: bool) -> None:
    """A replica that will restart is not dead: it reports until then."""
    assert (is_lost(error), is_dead(error)) == (lost, dead)


def test_a_restart_is_known_after_its_way_through_ray() -> None:
    """It is raised in the replica's process."""
    raised = RayTaskError("generate", "a traceback", ReplicaRestarts()).as_instanceof_cause()
    assert is_lost(raised)
