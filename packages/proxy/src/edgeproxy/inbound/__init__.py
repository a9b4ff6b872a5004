"""Servers of the control process."""
