"""Which of an instance's runs are about a dataset."""

from collections.abc import Set

import dagster as dg


def is_about(run: dg.DagsterRun, assets: Set[dg.AssetKey], here: dg.RepositoryDefinition) -> bool:
    """Return True if a run was to make or check any of these assets of a repository."""
    # The UI's runs of assets have a job of one name in every code location.
    if run.job_name not in here.job_names:
        return False
    if run.asset_selection or run.asset_check_selection:
        made, checked = run.asset_selection or set(), run.asset_check_selection or set()
        return bool(assets & {*made, *(check.asset_key for check in checked)})
    return bool(assets & here.get_job(run.job_name).asset_layer.selected_asset_keys)
