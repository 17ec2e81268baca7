"""The simulation kernel obeys the laws of queues."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashsd_ray.bench.scaling.kernel import Cores, Simulation, Station


def test_events_happen_in_the_order_of_their_times_and_then_of_their_making() -> None:
    simulation, seen = Simulation(), list[str]()
    for delay_s, name in ((2.0, "c"), (1.0, "a"), (1.0, "b")):
        simulation.after(delay_s, lambda name=name: seen.append(name))  # type: ignore[misc]
    simulation.run()
    assert seen == ["a", "b", "c"]
    assert simulation.now_s == 2.0
    with pytest.raises(ValueError, match="past"):
        simulation.after(-0.1, simulation.run)


def test_tasks_share_cores_evenly() -> None:
    simulation = Simulation()
    cores, ends = Cores(simulation, num_cores=2), dict[str, float]()

    def end(name: str) -> None:
        ends[name] = simulation.now_s

    for name, seconds in (("one", 1.0), ("other", 2.0), ("third", 2.0)):
        cores.work(seconds, lambda name=name: end(name))  # type: ignore[misc]
    simulation.run()
    # Three tasks at two thirds of a core each until the first is done after 1.5 s; the others have a core each then.
    assert ends == pytest.approx({"one": 1.5, "other": 2.5, "third": 2.5})


def test_busy_cores_are_slower() -> None:
    simulation = Simulation()
    cores = Cores(simulation, num_cores=2, slowdown=1.5)
    assert cores.speed(1) == 1.0
    assert cores.speed(2) == pytest.approx(1 / 1.5)
    assert cores.speed(4) == pytest.approx(0.5 / 1.5)
    cores.work(1.0, lambda: None)
    cores.work(1.0, lambda: None)
    simulation.run()
    assert simulation.now_s == pytest.approx(1.5)
    with pytest.raises(ValueError, match="slowdown"):
        Cores(simulation, num_cores=2, slowdown=0.9)


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0.01, 3)), min_size=1, max_size=20), st.integers(1, 4))
def test_no_work_is_lost_or_made(tasks: list[tuple[float, float]], num_cores: int) -> None:
    simulation, ends = Simulation(), list[float]()
    cores = Cores(simulation, num_cores)
    for at_s, seconds in tasks:
        simulation.after(
            at_s,
            lambda seconds=seconds: cores.work(seconds, lambda: ends.append(simulation.now_s)),  # type: ignore[misc]
        )
    simulation.run()
    assert len(ends) == len(tasks)
    total = sum(seconds for _, seconds in tasks)
    earliest = max(total / num_cores, *(at_s + seconds for at_s, seconds in tasks))
    assert ends[-1] >= earliest - 1e-9
    assert ends[-1] <= max(at_s for at_s, _ in tasks) + total + 1e-9


def test_one_worker_with_poisson_arrivals_waits_as_pollaczek_and_khinchine_say() -> None:
    """M/D/1: the mean wait is rho * s / (2 * (1 - rho)); busy time is rho (utilisation law)."""
    simulation, chance = Simulation(), random.Random(5)
    station = Station(simulation, Cores(simulation))
    service_s, rho, count = 1.0, 0.7, 60_000
    at_s = 0.0
    for _ in range(count):
        at_s += chance.expovariate(rho / service_s)
        simulation.after(at_s, lambda: station.serve(service_s, lambda: None))
    simulation.run()
    assert station.num_served == count
    assert station.busy_s / simulation.now_s == pytest.approx(rho, rel=0.02)
    assert station.waited_s / count == pytest.approx(rho * service_s / (2 * (1 - rho)), rel=0.06)


def test_workers_serve_first_come_first_served_side_by_side() -> None:
    simulation, ends = Simulation(), list[tuple[str, float]]()
    station = Station(simulation, Cores(simulation), num_workers=2)
    for name, seconds in (("a", 3.0), ("b", 1.0), ("c", 1.0)):
        station.serve(seconds, lambda name=name: ends.append((name, simulation.now_s)))  # type: ignore[misc]
    simulation.run()
    assert ends == [("b", 1.0), ("c", 2.0), ("a", 3.0)]


def test_a_worker_that_is_held_serves_nobody_and_takes_no_core() -> None:
    simulation, ends = Simulation(), list[float]()
    cores = Cores(simulation, num_cores=1)
    held, other = Station(simulation, cores), Station(simulation, cores)
    held.serve(1.0, lambda: ends.append(simulation.now_s), held_s=2.0)
    held.serve(1.0, lambda: ends.append(simulation.now_s))
    simulation.after(1.0, lambda: other.serve(1.0, lambda: ends.append(simulation.now_s)))
    simulation.run()
    assert ends == pytest.approx([2.0, 3.0, 4.0])
    assert held.busy_s == pytest.approx(4.0)
