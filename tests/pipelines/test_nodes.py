"""What a worker may ask of machines: arithmetic over made-up ones."""

from __future__ import annotations

from curation.stations.station import Resources
from pipelines.nodes import Nodes, Request

GIB = 1024**3


def nodes(*machines: dict[str, float]) -> Nodes:
    total = {f"n{number}": machine for number, machine in enumerate(machines)}
    return Nodes(total, total)


def test_room_is_judged_machine_by_machine() -> None:
    two_of_three = nodes({"CPU": 3.0}, {"CPU": 3.0})
    assert two_of_three.room(Request(2.0, 0.0, 0)) == 2
    assert two_of_three.room(Request(1.0, 0.0, 0)) == 6


def test_room_ends_with_the_scarcest_resource() -> None:
    machine = nodes({"CPU": 8.0, "GPU": 1.0, "memory": 10.0 * GIB, "scratch": 3.0})
    assert machine.room(Request(1.0, 0.25, 1 * GIB)) == 4
    assert machine.room(Request(1.0, 0.0, 3 * GIB)) == 3
    assert machine.room(Request(1.0, 0.0, 0, (("scratch", 1.5),))) == 2
    assert machine.room(Request(1.0, 0.0, 0, (("licence", 1.0),))) == 0


def test_no_worker_asks_for_zero_cores_or_for_more_than_a_machine_has() -> None:
    resources = Resources(cpus=4.0, memory_bytes=8 * GIB)
    head = {"CPU": 0.0, "memory": 64.0 * GIB}
    assert nodes(head).request(resources) == Request(4.0, 0.0, 8 * GIB)
    small = {"CPU": 2.0, "memory": 4.0 * GIB}
    assert nodes(head, small).request(resources) == Request(2.0, 0.0, 4 * GIB)


def test_a_worker_asks_for_what_a_machine_with_its_gpu_has() -> None:
    big, with_gpu = (
        {"CPU": 16.0, "memory": 64.0 * GIB},
        {"CPU": 2.0, "GPU": 1.0, "memory": 1.0 * GIB},
    )
    resources = Resources(cpus=4.0, gpus=0.5, memory_bytes=8 * GIB)
    assert nodes(big, with_gpu).request(resources) == Request(2.0, 0.5, 1 * GIB)
    assert nodes(big).request(resources) == Request(4.0, 0.0, 8 * GIB)


def test_a_machine_that_is_taken_has_room_in_total_and_not_now() -> None:
    busy = Nodes({"n": {"CPU": 2.0}}, {"n": {"CPU": 1.0}})
    request = Request(2.0, 0.0, 0)
    assert busy.room(request) == 1
    assert not busy.fits_now(request)
    assert busy.without(["n"]).room(request) == 0
