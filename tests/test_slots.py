"""Who starts where and what the others wait for: cores, parts of a GPU, one GPU, several; without a process."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from fake_trainctl import ENGINE
from folders import make_run

from engine.rundir import RunDir
from trainctl.home import Home
from trainctl.launch import slots, start
from trainctl.launch.scheduler import Scheduler, Worker, holding
from trainctl.launch.slots import Need
from trainctl.launch.waiting import Held, explain, hold
from trainctl.recipes.plan import plan

ONE, HALF = Need(1.0, ""), Need(0.5, "")
GPU = Need(0.0, "any")


def part(gpus: float, gpu: str = "any") -> Need:
    return Need(0.0, gpu, 0, gpus)


def why(queued: list[tuple[str, Need]], held: list[Held], gpus: list[str], cores: int = 2) -> list[str]:
    names = {"a": "alpha", "b": "beta", "c": "gamma"}
    return [verdict.words(names, cores) for verdict in explain(queued, held, gpus)]


def test_it_is_said_what_each_run_waits_for() -> None:
    held = [Held("a", 0.5, "")]
    assert why([("b", HALF), ("c", HALF)], held, []) == [
        "starts next", "needs 1 of 2 cores; 2 taken by alpha and beta",
    ]  # fmt: skip
    assert why([("b", ONE), ("c", HALF)], held, []) == [
        "needs 2 of 2 cores; 1 taken by alpha", "behind beta, which waits for the same",
    ]  # fmt: skip
    three = [Held(name, 1 / 3, "") for name in "abc"]
    assert why([("d", HALF)], three, [], 6) == ["needs 3 of 6 cores; 6 taken by alpha, beta and 1 more"]
    pinned = Need(0.0, "0")
    assert why([("b", pinned), ("c", GPU)], [Held("a", 0.0, "0")], ["0", "1"]) == [
        "waits for GPU 0, taken by alpha", "starts next",
    ]  # fmt: skip
    both = [Held("a", 0.0, "0"), Held("b", 0.0, "1")]
    assert why([("c", GPU)], both, ["0", "1"]) == ["waits for a GPU, taken by alpha and beta"]
    # Cores and GPUs are queued for apart: a run for the one overtakes a run that waits for the other.
    assert why([("b", ONE), ("c", GPU)], held, ["0"]) == ["needs 2 of 2 cores; 1 taken by alpha", "starts next"]


def test_words_for_several_gpus_and_parts_of_one() -> None:
    four, one = ["0", "1", "2", "3"], ["0"]
    assert why([("c", part(2))], [Held("a", 0.0, "0,1"), Held("b", 0.0, "3")], four) == [
        "needs 2 of 4 GPUs; 3 taken by alpha and beta"
    ]
    assert why([("b", part(2)), ("c", GPU)], [Held("a", 0.0, "0,1,2")], four) == [
        "needs 2 of 4 GPUs; 3 taken by alpha", "behind beta, which waits for the same",
    ]  # fmt: skip
    assert why([("b", part(0.5)), ("c", part(0.3, "0"))], [Held("a", 0.0, "0", 0.75)], one) == [
        "needs half of a GPU; none has that much left beside alpha",
        "needs 0.3 of GPU 0; it has not that much left beside alpha",
    ]
    verdicts = explain([("a", GPU), ("b", GPU)], [], four, resting=["a"])
    assert [(each.lacks, each.gpu) for each in verdicts] == [("held", None), ("", "0")]
    assert "trainctl queue continue" in verdicts[0].words({}, 2)
    verdicts = explain([("a", GPU), ("b", ONE)], [], four, paused=True)
    assert [each.words({}, 2) for each in verdicts] == ["the queue is paused"] * 2


@pytest.mark.parametrize(
    ("queued", "held", "gpus", "expected"),
    [
        ([part(0.5)] * 3, [], ["0", "1"], ["0", "0", "1"]),  # one is filled before the next one is begun
        ([part(0.3)] * 4, [], ["0"], ["0", "0", "0", None]),
        ([part(1 / 3)] * 3, [], ["0"], ["0", "0", "0"]),  # nothing is lost to rounding
        ([part(0.25)], [Held("a", 0.0, "0", 0.5), Held("b", 0.0, "1", 0.75)], ["0", "1", "2"], ["1"]),  # the fullest
        ([part(0.5)], [Held("a", 0.0, "0", 0.5), Held("b", 0.0, "1", 0.75)], ["0", "1", "2"], ["0"]),
        ([part(2), GPU], [Held("a", 0.0, "1")], ["0", "1", "2", "3"], ["0,2", "3"]),
        ([part(2)], [Held("a", 0.0, "0", 0.25)], ["0", "1"], [None]),  # whole ones, wholly free
        ([part(0.5, "1"), part(0.5, "1")], [Held("a", 0.0, "1", 0.5)], ["0", "1"], ["1", None]),
        # What waits for two keeps two, those that are least taken; behind it the others may be filled.
        ([part(2), part(0.25), part(0.25, "2")],
         [Held("a", 0.0, "0", 0.5), Held("b", 0.0, "1", 0.75), Held("c", 0.0, "2", 0.25)],
         ["0", "1", "2"], [None, "1", None]),
        ([GPU, Need(0.0, "1"), GPU], [Held("a", 0.0, "0")], ["0", "1"], ["1", None, None]),
        ([Need(0.0, "0"), GPU], [Held("a", 0.0, "0")], ["0", "1"], [None, "1"]),
    ],
)  # fmt: skip
def test_where_each_starts(queued: list[Need], held: list[Held], gpus: list[str], expected: list[str | None]) -> None:
    verdicts = explain([(str(number), need) for number, need in enumerate(queued)], held, gpus)
    assert [verdict.gpu for verdict in verdicts] == expected


def plain(waiting: list[tuple[str, Need]], working: list[Held], gpus: list[str]) -> list[tuple[str, str]]:
    """The rule in plain words, for runs that take no part of a GPU: which start, and where."""
    started, cores_kept, gpus_kept = [], False, set()
    used, taken = sum(each.share for each in working), {gpu for each in working for gpu in each.gpu.split(",")}
    for run, want in waiting:
        many = int(want.gpus) if want.gpu else 0
        all_gpus = (gpus or ["0"]) if want.gpu == "any" else [want.gpu]
        free = [gpu for gpu in all_gpus if gpu not in taken | gpus_kept]
        lacks_cores = want.share > 0 and used > 0 and used + want.share > 1.000001
        if lacks_cores or (want.share > 0 and cores_kept) or len(free) < many:
            cores_kept |= lacks_cores
            if want.gpu:  # keep those that are free, then the first of the others
                others = [gpu for gpu in all_gpus if gpu in taken and gpu not in gpus_kept]
                gpus_kept |= set((free + others)[:many])
            continue
        started.append((run, ",".join(free[:many])))
        used, taken = used + want.share, taken | set(free[:many])
    return started


def test_the_scheduler_starts_exactly_those_that_are_said_to_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(4)
    runs = [RunDir(tmp_path / f"r{number}") for number in range(8)]
    seen = set()
    for _ in range(400):
        gpus = draw.choice([[], ["0"], ["0", "1"], ["0", "1", "2", "3"]])
        wants = {}
        for run in runs:
            gpu = draw.choice(["", "", "any", "any", "0", "1"])
            many = draw.choice([1.0, 1.0, 2.0]) if gpu == "any" and len(gpus) > 1 else 1.0
            wants[run.id] = Need(draw.choice([0.0, 0.25, 1 / 3, 0.5, 1.0]), gpu, 0, many)
        served = Scheduler(Home(tmp_path), ENGINE, gpus)
        for run in runs[: draw.randrange(3)]:
            held = Held(run.id, draw.choice([0.0, 0.25, 0.5]), draw.choice(["", *gpus]))
            served.workers[run.id] = Worker(run, held, None)
        before = [worker.held for worker in served.workers.values()]
        waiting = [(run.id, wants[run.id]) for run in runs[3:]]
        expected = plain(waiting, before, gpus)

        started: list[tuple[str, str]] = []
        monkeypatch.setattr(slots, "need", lambda run, gpus, wants=wants: wants[run.id])
        monkeypatch.setattr(served, "reap", lambda: False)
        monkeypatch.setattr(served, "scan", lambda: runs[3:])

        def launch(run: RunDir, wanted: Need, gpu: str, served: Scheduler = served, started: list = started) -> None:
            started.append((run.id, gpu))
            served.workers[run.id] = Worker(run, hold(run.id, wanted, gpu), None)

        monkeypatch.setattr(served, "launch", launch)
        served.step()
        verdicts = explain(waiting, before, gpus)
        assert started == expected
        assert [(run, v.gpu) for (run, _), v in zip(waiting, verdicts, strict=True) if v.gpu is not None] == expected
        seen.add(len(expected))
    assert len(seen) > 4  # few and many were started


@pytest.mark.parametrize("large", [part(2), part(4), GPU, Need(0.0, "1"), Need(0.5, "any", 0, 2), ONE])
def test_no_stream_of_small_runs_starves_a_large_one(large: Need) -> None:
    """Small runs of each kind come for ever and each works for 3 to 9 rounds: the large one starts within 40."""
    draw = random.Random(7)
    small = [part(0.25), Need(0.25, ""), part(0.25, "1")]
    gpus = ["0", "1", "2", "3"]
    queue: list[tuple[str, Need]] = []
    left: dict[str, int] = {}
    working: list[Held] = []
    for number in range(200):
        for kind in small:
            while [need for _, need in queue].count(kind) < 8:
                queue.append((f"small{number}-{len(queue)}-{draw.random()}", kind))
        if number == 20:
            queue.insert(4, ("large", large))
        left = {run: rounds - 1 for run, rounds in left.items() if rounds > 1}
        working = [each for each in working if each.run in left]
        for (run, wanted), verdict in zip(list(queue), explain(queue, working, gpus), strict=True):
            if verdict.gpu is not None:
                working.append(hold(run, wanted, verdict.gpu))
                left[run] = draw.randint(3, 9)
                queue.remove((run, wanted))
        for gpu in gpus:
            assert sum(each.part for each in working if gpu in each.gpus) <= 1 + 1e-6
        assert sum(each.share for each in working) <= 1 + 1e-6
        if "large" in left:
            assert number < 60
            return
    raise AssertionError("it never started")


@pytest.mark.parametrize(
    ("device", "gpus", "available", "expected"),
    [
        ("auto", 2.0, [], Need(1.0, "", 4)),  # no GPU: ignored
        ("cpu", 0.5, ["0"], Need(1.0, "", 4)),
        ("auto", 0.5, ["0"], Need(0.0, "any", 4, 0.5)),
        ("cuda", 2.0, ["0", "1"], Need(0.0, "any", 4, 2.0)),
        ("cuda", 4.0, ["0", "1"], Need(0.0, "any", 4, 2.0)),  # all there are
        ("cuda", 2.0, [], Need(0.0, "any", 4, 1.0)),
        ("cuda:1", 2.0, ["0", "1"], Need(0.0, "1", 4, 1.0)),
        ("cuda:1", 0.25, ["0", "1"], Need(0.0, "1", 4, 0.25)),
    ],
)
def test_what_a_recipe_asks_for(
    device: str, gpus: float, available: list[str], expected: Need, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "cores", lambda: 4)
    assert slots.asked(device, 4, gpus, None, available) == expected
    run = make_run(
        Home(tmp_path), "r", recipe_table={"run": {"device": device, "gpus": gpus, "threads": 4}}, status="queued"
    )
    assert slots.need(run, available) == expected  # one function for a plan and for its folder
    made = plan(["digits-trades"], overrides=[f"run.device={device}", f"run.gpus={gpus}", "run.threads=4"])
    together = start.at_once(made * 8, None, available)
    assert together == {"": 1}.get(expected.gpu, slots.places(expected, available))


@pytest.mark.parametrize("gpus", ["nan", "inf", "-1", "0", "1.5", "65", "true", '"2"', "[]", "1e400", "9" * 400])
def test_a_number_of_gpus_that_no_recipe_may_have_is_one(gpus: str, tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.recipe.write_text(f'[run]\ndevice = "cuda"\ngpus = {gpus}\nthreads = {gpus}\n')
    assert slots.need(run, ["0", "1", "2"]).gpus == 1.0
    run.recipe.write_text(f"run = {gpus}")
    assert slots.need(run, []) == Need(1.0, "")


def test_threads_are_shared_out_over_what_works_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "cores", lambda: 16)
    monkeypatch.setattr(slots, "gpus", lambda: ["0", "1"])
    threads = {}
    for gpus in (0.25, 0.4, 1.0, 2.0):
        plans = plan(["fashion-mnist-trades"], seeds="0-15", overrides=[f"run.gpus={gpus}"])
        settled, _ = slots.share_out(plans, None)
        threads[gpus] = settled[0].recipe.run.threads
    assert threads == {0.25: 2, 0.4: 4, 1.0: 8, 2.0: 16}


def test_what_a_run_at_work_holds_is_read_from_its_folder(tmp_path: Path) -> None:
    run = make_run(Home(tmp_path), "r", recipe_table={"run": {"device": "cuda", "gpus": 2.0}}, status="queued")
    run.write_json("launch.json", {"device": "cuda:0,3"})
    found = holding(run, ["0", "1", "2", "3"])
    assert (found.gpus, found.part, found.share) == (("0", "3"), 1.0, 0.0)
    shared = make_run(Home(tmp_path), "s", recipe_table={"run": {"device": "cuda", "gpus": 0.25}}, status="queued")
    shared.write_json("launch.json", {"device": "cuda:3"})
    assert holding(shared, ["3"]) == Held("s", 0.0, "3", 0.25)
