"""Adapters that the control process calls through ports, named {port}_{technology}."""
