"""How points of presence agree on the routing table. Pure: time and draws are arguments."""
