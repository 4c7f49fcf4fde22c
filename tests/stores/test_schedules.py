"""Schedules and their runs come back from every kind of store as they were."""

from __future__ import annotations

from tests.engine.shop import Shop
from tests.stores.places import write
from trigear.engine.scheduler import KIND, record_of
from trigear.stores.base import Erase, Keep


def test_schedules_and_their_runs_come_back(place):
    shop = Shop()
    shop.add("f * * * * * unique=%C3%A9%ff workload=%00%ff timezone=Pacific/Chatham missed=skip")
    shop.add("g @every 90s priority=low")
    shop.pass_time(100)
    shop.command("schedule pause H:1:2")
    before = [record_of(one) for one in shop.engine.scheduler.of("default")]
    jobs = shop.job_list()
    assert len(jobs) == 2
    store = place.opened()
    write(store, 1, *shop.records.values(), *shop.rows.values())
    store.close()
    store = place.opened()
    found = store.records(KIND, None, 100)
    rows = store.scan(None, 100)
    store.close()
    assert all(isinstance(row, Keep) for row in rows)
    shop.records = {Erase(KIND, one.tenant, one.key, one.partition): one for one in found}
    shop.rows = {(row.partition, row.sequence): row for row in rows}
    shop.restart()
    assert shop.engine.spoilt == 0
    assert [record_of(one) for one in shop.engine.scheduler.of("default")] == before
    assert shop.job_list() == jobs
