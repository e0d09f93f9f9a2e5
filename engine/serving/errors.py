"""What a scheduler says where an order is fine and the moment is not."""


class QueueFullError(RuntimeError):
    """As many orders wait as may, or none are taken any more. Try again later, or elsewhere."""
