"""The memory of a GPU that is only pretended: the tensors lie where they are."""


class PretendedMemory:
    """A `DeviceMemory` of which `available_gb` can be had, whatever was computed."""

    def __init__(self, available_gb: float, total_gb: float = 80.0) -> None:
        self.free_gb, self._total_gb = available_gb, total_gb
        self.releases = self.limits = 0
        self.held = 0.0

    def limit(self) -> None:
        self.limits += 1

    def available_gb(self) -> float:
        return self.free_gb

    def total_gb(self) -> float:
        return self._total_gb

    def held_gb(self) -> float:
        return self.held

    def release(self) -> None:
        self.releases += 1
