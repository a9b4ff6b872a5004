"""The commands of ``testkit coverage``; :class:`testkit.coverage.cli.Command` says what each module holds."""
