from __future__ import annotations

from accounts.ids import new_id


def test_ids_are_uuids_of_version_7_and_ascend() -> None:
    ids = [new_id() for _ in range(200)]
    assert {one.version for one in ids} == {7}
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)
