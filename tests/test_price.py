"""What a run will cost, by what runs like it have cost."""

from __future__ import annotations

import pytest
from folders import append, evaluation, make_run, training

from trainctl.home import Home
from trainctl.recipes.plan import Planned, plan
from trainctl.registry import ingest, price


@pytest.fixture
def home(tmp_path) -> Home:
    return Home(tmp_path).create()


def planned(epochs: int = 20, **more: str) -> Planned:
    settings = [f"{key.replace('__', '.')}={value}" for key, value in more.items()]
    [run] = plan(["digits-trades"], overrides=[f"schedule.epochs={epochs}", *settings])
    return run


def known(home: Home) -> price.Past:
    ingest.refresh(home)
    return price.past(home)


def test_nothing_is_known_of_an_empty_home_and_of_runs_that_did_not_end_well(home: Home) -> None:
    assert price.past(home) == {}  # not even an index
    make_run(home, "failed", status="failed")
    make_run(home, "queued", status="queued")
    assert known(home) == {}
    assert price.cost(planned(), {}) is None and price.seconds(planned(), {}) is None


def test_epochs_and_evaluations_are_added_up(home: Home) -> None:
    # An event a second: from one epoch to the next three (two steps between); four evaluations of half a second.
    make_run(home, "one")
    found = price.cost(planned(), known(home))
    assert found == price.Cost(3.0, 2.0, 1)
    assert price.seconds(planned(20), known(home)) == 20 * 3.0 + 2.0
    assert price.seconds(planned(20), known(home), trained=15) == 5 * 3.0 + 2.0
    assert price.seconds(planned(20), known(home), trained=99) == 2.0
    assert price.seconds(planned(20, method__name="trades", model__arch="resnet-18"), known(home)) is None


def test_runs_of_its_own_group_count_before_those_of_its_kind(home: Home) -> None:
    run = planned()
    make_run(home, "kind")
    own = make_run(home, "own", group=run.group, created=2000.0)
    own.events.unlink()
    append(own, [("start", {}), *training(3, 3, 2.0)[:3]], 2001.0)
    # The epochs of its own group are 30, 30 and 3000 s: it was stopped once, which the median leaves out.
    for number, t in enumerate((2100.0, 2130.0, 2160.0, 5160.0, 5190.0)):
        append(own, [training(9, 9, 2.0)[3 * number + 2]], t)
    append(own, evaluation("best", {"natural": 90.0}, {}, 360, 3, "last epoch"), 5200.0)
    found = price.cost(run, known(home))
    assert found == price.Cost(30.0, 0.5, 1)
    by_kind = price.cost(planned(7), known(home))
    assert by_kind is not None and by_kind.runs == 2
    assert by_kind.epoch == (3.0 + 30.0) / 2 and by_kind.evaluation == (2.0 + 0.5) / 2


def test_a_single_epoch_costs_what_it_reported(home: Home) -> None:
    make_run(home, "short", epochs=1, seconds=7.5)
    found = price.cost(planned(), known(home))
    assert found is not None and found.epoch == 7.5


def test_only_the_newest_are_looked_at(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(price, "NEWEST", 2)
    for number in range(4):
        make_run(home, f"run{number}", epochs=1, seconds=float(number), created=1000.0 + number)
    make_run(home, "later", status="failed", created=3000.0)
    found = price.cost(planned(), known(home))
    assert found is not None and (found.runs, found.epoch) == (2, 2.5)


@pytest.mark.parametrize(
    ("each", "places", "seconds"),
    [([], 2, 0.0), ([10.0], 4, 10.0), ([10.0, 10.0, 10.0], 2, 15.0), ([30.0, 1.0], 2, 30)],
)
def test_the_total_is_no_shorter_than_the_longest_run(each: list[float], places: int, seconds: float) -> None:
    assert price.total(each, places) == seconds
