from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.config import Address, Config, load
from edgeproxy.config.settings import SETTINGS
from edgeproxy.core.geography import Geography
from edgeproxy.errors import ConfigError


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    return tmp_path / "edgeproxy.toml"


def problems(
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, str] | None = None,
    path: Path | None = None,
    known: Sequence[str] = (),
) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(environ or {}, flags or {}, path, known_problems=known)
    assert caught.value.exit_code == 2
    return caught.value.problems


def region_in(path: Path | None, environ: Mapping[str, str], flags: Mapping[str, str]) -> tuple[str, str]:
    config = load(environ, flags, path)
    return config.region, config.sources["region"]


class TestPrecedence:
    def test_a_flag_wins_over_the_environment_over_the_file_over_the_default(self, toml: Path) -> None:
        toml.write_text('region = "us"')
        assert region_in(None, {}, {}) == ("sa", "default")
        assert region_in(toml, {}, {}) == ("us", str(toml))
        assert region_in(toml, {"EDGEPROXY_REGION": "eu"}, {}) == ("eu", "EDGEPROXY_REGION")
        assert region_in(toml, {"EDGEPROXY_REGION": "eu"}, {"region": "ap"}) == ("ap", "--region")

    def test_a_wrong_value_is_reported_even_when_another_source_overrides_it(self, toml: Path) -> None:
        toml.write_text('region = "e u"')
        assert problems({"EDGEPROXY_REGION": "eu"}, {}, toml) == (
            f"{toml}: region: 'e u' is empty or malformed; expected is: name of a region",
        )

    def test_the_environment_names_the_file(self, toml: Path) -> None:
        toml.write_text('region = "us"')
        assert load({"EDGEPROXY_CONFIG": str(toml)}, {}, None).region == "us"

    def test_the_file_given_wins_over_the_one_in_the_environment(self, toml: Path) -> None:
        toml.write_text('region = "us"')
        assert load({"EDGEPROXY_CONFIG": "missing.toml"}, {}, toml).region == "us"

    def test_an_empty_name_of_the_file_in_the_environment_is_none(self) -> None:
        assert load({"EDGEPROXY_CONFIG": ""}, {}, None) == load({}, {}, None)

    def test_variables_of_others_are_ignored(self) -> None:
        assert load({"HOME": "/", "EDGE_REGION": "x"}, {}, None) == load({}, {}, None)


class TestValues:
    def test_each_source_gives_typed_values(self, toml: Path) -> None:
        toml.write_text('listen_addr = "[::1]:9000"\nworkers = 3\nreplication_bootstrap_peers = ["a:1"]\n')
        config = load({"EDGEPROXY_BINDING_TTL_SECS": "1.5"}, {"db_path": "x.db"}, toml)
        assert config.listen_addr == Address("::1", 9000)
        assert config.workers == 3
        assert config.replication_bootstrap_peers == (Address("a", 1),)
        assert config.binding_ttl_secs == 1.5
        assert config.db_path == Path("x.db")

    def test_empty_text_is_none_where_none_is_possible(self) -> None:
        config = load({"EDGEPROXY_APP": "", "EDGEPROXY_REPLICATION_BOOTSTRAP_PEERS": ""}, {}, None)
        assert config.app is None
        assert config.replication_bootstrap_peers == ()

    def test_empty_text_is_an_error_elsewhere(self) -> None:
        assert problems({"EDGEPROXY_WORKERS": ""}) == (
            "EDGEPROXY_WORKERS: '' is not a whole number; write one from 1 to 256",
        )

    def test_the_configuration_cannot_be_changed(self) -> None:
        config = load({}, {}, None)
        with pytest.raises(AttributeError):
            config.workers = 5  # type: ignore[misc]

    def test_where_a_value_comes_from_does_not_matter_for_equality(self) -> None:
        assert load({"EDGEPROXY_REGION": "sa"}, {}, None) == load({}, {}, None)


