"""Several nodes and the links between them, from one description, on three substrates.

::

    topology = Topology(
        nodes=(Node("store", "eu", program=STORE), Node("client", "us", program=None)),
        links=(("client", "store"),),
        latencies=(Between("eu", "us", 0.04),),
    )
    async with ProcessCluster(topology, folder, seed=seed) as cluster:
        journal = await cluster.run(scenario)

| module | nodes are | links are |
|---|---|---|
| `simulated` | coroutines | a simulated network's, in the event loop's time |
| `processes` | processes on the loopback interface | fault links |
| `containers` | containers in a network of their own | fault links, on the machine's address in it |

Each is a `Substrate` of `testkit.faults.scenario`. When a block ends in order, the logs are searched for
errors that nobody allowed; when it fails, logs, journal and topology are kept as files.
"""
