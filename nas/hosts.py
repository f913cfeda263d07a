"""The user's own hosts file: addresses, serials and keys of devices, which never live in a profile."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from nas.errors import ConfigError
from search_spaces.reading import check, hint, read_mapping

VARIABLE, FILE = "NAS_HOSTS", "hosts.yaml"
NO_OPTION = r"^[^-\s]\S*$"  # an address that starts with a dash would be read as an option


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Host(_Record):
    """What `ssh` needs to reach a device."""

    address: str = Field(pattern=NO_OPTION, description="user@host, or a name from ~/.ssh/config")
    port: int = Field(default=22, ge=1, le=65535)
    identity_file: str | None = None
    python: str = "python3"
    workdir: str | None = Field(default=None, description="where its temporary folder is made; None = its own choice")
    options: dict[str, str] = Field(default_factory=dict, description="further -o options of ssh")


class Phone(_Record):
    """What `adb` needs to reach a phone."""

    serial: str = Field(pattern=NO_OPTION)
    python: str = "python3"
    workdir: str | None = None


class Cluster(_Record):
    """A Ray cluster that runs already."""

    address: str = Field(pattern=NO_OPTION)


class Hosts(_Record):
    """The whole file."""

    hosts: dict[str, Host] = Field(default_factory=dict)
    phones: dict[str, Phone] = Field(default_factory=dict)
    ray: Cluster | None = None


def hosts_file() -> Path:
    """`NAS_HOSTS`, else hosts.yaml in the user's configuration folder."""
    from platformdirs import user_config_path

    return Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else user_config_path("nas") / FILE


def host(name: str) -> Host:
    """Raises: ConfigError that says what to write where."""
    known = _read().hosts
    if name not in known:
        raise ConfigError(_missing("host_ref", name, list(known), f"hosts: {{{name}: {{address: user@host}}}}"))
    return known[name]


def phone(name: str) -> Phone:
    """Raises: ConfigError that says what to write where."""
    known = _read().phones
    if name not in known:
        raise ConfigError(_missing("serial_ref", name, list(known), f"phones: {{{name}: {{serial: SERIAL}}}}"))
    return known[name]


def ray_address() -> str | None:
    """Of the user's cluster; None = the one that runs on this machine."""
    found = _read().ray
    return None if found is None else found.address


def _read() -> Hosts:
    file = hosts_file()
    return check(read_mapping(file, ConfigError), Hosts, str(file), ConfigError) if file.is_file() else Hosts()


def _missing(field: str, name: str, known: list[str], line: str) -> str:
    near = f"; {hint(name, known, 'known')}" if known else ""
    return f"{field} {name!r} is not in {hosts_file()}{near}; add to it: {line}"
