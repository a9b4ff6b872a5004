"""Programs of Python started by fork, from a process that has imported already what they import.

To import a large program takes a new interpreter longer than most tests of it take, twice that when it is
measured, and a suite starts hundreds. Inside ::

    with programs_by_fork(["server", "server.worker"], preload=["server.app"]):
        ...

whatever starts ``[sys.executable, "-m", "server", ...]`` through `subprocess`, as `asyncio` and
:mod:`testkit.process` do, gets a child as ever: with these arguments, environment, working directory,
descriptors, session, limits and identity; with an exit code, and ended by signals. So do these programs
when they start each other. All else is started as ever: what is no such module, other options of the
interpreter, a shell, and what shall have other values of the variables that an interpreter reads when it
starts (:func:`~testkit.forked.order.read_at_start`).

What differs: modules of ``preload`` are not imported again, so what they find out at import they found out
before the program began; ``sys.flags`` and ``/proc/PID/cmdline`` are those of the process that was forked;
programs share the seed of the hashes of strings; each has one child more, in a process group of its own. At
its end a program waits for its threads, does what ``atexit`` was told and writes what is unwritten, but takes
no module apart, so what only finalizers would say then is not said. Tests of these things need
:func:`started_as_ever`, and some test should start each program as users do. Linux only.
"""

from testkit.forked.popen import programs_by_fork, started_as_ever

__all__ = ["programs_by_fork", "started_as_ever"]
