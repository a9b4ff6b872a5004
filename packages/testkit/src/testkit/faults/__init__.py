"""Faults of networks and nodes, in one vocabulary, on whatever the test runs on.

| module | what |
|---|---|
| `vocabulary` | the words: `Latency`, `Partition`, `Kill` … |
| `link`, `link_udp`, `blocking` | a link in front of a port: in an event loop, or without one |
| `simulated` | a network inside the process, in the event loop's time |
| `scenario` | steps of inject, recover and look, run on any of them |
| `listeners` | ports that refuse, do not answer, or say nothing |
| `packets` | faults of a container's packets; needs no netem of the kernel |
"""
