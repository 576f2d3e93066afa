"""Exceptions and warnings that users see. Every message names the argument, the column, the values and the remedy."""

from __future__ import annotations


class JaxmedError(Exception):
    """Base class of all errors raised by jaxmed."""


class InputError(JaxmedError, ValueError):
    """An argument or a column cannot be used as asked."""


class StorageError(JaxmedError, OSError):
    """Draws cannot be written to, or read from, a folder."""


class ProcessError(JaxmedError, RuntimeError):
    """Work that cannot be done in this process, a fork of one in which JAX had run, or that no worker of an executor did."""


class ArgumentError(InputError, TypeError):
    """A call with an argument that the function does not have, or without one that it needs."""


class JaxmedWarning(UserWarning):
    """Something a user should know, though the fit goes on."""
