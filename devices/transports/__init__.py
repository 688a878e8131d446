"""Transports: how files and programs get to a device that is not this machine."""

from devices.transports.ssh import SshTransport

__all__ = ["SshTransport"]
