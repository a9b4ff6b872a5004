"""What changes where connections go: rows, their validation, the routing table, explanations."""
