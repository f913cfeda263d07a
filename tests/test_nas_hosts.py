"""The user's own hosts file: what it may hold, and what is said when an entry is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from runner_requests import here

import hardware_profiles
from hardware_profiles import ProfileError
from nas import hosts
from nas.errors import ConfigError
from nas.latency.runner_bundle import shell_line
from nas.latency.runners import AdbRunner, RayRunner, SshRunner, runner_for

WHOLE = """
hosts:
  orin-1:
    address: user@10.0.0.7
    port: 2222
    identity_file: ~/.ssh/id
    python: ~/nas-venv/bin/python
    options: {StrictHostKeyChecking: accept-new}
phones:
  pixel-8: {serial: ABC123, python: /data/data/com.termux/files/usr/bin/python3, workdir: /data/local/tmp/nas}
ray: {address: "127.0.0.1:6379"}
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "hosts.yaml"
    path.write_text(WHOLE, encoding="utf-8")
    monkeypatch.setenv("NAS_HOSTS", str(path))
    return path


@pytest.mark.usefixtures("file")
def test_every_kind_of_runner_finds_its_entry() -> None:
    ssh = runner_for(here(kind="ssh", host_ref="orin-1"))
    assert isinstance(ssh, SshRunner) and ssh.target.address == "user@10.0.0.7" and ssh.target.port == 2222
    adb = runner_for(here(kind="adb", serial_ref="pixel-8"))
    assert isinstance(adb, AdbRunner) and adb.target.serial == "ABC123"
    ray = runner_for(here(kind="ray", slot="pi_slot", label={"device": "pi"}))
    assert isinstance(ray, RayRunner) and ray.address == "127.0.0.1:6379"


def test_a_missing_entry_names_the_file_the_near_miss_and_the_line_to_write(file: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"host_ref 'orin-2' is not in .*did you mean 'orin-1'.*add to it: hosts:"
    ) as caught:
        runner_for(here(kind="ssh", host_ref="orin-2"))
    assert str(file) in str(caught.value)
    with pytest.raises(ConfigError, match=r"serial_ref 'pixel-9' is not in .*did you mean 'pixel-8'.*phones:"):
        runner_for(here(kind="adb", serial_ref="pixel-9"))


def test_without_a_file_every_entry_is_missing_and_ray_runs_on_this_machine(file: Path) -> None:
    file.unlink()
    with pytest.raises(ConfigError, match=r"add to it: hosts: \{orin-1: \{address: user@host\}\}"):
        hosts.host("orin-1")
    assert hosts.ray_address() is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hosts: {a: {address: -oProxyCommand=evil}}", "address"),
        ("hosts: {a: {address: me@host -v}}", "address"),
        ("phones: {a: {serial: -s}}", "serial"),
        ("hosts: {a: {address: me@host, port: 0}}", "port"),
        ("hosts: {a: {adress: me@host}}", "adress"),
        ("host: {a: {address: me@host}}", "did you mean 'hosts'"),
        ("- a", "must hold a mapping"),
    ],
)
def test_a_mistake_in_the_file_is_one_line(file: Path, text: str, message: str) -> None:
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message) as caught:
        hosts.host("a")
    assert str(file) in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_a_profile_never_holds_an_address(tmp_path: Path) -> None:
    fields = here().model_dump(mode="json", by_alias=True) | {"runner": {"kind": "ssh", "host_ref": "me@host"}}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(fields), encoding="utf-8")
    with pytest.raises(ProfileError, match=r"host_ref"):
        hardware_profiles.load(str(path))


def test_only_the_home_folder_is_expanded_in_a_shell_on_the_device() -> None:
    assert shell_line("~/my venv/bin/python", None).startswith("\"$HOME\"/'my venv/bin/python' -c ")
    assert shell_line("$(evil)", "; evil").startswith("'$(evil)' -c ")
    assert shell_line("python3", "; evil").endswith(" '; evil'")
