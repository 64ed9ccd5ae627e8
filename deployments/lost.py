"""What it means when something goes away: whose error it is, what died, and whether we stop.

Imports Ray only when asked, so that the tests of the API need none.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ray.serve.schema import ApplicationStatusOverview


class ReplicaRestarts(Exception):
    """A job was given to a replica that takes no more, before it was known: another one does it."""


def cause_of(error: BaseException) -> BaseException:
    """Return what was raised in the other process: Ray wraps it once per process it passed."""
    while isinstance(cause := getattr(error, "cause", None), BaseException) and cause is not error:
        error = cause
    return error


def is_lost(error: BaseException) -> bool:
    """Whether a process, a node or an object died, or a replica is about to, so that the same work
    may be tried again.

    OwnerDiedError, an ObjectLostError, comes when a model dies after it stored its frames; it is
    not a RayActorError.
    """
    from ray.exceptions import NodeDiedError, ObjectLostError, WorkerCrashedError

    cause = cause_of(error)
    gone = (ReplicaRestarts, ObjectLostError, NodeDiedError, WorkerCrashedError)
    return is_dead(cause) or isinstance(cause, gone)


def is_dead(error: BaseException) -> bool:
    """Whether the replica that was called has died, as opposed to something that it needed."""
    from ray.exceptions import RayActorError

    return isinstance(error, RayActorError)


def is_away(error: BaseException) -> bool:
    """Whether a call found no replica, or lost it: the deployment may be back in a moment."""
    from ray.serve.exceptions import DeploymentUnavailableError, ReplicaUnavailableError

    cause = cause_of(error)
    return is_lost(cause) or isinstance(cause, DeploymentUnavailableError | ReplicaUnavailableError)


def is_stopping() -> bool:
    """Whether this replica's application is being deleted or replaced, as Serve's controller says.

    Serve breaks off the requests of an ingress that it stops, which looks like clients leaving.
    """
    app = _application()
    return app is None or app.status in ("DELETING", "DEPLOYING")


def is_replaced() -> bool:
    """Whether this replica itself is being ended or replaced, so that nothing may hold it up: Serve
    waits for every request of a replica that it ends, and tells the replica nothing."""
    from ray import serve

    app = _application()
    if app is None or app.status == "DELETING":
        return True
    mine = app.deployments.get(serve.get_replica_context().deployment)
    return mine is None or mine.status == "UPDATING"


def _application() -> "ApplicationStatusOverview | None":
    """Return how this replica's application stands; None when it, or the controller, is gone."""
    from ray import serve
    from ray.exceptions import RayError
    from ray.serve.exceptions import RayServeException

    name = serve.get_replica_context().app_name
    try:
        return serve.status().applications.get(name)
    except (RayError, RayServeException):
        return None
