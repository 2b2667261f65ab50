"""The database of a stack."""

from tests.infra.example_stacks import recorded, stack


def test_a_databases_disk_grows_to_five_times_its_size() -> None:
    for made in (stack("standard"), recorded(databaseStorageGb="100")):
        (database,) = made.of("rds/instance:Instance")
        asked, most = (database.plain[key] for key in ("allocatedStorage", "maxAllocatedStorage"))
        assert most == 5 * asked
    assert (asked, most) == (100, 500)