class TestAdminSocket:
    def test_lies_next_to_the_database_by_default(self) -> None:
        assert load({"EDGEPROXY_DB_PATH": "/srv/r.db"}, {}, None).admin_socket == Path("/srv/r.db.sock")

    def test_lies_in_the_state_folder_when_there_is_one(self) -> None:
        assert load({"EDGEPROXY_STATE_DIR": "/var/s"}, {}, None).admin_socket == Path("/var/s/admin.sock")

    def test_is_where_it_is_set(self) -> None:
        environ = {"EDGEPROXY_STATE_DIR": "/var/s", "EDGEPROXY_ADMIN_SOCKET": "/run/a.sock"}
        assert load(environ, {}, None).admin_socket == Path("/run/a.sock")

    def test_is_refused_when_its_default_is_too_long(self) -> None:
        (problem,) = problems({"EDGEPROXY_DB_PATH": "/" + "x" * 107})
        assert problem.startswith("EDGEPROXY_ADMIN_SOCKET (its default): '/xxx")
        assert "is too long for a Unix socket (113 bytes)" in problem

    def test_is_no_second_problem_when_the_database_is_one(self) -> None:
        (problem,) = problems({"EDGEPROXY_DB_PATH": ""})
        assert problem.startswith("EDGEPROXY_DB_PATH: '' is empty")


class TestDebug:
    @pytest.mark.parametrize("text", ["1", "true", "TRUE", "yes"])
    def test_true_forces_the_level(self, text: str) -> None:
        config = load({"DEBUG": text, "EDGEPROXY_LOG_LEVEL": "error"}, {}, None)
        assert (config.log_level, config.sources["log_level"]) == ("debug", "DEBUG")

    @pytest.mark.parametrize("text", ["", "0", "false"])
    def test_false_or_empty_does_nothing(self, text: str) -> None:
        assert load({"DEBUG": text, "EDGEPROXY_LOG_LEVEL": "error"}, {}, None).log_level == "error"

    def test_a_flag_wins_over_it(self) -> None:
        assert load({"DEBUG": "1"}, {"log_level": "warning"}, None).log_level == "warning"

    def test_anything_else_is_an_error(self) -> None:
        (problem,) = problems({"DEBUG": "*"})
        assert problem.startswith("DEBUG: '*' is neither true nor false")


class TestUnknownNames:
    @pytest.mark.parametrize(
        ("variable", "ending"),
        [
            ("EDGEPROXY_LISTEN_ADDRESS", "did you mean EDGEPROXY_LISTEN_ADDR?"),
            ("EDGEPROXY_region", "did you mean EDGEPROXY_REGION?"),
            ("EDGEPROXY_CONFIGURE", "did you mean EDGEPROXY_CONFIG?"),
            ("EDGEPROXY_XQZJW", "`edgeproxy config reference` lists all settings"),
        ],
    )
    def test_a_variable_with_our_prefix_is_an_error(self, variable: str, ending: str) -> None:
        assert problems({variable: "hunter2"}) == (f"{variable}: unknown variable; {ending}",)

    def test_a_key_is_an_error(self, toml: Path) -> None:
        toml.write_text("worker = 2")
        assert problems(path=toml) == (f"{toml}: worker: unknown setting; did you mean workers?",)

    def test_a_table_is_an_error(self, toml: Path) -> None:
        toml.write_text("[tls]\nenabled = true")
        (problem,) = problems(path=toml)
        assert problem.startswith(f"{toml}: [tls]: unknown table; settings are flat keys")

    def test_a_flag_is_an_error(self) -> None:
        assert problems(flags={"db_pth": "x"}) == ("--db-pth: unknown flag; did you mean --db-path?",)

    def test_a_name_cannot_break_the_line_or_steer_the_terminal(self, toml: Path) -> None:
        toml.write_text('"a\\nb\\u001b[31m" = 1')
        (problem,) = problems(path=toml)
        assert problem.startswith(f"{toml}: a\\nb\\x1b[31m: unknown setting")


