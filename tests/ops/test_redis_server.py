from __future__ import annotations

import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from agentsite import redis_server


@pytest.fixture
def socket_directory(tmp_path: Path) -> Iterator[Path]:
    path = redis_server.private_directory(tmp_path)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def test_the_one_that_is_named_is_used(tmp_path: Path) -> None:
    source = redis_server.find("redis://redis.harborpine.example:6379/2", tmp_path)

    assert source.url == "redis://redis.harborpine.example:6379/2"
    assert source.argv is None


def test_one_of_ours_listens_on_a_private_socket_and_keeps_its_data(tmp_path: Path, socket_directory: Path) -> None:
    for value in (b"1", b"2"):
        source = redis_server.find("", tmp_path)
        assert source.argv is not None
        with subprocess.Popen(source.argv, stdout=subprocess.DEVNULL) as server:
            try:
                assert redis_server.wait_until_listening(source.url)
                with redis.Redis.from_url(source.url) as client:
                    assert str(client.incr("starts")).encode() == value
                    assert client.config_get("port") == {"port": "0"}
            finally:
                server.terminate()

    assert stat.S_IMODE(socket_directory.stat().st_mode) == 0o700


def test_a_server_that_is_too_old_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "redis-server"
    old.write_text("#!/bin/sh\necho 'Redis server v=5.0.7 sha=00000000:0 bits=64'\n")
    old.chmod(0o755)
    monkeypatch.setattr(redis_server, "_binaries", lambda: [(str(old), "on the PATH")])

    source = redis_server.find("", tmp_path)

    assert "stand-in" in source.description
    assert "slow" in source.warning


def test_the_stand_in_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_server, "_binaries", list)
    source = redis_server.find("", tmp_path)
    assert source.argv is not None

    with subprocess.Popen(source.argv) as server:
        try:
            assert redis_server.wait_until_listening(source.url, seconds=20)
            with redis.Redis.from_url(source.url) as client:
                assert client.ping()
        finally:
            server.terminate()


def test_a_directory_others_can_enter_is_refused(tmp_path: Path, socket_directory: Path) -> None:
    socket_directory.chmod(0o755)

    with pytest.raises(PermissionError, match="only its owner"):
        redis_server.private_directory(tmp_path)


def test_a_long_temporary_directory_does_not_make_the_socket_path_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 120)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))

    path = redis_server.private_directory(tmp_path / "data")

    assert len(str(path / "redis.sock")) < redis_server.LONGEST_SOCKET_PATH
    path.rmdir()
