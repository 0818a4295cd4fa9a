"""What a simulated fleet consists of, and how it behaves."""

from __future__ import annotations

from dataclasses import dataclass

from msgspec import Struct

from flatwater.errors import SettingError


class RobotSpec(Struct, frozen=True, kw_only=True):
    """A robot as it is delivered: where it stands (a station) and how full its battery is (0 … 1)."""

    id: str
    home: str
    tags: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    battery: float = 1.0


class Failure(Struct, frozen=True, kw_only=True):
    """``operation`` fails with this ``probability`` at targets whose name begins with ``at``."""

    operation: str
    probability: float
    at: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetOptions:
    """Lengths in metres, times in seconds of the simulated world; ``speed`` is how many of its seconds pass in one.

    Raises SettingError for values that make no sense.
    """

    speed: float = 1.0
    """Clock of the simulated world, 1 … 100 times life. What is under way at a restart goes on as it was planned."""
    seed: int = 1
    """Of the random numbers. Whether an order fails depends on the seed and the order's id alone."""
    metres_per_s: float = 1.0
    operation_s: float = 5.0
    """Duration of loading, unloading and any other operation but ``Charge``."""
    failures: tuple[Failure, ...] = ()
    """The first that fits decides; operations that none fits never fail."""
    drain_per_m: float = 1 / 4000
    """Share of the battery for one metre: 4 km on one charge."""
    drain_per_operation: float = 1 / 2000
    charge_per_s: float = 1 / 600
    """From empty to full in 10 minutes."""
    low_battery: float = 0.2
    """Below it a robot is given to nobody who has not named it, and drives to a charger by itself."""
    full_battery: float = 0.95
    """Charging ends here."""
    chargers: tuple[str, ...] = ()
    """Stations with a charger, each for one robot at a time."""
    max_robots: int = 1_000
    max_queue: int = 10
    """Orders that one robot holds, the one it executes included."""
    max_listeners: int = 20
    max_prune: int = 500
    """Ended orders that one transaction forgets."""
    keep_s: float = 86_400.0
    """Ended orders are known this long, counted in real seconds; their ids are refused as long."""
    retry_s: float = 1.0
    """After the book could not be written."""

    def __post_init__(self) -> None:
        if not 1 <= self.speed <= 100:
            raise SettingError(f"speed is {self.speed}", hint="choose 1 to 100")
        for name in ("metres_per_s", "operation_s", "charge_per_s", "max_robots", "max_queue", "keep_s", "retry_s"):
            if not getattr(self, name) > 0:
                raise SettingError(f"{name} is {getattr(self, name)}", hint="give a number above zero")
        if not 0 <= self.low_battery < self.full_battery <= 1:
            raise SettingError(
                f"low_battery {self.low_battery}, full_battery {self.full_battery}",
                hint="0 ≤ low_battery < full_battery ≤ 1",
            )
        for failure in self.failures:
            if not 0 <= failure.probability <= 1:
                raise SettingError(f"{failure.operation} fails with {failure.probability}", hint="give 0 … 1")