class TestSecrets:
    def test_a_wrong_one_is_not_repeated_in_the_environment(self) -> None:
        (problem,) = problems({"EDGEPROXY_POSTGRES_URL": "mysql://hunter2"})
        assert problem.startswith("EDGEPROXY_POSTGRES_URL: the value (not shown) is empty or malformed")

    @pytest.mark.parametrize("value", ['"mysql://hunter2"', '["hunter2"]'])
    def test_a_wrong_one_is_not_repeated_in_the_file(self, toml: Path, value: str) -> None:
        toml.write_text(f"postgres_url = {value}")
        (problem,) = problems(path=toml)
        assert problem.startswith(f"{toml}: postgres_url: the value (not shown) ")
        assert "hunter2" not in problem

    def test_is_refused_as_a_flag(self) -> None:
        (problem,) = problems(flags={"postgres_url": "postgres://hunter2"})
        assert problem.startswith("--postgres-url: a secret is no flag")
        assert "EDGEPROXY_POSTGRES_URL" in problem
        assert "hunter2" not in problem


class TestFile:
    def test_a_missing_file_is_an_error(self, toml: Path) -> None:
        assert problems(path=toml) == (
            f"{toml}: cannot be read: No such file or directory; --config or EDGEPROXY_CONFIG names it",
        )

    def test_a_folder_is_an_error(self, tmp_path: Path) -> None:
        (problem,) = problems(path=tmp_path)
        assert "Is a directory" in problem

    def test_a_path_that_is_not_utf_8_is_named_in_printable_form(self) -> None:
        (problem,) = problems({"EDGEPROXY_CONFIG": "\udcff\n.toml"})
        assert problem.startswith("\\udcff\\n.toml: cannot be read")

    def test_bytes_that_are_not_utf_8_are_an_error(self, toml: Path) -> None:
        toml.write_bytes(b'region = "\xff"')
        assert problems(path=toml) == (f"{toml}: is not UTF-8 text (byte 10); save it as UTF-8",)

    def test_a_syntax_error_has_its_line_and_column(self, toml: Path) -> None:
        toml.write_text('region = "eu"\nworkers = = 2')
        (problem,) = problems(path=toml)
        assert problem.startswith(f"{toml}: is not valid TOML: ")
        assert "(at line 2, column 11)" in problem

    @pytest.mark.parametrize("text", ["x = " + "[" * 100_000, "x = " + "9" * 5_000])
    def test_what_python_itself_cannot_read_is_an_error(self, toml: Path, text: str) -> None:
        toml.write_text(text)
        (problem,) = problems(path=toml)
        assert problem.startswith(f"{toml}: is not valid TOML: ")

    @pytest.mark.parametrize(
        ("line", "shown"),
        [("workers = true", "true"), ("workers = '2'", "'2'"), ("workers = [2]", "[2]")],
    )
    def test_a_value_of_the_wrong_type_is_shown(self, toml: Path, line: str, shown: str) -> None:
        toml.write_text(line)
        (problem,) = problems(path=toml)
        assert problem.startswith(f"{toml}: workers: {shown} is of the TOML type ")

    def test_a_number_that_python_does_not_write_is_refused(self, toml: Path) -> None:
        toml.write_text("workers = 0x" + "f" * 5_000)
        (problem,) = problems(path=toml)
        assert problem.startswith(f"{toml}: workers: the value is out of bounds")


