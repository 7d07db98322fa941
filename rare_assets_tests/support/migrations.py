"""Dagster's migrations, read once a process and not for every database that a test makes."""

from functools import cache

from alembic.config import Config
from alembic.script import ScriptDirectory


def read_migrations_once() -> None:
    """Keep what Alembic has read of a folder of migrations: some forty files, of which a new database needs
    the name of the last."""
    read = ScriptDirectory.from_config

    @cache
    def read_once(folder: str) -> ScriptDirectory:
        config = Config()
        config.set_main_option("script_location", folder)
        return read(config)

    def from_config(config: Config) -> ScriptDirectory:
        folder = config.get_main_option("script_location")
        assert folder is not None
        return read_once(folder)

    ScriptDirectory.from_config = staticmethod(from_config)
