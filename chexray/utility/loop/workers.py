"""The workers of one training: who I am among them, and what we tell each other. Alone, everything is trivial."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import nn

T = TypeVar("T")


@dataclass(frozen=True)
class Workers:
    """`size` workers that run the same steps; this is worker `rank`, and worker 0 alone writes files and speaks.

    Every verb is collective: all workers must call it, in the same order. Values are pickled, so they are small and
    rare; the gradients of a step go through DistributedDataParallel instead.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def here(cls) -> Workers:
        """The default process group of torch.distributed where one was initialised, else one worker."""
        from torch import distributed

        if distributed.is_available() and distributed.is_initialized():
            return cls(distributed.get_rank(), distributed.get_world_size())
        return cls()

    @property
    def leads(self) -> bool:
        """True on worker 0."""
        return self.rank == 0

    def of_leader(self, value: T) -> T:
        """Worker 0's value, on every worker; the values of the others are ignored."""
        if self.size == 1:
            return value
        from torch import distributed

        box = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]

    def of_all(self, value: T) -> list[T]:
        """The values of all workers by rank, on every worker."""
        if self.size == 1:
            return [value]
        from torch import distributed

        found: list[Any] = [None] * self.size
        distributed.all_gather_object(found, value)
        return found

    def copy_buffers(self, model: nn.Module) -> None:
        """Gives every worker worker 0's buffers: running statistics of batch normalisation differ between workers."""
        if self.size > 1:
            from torch import distributed

            for buffer in model.buffers():
                distributed.broadcast(buffer, src=0)
