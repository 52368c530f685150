"""Errors of the deployments.

DeploymentError
├── EngineDeadError       the engine behind a replica has stopped and will not recover by itself
├── EngineStartError      the engine could not be started; the message says what to do
├── PartError             another deployment did not answer
├── ChannelError          the other end of a private channel is gone, cannot be understood, or is not who it should be
│   ├── SilentError       it has said nothing for too long
│   └── OversizeError     this end was given more than a frame may hold
├── NoReplicaError        no replica takes the request
├── RenderError           a prompt's tokens could not be had now
├── QueueFullError        the request would wait for too long
└── ReplicaLostError      a replica broke off its answer
    └── SilentReplicaError   it has said nothing for too long
"""


class DeploymentError(Exception):
    """Base of everything this package raises on purpose."""


class EngineDeadError(DeploymentError):
    """The engine behind a replica has stopped and will not recover by itself."""


class EngineStartError(DeploymentError):
    """The engine could not be started; the message says what to do."""


class PartError(DeploymentError):
    """Another deployment did not answer."""


class ChannelError(DeploymentError):
    """The other end of a private channel is gone, cannot be understood, or is not who it should be."""


class SilentError(ChannelError):
    """The other end of a private channel has said nothing for too long; `has_begun`: after the beginning of its answer's body."""

    def __init__(self, message: str, *, has_begun: bool = False) -> None:
        super().__init__(message)
        self.has_begun = has_begun


class OversizeError(ChannelError):
    """This end was given more than a frame of a private channel may hold. Nothing was sent."""


class NoReplicaError(DeploymentError):
    """No replica takes the request."""


class RenderError(DeploymentError):
    """A prompt's tokens could not be had now: nothing is said of the prompt."""


class QueueFullError(DeploymentError):
    """The request would wait for too long: `retry_after_s` is when it may be worth coming again, `is_own` says that its own tenant's
    requests fill the queue."""

    def __init__(self, retry_after_s: float, *, is_own: bool) -> None:
        super().__init__("the queue is full")
        self.retry_after_s = retry_after_s
        self.is_own = is_own


class ReplicaLostError(DeploymentError):
    """A replica broke off its answer."""


class SilentReplicaError(ReplicaLostError):
    """It has said nothing for too long: it may still be at work, so no other is asked. `has_begun`: after its first token."""

    def __init__(self, message: str, *, has_begun: bool = False) -> None:
        super().__init__(message)
        self.has_begun = has_begun
