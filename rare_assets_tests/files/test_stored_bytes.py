"""What a person is told of storage that can't be opened."""

import pytest

from rare_assets.files.stored_bytes import explained


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("s3://bucket/a", "Storage on s3:// needs pip install 'rare-assets[s3]'."),
        ("gs://bucket/a", "Storage on gs:// needs pip install gcsfs."),
        ("abfs://box/a", "Storage on abfs:// needs pip install adlfs."),
        ("sftp://host/a", "Storage on sftp:// needs the package that is named."),
    ],
)
def test_a_missing_package_is_told_by_the_command_that_installs_it(url, told):
    said = explained(url, "read", ImportError("Please install it"))
    assert said == f"{url} can't be opened: Please install it. {told}"