class TestContradictions:
    def test_a_pop_stands_in_a_region_that_exists(self) -> None:
        (problem,) = problems({"EDGEPROXY_DNS_POPS": "eu=192.0.2.1,af=192.0.2.2"})
        assert problem == (
            "EDGEPROXY_DNS_POPS: 'af' is no region; write one of ap, eu, sa, us, or add [regions.af] to the "
            "TOML file"
        )

    KEY = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE="

    def test_replication_and_postgres_exclude_each_other(self) -> None:
        environ = {
            "EDGEPROXY_REPLICATION_ENABLED": "true",
            "EDGEPROXY_POSTGRES_ENABLED": "true",
            "EDGEPROXY_POSTGRES_URL": "postgres://db/edge",
        }
        (problem,) = problems(environ)
        assert problem.startswith("EDGEPROXY_REPLICATION_ENABLED: POPs that share a database in PostgreSQL")

    @pytest.mark.feature("replication.keys")
    @pytest.mark.parametrize("name", ["REPLICATION_GOSSIP_ADDR", "REPLICATION_TRANSPORT_ADDR"])
    def test_replication_listens_to_the_world_only_with_a_key(self, name: str) -> None:
        environ = {"EDGEPROXY_REPLICATION_ENABLED": "true", f"EDGEPROXY_{name}": "0.0.0.0:4009"}
        (problem,) = problems(environ)
        assert problem == (
            f"EDGEPROXY_{name}: 0.0.0.0:4009 can be reached from other machines, and there is no key; set "
            "EDGEPROXY_REPLICATION_KEYS to what `edgeproxy replication key` prints, or listen on 127.0.0.1"
        )
        config = load({**environ, "EDGEPROXY_REPLICATION_KEYS": self.KEY}, {}, None)
        assert config.replication_keys == (b"A" * 32,)
        assert load({**environ, "EDGEPROXY_REPLICATION_ENABLED": "no"}, {}, None).replication_keys is None
        load({**environ, f"EDGEPROXY_{name}": "127.0.0.1:4009"}, {}, None)
        load({"EDGEPROXY_REPLICATION_ENABLED": "true"}, {}, None)

    @pytest.mark.feature("replication.keys")
    @pytest.mark.parametrize(
        ("text", "why"),
        [("no base64!", "holds something that is no base64"), ("QUFB", "holds a key of 3 bytes")],
    )
    def test_a_key_that_is_none_is_refused_without_being_shown(self, text: str, why: str) -> None:
        (problem,) = problems({"EDGEPROXY_REPLICATION_KEYS": f"{self.KEY}, {text}"})
        assert problem.startswith(f"EDGEPROXY_REPLICATION_KEYS: the value (not shown) {why}")

    def test_postgres_needs_its_url(self) -> None:
        assert problems({"EDGEPROXY_POSTGRES_ENABLED": "true"}) == (
            "EDGEPROXY_POSTGRES_ENABLED: needs EDGEPROXY_POSTGRES_URL; set it, or unset this",
        )
        (problem,) = problems({"EDGEPROXY_POSTGRES_ENABLED": "true", "EDGEPROXY_POSTGRES_URL": "db"})
        assert problem.startswith("EDGEPROXY_POSTGRES_URL: the value (not shown) ")

    def test_a_region_that_does_not_exist_is_refused(self) -> None:
        assert problems({"EDGEPROXY_REGION": "mars"}) == (
            (
                "EDGEPROXY_REGION: 'mars' is no region; write one of ap, eu, sa, us, "
                "or add [regions.mars] to the TOML file"
            ),
        )

    @pytest.mark.parametrize(("given_name", "missing"), [("cert", "KEY"), ("key", "CERT")])
    @pytest.mark.parametrize("part", ["tls", "api_tls"])
    def test_certificate_and_key_come_together(self, part: str, given_name: str, missing: str) -> None:
        assert problems(flags={f"{part}_{given_name}": "x.pem"}) == (
            (
                f"--{part.replace('_', '-')}-{given_name}: needs EDGEPROXY_{part.upper()}_{missing} too; "
                "set both or neither"
            ),
        )

    def test_certificate_and_key_together_are_right(self) -> None:
        config = load({}, {"tls_cert": "c.pem", "tls_key": "k.pem"}, None)
        assert (config.tls_cert, config.tls_key) == (Path("c.pem"), Path("k.pem"))

    def test_an_authority_of_clients_is_of_use_only_where_clients_are_asked(self) -> None:
        ca = {"tls_client_ca": "ca.pem"}
        assert problems(flags=ca) == (
            (
                "--tls-client-ca: nobody is asked for a certificate; set EDGEPROXY_TLS_CLIENT_AUTH to "
                "required or optional"
            ),
        )
        (problem,) = problems(flags={**ca, "tls_client_auth": "perhaps"})
        assert problem.startswith("--tls-client-auth: 'perhaps'")

    def test_the_least_connections_are_not_more_than_the_most(self) -> None:
        assert problems({"EDGEPROXY_POSTGRES_MIN_CONNECTIONS": "11"}) == (
            (
                "EDGEPROXY_POSTGRES_MIN_CONNECTIONS: 11 is more than EDGEPROXY_POSTGRES_MAX_CONNECTIONS, "
                "which is 10; lower the one or raise the other"
            ),
        )

    def test_a_wrong_value_causes_no_contradiction_as_well(self) -> None:
        environ = {
            "EDGEPROXY_POSTGRES_MIN_CONNECTIONS": "11",
            "EDGEPROXY_POSTGRES_MAX_CONNECTIONS": "many",
            "EDGEPROXY_TLS_CERT": "x.pem",
            "EDGEPROXY_TLS_KEY": "\0",
            "EDGEPROXY_REGION": "e u",
        }
        assert [problem.split(":")[0] for problem in problems(environ)] == [
            "EDGEPROXY_POSTGRES_MAX_CONNECTIONS",
            "EDGEPROXY_TLS_KEY",
            "EDGEPROXY_REGION",
        ]


