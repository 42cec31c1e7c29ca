"""The few exceptions the kernel raises; each says what came, what was wanted and what to do."""


class KernelError(Exception):
    """A node, a topic or a run is put together wrongly."""


class NodeError(KernelError):
    """A node cannot start or go on with what it was given; its process exits with code 3."""


class TopicTaken(KernelError):
    """A second writer asked for a topic that has one."""


class Unanswered(KernelError):
    """A node did not answer a request in time."""


class RequestRefused(KernelError):
    """A node answered a request with no, and why."""
