"""Transports: files and programs on devices other than this machine."""
