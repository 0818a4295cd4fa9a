"""Dataclasses in a list of a dataclass, three owners deep: service, statistics, samples.

Repaired: the samples are summed up instead of being kept.
"""

from dataclasses import dataclass, field

from stage import Stage


@dataclass
class Sample:
    robot: str
    speed: float
    tags: dict[str, str]


@dataclass
class Statistics:
    samples: list[Sample] = field(default_factory=list)
    count: int = 0
    total: float = 0.0


@dataclass
class Telemetry:
    statistics: Statistics = field(default_factory=Statistics)
    repaired: bool = False

    def receive(self, number: int) -> None:
        tags = {"hall": f"hall {number}", "task": f"task {number}"}
        sample = Sample(f"R{number}", number * 0.5, tags)  # allocated here
        if self.repaired:
            self.statistics.count += 1
            self.statistics.total += sample.speed
        else:
            self.statistics.samples.append(sample)  # inserted here


def main() -> None:
    stage = Stage(__doc__, rate=800)
    telemetry = Telemetry(repaired=stage.repaired)
    for number in stage.orders():
        telemetry.receive(number)


if __name__ == "__main__":
    main()
