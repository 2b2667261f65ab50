"""What a Fargate task may be given: pairs of CPU and memory, and disk."""

from collections.abc import Mapping
from dataclasses import dataclass

# Fargate's own table: CPU units -> MiB of memory. Emulators take any pair, AWS does not.
MEMORY_OF: Mapping[int, tuple[int, ...]] = {
    256: (512, 1024, 2048),
    512: tuple(range(1024, 4097, 1024)),
    1024: tuple(range(2048, 8193, 1024)),
    2048: tuple(range(4096, 16385, 1024)),
    4096: tuple(range(8192, 30721, 1024)),
    8192: tuple(range(16384, 61441, 4096)),
    16384: tuple(range(32768, 122881, 8192)),
}
# GiB of disk that a task may ask for. Without asking it has FREE_DISK.
FREE_DISK = 20
LEAST_DISK, MOST_DISK = 21, 200


@dataclass(frozen=True)
class Size:
    """CPU units (1024 are a virtual CPU) and MiB of memory."""

    cpu: int
    memory: int

    def __post_init__(self) -> None:
        if self.cpu not in MEMORY_OF:
            allowed = ", ".join(map(str, MEMORY_OF))
            raise ValueError(f"Fargate has no {self.cpu} CPU units, only {allowed}")
        memory = MEMORY_OF[self.cpu]
        if self.memory not in memory:
            raise ValueError(
                f"Fargate has no {self.cpu} CPU units with {self.memory} MiB: it gives them"
                f" {memory[0]} to {memory[-1]}, in steps of {memory[1] - memory[0]}"
            )


# Of a run that asks for nothing else.
RUN = Size(1024, 4096)
