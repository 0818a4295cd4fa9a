"""Simulated robots: the default driver. Only `Fleet` does anything; the other modules are its pure parts."""

from flatwater.engine.fleet.fleet import Fleet, FleetStatistics
from flatwater.engine.fleet.option import Failure, FleetOptions, RobotSpec
from flatwater.engine.fleet.plant import Node, Plant

__all__ = ["Failure", "Fleet", "FleetOptions", "FleetStatistics", "Node", "Plant", "RobotSpec"]
