"""What every implementation of an interface must do, as tests that take the implementation.

A contract is a class of tests with one fixture, ``harness``, which knows the implementation. A suite
subclasses it and defines that fixture::

    class TestSqliteStore(RowStoreContract):
        @pytest.fixture
        def harness(self, tmp_path):
            return SqliteHarness(tmp_path)

The methods are plain functions with plain assertions, so a contract can itself be tested: called with the
harness of an implementation that has a known bug, the method that names the fact must fail.
"""
