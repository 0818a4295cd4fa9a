"""Which robot was last seen where: a dictionary of the module, by a key that never comes again."""

SIGHTINGS: dict[tuple[int, int], dict[str, str]] = {}


def note_sighting(robot: int, second: int) -> None:
    sighting = {"place": f"place {second}", "robot": f"robot {robot}", "speed": f"{second % 3} m/s"}  # allocated here
    SIGHTINGS[robot, second] = sighting  # inserted here


def forget_before(second: int) -> None:
    for key in [key for key in SIGHTINGS if key[1] < second]:
        del SIGHTINGS[key]