class TestGeography:
    def test_is_the_built_in_one_without_a_file(self) -> None:
        assert load({}, {}, None).geography == Geography.built_in()

    def test_takes_the_tables_of_the_file(self, toml: Path) -> None:
        toml.write_text('region = "af"\n[countries]\nMX = "sa"\n[regions.af]\ncountries = ["ZA"]\n')
        config = load({}, {}, toml)
        assert config.region == "af"
        assert config.geography.region_of("MX") == "sa"
        assert config.geography.region_of("ZA") == "af"

    def test_its_problems_are_reported_with_the_file(self, toml: Path) -> None:
        toml.write_text('[countries]\nZZ = "sa"\n')
        (problem,) = problems(path=toml)
        assert problem.startswith(f"{toml}: [countries]: 'ZZ'")


def test_every_problem_of_every_source_is_reported_at_once(toml: Path) -> None:
    toml.write_text('regio = "eu"\nworkers = 0\n[countries]\nZZ = "sa"\n')
    environ = {
        "EDGEPROXY_LISTEN_ADDR": "x",
        "EDGEPROXY_NOPE": "1",
        "EDGEPROXY_REPLICATION_ENABLED": "1",
        "EDGEPROXY_REPLICATION_GOSSIP_ADDR": "0.0.0.0:1",
        "DEBUG": "2",
    }
    found = problems(environ, {"app": " ", "nope": ""}, toml, ["--region: needs a value"])
    assert [problem.removeprefix(f"{toml}: ").split(":")[0] for problem in found] == [
        "--region",
        "regio",
        "workers",
        "EDGEPROXY_LISTEN_ADDR",
        "EDGEPROXY_NOPE",
        "DEBUG",
        "--app",
        "--nope",
        "[countries]",
        "EDGEPROXY_REPLICATION_GOSSIP_ADDR",
    ]


VARIABLES = st.sampled_from([setting.variable for setting in SETTINGS.values()]) | st.text().map(
    "EDGEPROXY_{}".format
)


@given(
    environ=st.dictionaries(VARIABLES | st.just("DEBUG"), st.text(), max_size=5),
    flags=st.dictionaries(st.sampled_from(list(SETTINGS)) | st.text(), st.text(), max_size=5),
)
def test_any_input_gives_a_configuration_or_problems_of_one_line(
    environ: dict[str, str], flags: dict[str, str]
) -> None:
    environ.pop("EDGEPROXY_CONFIG", None)
    found: Sequence[str] = ["none, so there is a configuration"]
    try:
        assert isinstance(load(environ, flags, None), Config)
    except ConfigError as error:
        found = error.problems
    assert found
    assert all(problem.isprintable() for problem in found)


def test_archive_is_of_a_database_in_a_file() -> None:
    environ = {
        "EDGEPROXY_ARCHIVE_URL": "s3://ours",
        "EDGEPROXY_POSTGRES_ENABLED": "true",
        "EDGEPROXY_POSTGRES_URL": "postgresql://h/d",
    }
    (problem,) = problems(environ)
    assert problem == (
        "EDGEPROXY_ARCHIVE_URL: databases in files are archived, and PostgreSQL has means of its own; "
        "unset it, or EDGEPROXY_POSTGRES_ENABLED"
    )
