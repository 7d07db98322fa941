from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import dagster as dg

from rare_assets.resources.dataset import UNNAMED
from rare_assets.resources.partitions import add_shards, registered_shards

AT_ONCE = 6


def test_shards_that_several_add_at_once_are_all_there_once(tmp_path):
    """As two commands on a new DAGSTER_HOME do."""
    instance = dg.DagsterInstance.local_temp(str(tmp_path))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        registered_shards(instance, UNNAMED)
        for number in range(10):
            keys, together = [f"{number}-{n:03}.jsonl" for n in range(100)], Barrier(AT_ONCE)

            def add(keys=keys, together=together):
                together.wait()
                add_shards(instance, keys, UNNAMED)

            for done in [pool.submit(add) for _ in range(AT_ONCE)]:
                done.result()
        found = registered_shards(instance, UNNAMED)
    assert sorted(found) == [f"{number}-{n:03}.jsonl" for number in range(10) for n in range(100)]
