"""What can go wrong, as a tree; the CLI prints a UserError as one line and exits with its code.

    NasError
    |-- UserError                exit 2: the user can mend it (rule, value, next step)
    |   |-- ConfigError          a YAML file, flag or expression is not of the form it must have
    |   |-- UnknownNameError     no such space, device, workload, component, proxy ... (names the near miss)
    |   |-- MissingPackageError  an optional package is not installed
    |   |-- StorageError         a database or folder cannot be reached or written
    |   |-- RunError             a run folder or study is missing, locked or does not match
    |   `-- RunnerError          a device cannot be reached, or stopped before it was done
    |       `-- RefusalError     a device, or the way to it, will say no again until the user mends it
    |-- NothingFeasibleError     exit 3: no candidate meets the constraints
    `-- EvaluationError          one candidate failed; the search goes on
        `-- NotMeasuredError     a latency that was needed has not been measured

The three leaf packages raise ValueError subclasses of their own (`search_spaces.SpaceError`,
`hardware_profiles.ProfileError`, `proxies.ProxyError`); the CLI treats them as user errors too.
"""

from __future__ import annotations


class NasError(Exception):
    """Root of the engine's errors."""

    exit_code = 1


class UserError(NasError):
    """Something the user can mend; the message states rule, value and next step."""

    exit_code = 2


class ConfigError(UserError):
    """A file, flag or expression is not of the form it must have."""


class UnknownNameError(UserError):
    """A name that nothing is registered under."""


class MissingPackageError(UserError):
    """An optional package is needed and not installed."""


class StorageError(UserError):
    """A database or folder cannot be reached or written."""


class RunError(UserError):
    """A run folder or study is missing, locked, or does not match."""


class RunnerError(UserError):
    """A device cannot be reached, or stopped before it was done."""


class RefusalError(RunnerError):
    """A device, or the way to it, will say no again until the user mends something."""


class NothingFeasibleError(NasError):
    """No candidate of the space meets the constraints."""

    exit_code = 3


class EvaluationError(NasError):
    """One candidate could not be evaluated; the search goes on."""


class NotMeasuredError(EvaluationError):
    """A latency was asked of blocks that have not been measured."""
