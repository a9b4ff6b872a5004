"""The command line: one file per command group, all registered in :mod:`edgeproxy.cli.app`.

How a group plugs in::

    # cli/backends.py
    import typer

    from edgeproxy.cli.options import ConfigFile, load_config

    group = typer.Typer(help="Look at and edit the backends of the routing database.", no_args_is_help=True)

    @group.command("list")
    def list_backends(config_file: ConfigFile = None) -> None:
        '''Print every backend.'''
        config = load_config(config_file)
        ...

    # cli/app.py
    app.add_typer(backends.group, name="backends")

A single command is a function registered with ``app.command("explain")(explain.explain)``.

Commands print their result to stdout, raise :class:`edgeproxy.errors.EdgeproxyError` for what goes
wrong (``__main__`` turns it into ``edgeproxy: error: …`` and the exit code) and import what is heavy
inside the function, so that ``edgeproxy --help`` stays quick.
"""
