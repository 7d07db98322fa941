"""Which databases of an instance can count for several hosts, and what is told of those that can't."""

from contextlib import nullcontext
from types import SimpleNamespace

import dagster as dg
from sqlalchemy.dialects import mysql

from rare_assets.resources.configurable import TeacherModel
from rare_assets.resources.instance_database import counted_alone


def test_a_shared_database_that_cannot_count_is_told():
    """Without a server of MySQL: by the dialect that its connections have."""
    connection = SimpleNamespace(dialect=mysql.dialect())
    storage = SimpleNamespace(connect=lambda: nullcontext(connection))
    said = counted_alone(SimpleNamespace(run_storage=storage))
    assert "on each host for itself, since this Dagster instance lies in mysql" in said


def test_files_of_this_machine_are_not(tmp_path):
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        assert counted_alone(instance) == ""
    with dg.DagsterInstance.ephemeral() as instance:
        assert counted_alone(instance) == ""


def test_a_limit_may_come_from_the_environment(nothing_set):
    assert not TeacherModel().limited
    assert TeacherModel(max_requests=3).limited
    nothing_set.setenv("RARE_TOKENS_PER_MINUTE", "100")
    assert TeacherModel().limited
