"""How the proxy compares with its peers, and what it leaves behind: ``./dev bench`` and ``./dev soak``."""
