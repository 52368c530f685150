"""Errors of the deployments.

DeploymentError
├── EngineDeadError       the engine behind a replica has stopped and will not recover by itself
├── EngineStartError      the engine could not be started; the message says what to do
├── PartError             another deployment did not answer
├── NoReplicaError        no replica takes the request
└── ReplicaLostError      a replica broke off its answer
"""


class DeploymentError(Exception):
    """Base of everything this package raises on purpose."""


class EngineDeadError(DeploymentError):
    """The engine behind a replica has stopped and will not recover by itself."""


class EngineStartError(DeploymentError):
    """The engine could not be started; the message says what to do."""


class PartError(DeploymentError):
    """Another deployment did not answer."""


class NoReplicaError(DeploymentError):
    """No replica takes the request."""


class ReplicaLostError(DeploymentError):
    """A replica broke off its answer."""
