from __future__ import annotations

import random
from collections.abc import Collection, Iterator
from ipaddress import ip_network
from itertools import product

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.controlplane.candidates import Candidates
from edgeproxy.core.controlplane.names import Zone
from edgeproxy.core.controlplane.routing_table import PlacedBackend
from edgeproxy.core.dataplane.client import locate
from edgeproxy.core.geography import Geography
from edgeproxy.core.model import Backend
from edgeproxy.inbound.dns_messages import MAX_DATAGRAM_BYTES, MAX_QUERY_BYTES, Lifetimes, Responder

COUNTRIES = {"203.0.113.7": "BR", "203.0.113.0": "BR", "2001:db8:b::": "BR"}
RESOLVER, STRANGER, BRAZILIAN = "198.51.100.53", "192.0.2.99", "203.0.113.7"
HEADER_BYTES = 12


def row(backend_id: str, host: str, region: str, country: str, app: str = "shop") -> Backend:
    return Backend(backend_id, app, region, country, host, 9000, True, 1, 100, 0)


ROWS = (
    row("de-1", "192.0.2.1", "eu", "DE"),
    row("br-1", "192.0.2.2", "sa", "BR"),
    row("jp-6", "2001:db8::3", "ap", "JP"),
    *(row(f"backend-number-{number}", f"10.0.0.{number}", "us", "US", "many") for number in range(60)),
)


class Rows:
    """A table without connections."""

    version = 7

    def snapshot(self) -> Collection[PlacedBackend]:
        return [PlacedBackend(slot, each) for slot, each in enumerate(ROWS)]

    def changed_slots(self) -> Collection[int] | None:
        return ()

    def connections(self, slot: int) -> int:
        return 0


def make_responder(domain: str = "internal") -> Responder:
    rows, geography = Rows(), Geography.built_in()
    labels = tuple(domain.encode().split(b"."))
    return Responder(
        Zone(labels, "eu", geography.regions, {"eu": ("198.51.100.1", "2001:db8:e::1")}),
        Candidates("eu", rows, rows, dict),
        lambda: rows.version,
        lambda address: locate(address, lambda known: COUNTRIES.get(known, ""), geography),
        Lifetimes(answer_s=30, negative_s=5),
        [ip_network("198.51.100.0/24"), ip_network("2001:db8:53::/48")],
    )


@pytest.fixture(scope="module")
def responder() -> Responder:
    return make_responder()


def ask(
    responder: Responder,
    query: dns.message.Message | bytes,
    asker: str = STRANGER,
    *,
    stream: bool = False,
) -> dns.message.Message:
    """The reply to ``query``, read back, after what holds for every reply was checked."""
    wire = query if isinstance(query, bytes) else query.to_wire()
    reply = responder.respond(wire, asker, 0.0, stream=stream)
    assert reply is not None
    message = dns.message.from_wire(reply)
    assert message.id == int.from_bytes(wire[:2], "big")
    assert message.flags & dns.flags.QR
    assert not message.flags & (dns.flags.RA | dns.flags.AD)
    return message


def query(name: str, rdtype: str = "A", **options: object) -> dns.message.QueryMessage:
    return dns.message.make_query(name, rdtype, **options)  # type: ignore[arg-type]


def records(section: list[dns.rrset.RRset]) -> list[str]:
    return [line for rrset in section for line in rrset.to_text().split("\n")]


class TestAnswers:
    def test_hold_the_name_as_it_was_asked_for(self, responder: Responder) -> None:
        reply = ask(responder, query("sHoP.InTERnal."))
        assert records(reply.answer) == ["sHoP.InTERnal. 30 IN A 192.0.2.1"]
        assert reply.question[0].name.labels == (b"sHoP", b"InTERnal", b"")
        assert reply.flags & dns.flags.AA
        assert reply.rcode() == dns.rcode.NOERROR

    def test_depend_on_who_asks(self, responder: Responder) -> None:
        assert records(ask(responder, query("shop.internal."), BRAZILIAN).answer) == [
            "shop.internal. 30 IN A 192.0.2.2"
        ]

    def test_take_the_address_of_a_dual_stack_socket_for_ipv4(self, responder: Responder) -> None:
        reply = ask(responder, query("shop.internal."), f"::ffff:{BRAZILIAN}")
        assert records(reply.answer) == ["shop.internal. 30 IN A 192.0.2.2"]

    def test_of_ipv6(self, responder: Responder) -> None:
        reply = ask(responder, query("shop.internal.", "AAAA"))
        assert records(reply.answer) == ["shop.internal. 30 IN AAAA 2001:db8::3"]

    def test_are_in_the_order_of_the_choice(self, responder: Responder) -> None:
        for _ in range(20):
            reply = ask(responder, query("global.shop.internal."), BRAZILIAN)
            assert [rdata.to_text() for rdata in reply.answer[0]] == ["192.0.2.2", "192.0.2.1"]

    def test_of_services_bring_addresses(self, responder: Responder) -> None:
        reply = ask(responder, query("_shop._tcp.internal.", "SRV"), BRAZILIAN)
        assert records(reply.answer) == [
            "_shop._tcp.internal. 30 IN SRV 0 1 9000 br-1.vm.shop.internal.",
            "_shop._tcp.internal. 30 IN SRV 2 1 9000 de-1.vm.shop.internal.",
            "_shop._tcp.internal. 30 IN SRV 3 1 9000 jp-6.vm.shop.internal.",
        ]
        assert records(reply.additional) == [
            "br-1.vm.shop.internal. 30 IN A 192.0.2.2",
            "de-1.vm.shop.internal. 30 IN A 192.0.2.1",
            "jp-6.vm.shop.internal. 30 IN AAAA 2001:db8::3",
        ]

    def test_of_text(self, responder: Responder) -> None:
        reply = ask(responder, query("vms.shop.internal.", "TXT"))
        assert records(reply.answer) == ['vms.shop.internal. 30 IN TXT "br-1 sa,de-1 eu,jp-6 ap"']

    def test_of_long_text_are_strings_that_make_it_up(self, responder: Responder) -> None:
        (rrset,) = ask(responder, query("vms.many.internal.", "TXT"), stream=True).answer
        (rdata,) = rrset
        assert {len(string) for string in rdata.strings[:-1]} == {255}
        entries = b"".join(rdata.strings).decode().split(",")
        assert entries == sorted(f"{each.id} us" for each in ROWS if each.app == "many")

    @pytest.mark.feature("dns.domain")
    def test_of_the_domain_itself(self, responder: Responder) -> None:
        assert records(ask(responder, query("internal.", "SOA")).answer) == [
            "internal. 30 IN SOA eu.pops.internal. hostmaster.internal. 7 3600 600 86400 5"
        ]
        reply = ask(responder, query("internal.", "NS"))
        assert records(reply.answer) == ["internal. 30 IN NS eu.pops.internal."]
        assert records(reply.additional) == [
            "eu.pops.internal. 30 IN A 198.51.100.1",
            "eu.pops.internal. 30 IN AAAA 2001:db8:e::1",
        ]

    def test_to_any_are_minimal(self, responder: Responder) -> None:
        assert records(ask(responder, query("shop.internal.", "ANY")).answer) == [
            'shop.internal. 30 IN HINFO "RFC8482" ""'
        ]
        assert ask(responder, query("nope.internal.", "ANY")).rcode() == dns.rcode.NXDOMAIN

    def test_below_a_domain_of_several_labels(self) -> None:
        reply = ask(make_responder("edge.example"), query("shop.EDGE.example."))
        assert records(reply.answer) == ["shop.EDGE.example. 30 IN A 192.0.2.1"]

    def test_return_the_wish_for_recursion(self, responder: Responder) -> None:
        assert ask(responder, query("shop.internal.")).flags & dns.flags.RD
        assert not ask(responder, query("shop.internal.", flags=0)).flags & dns.flags.RD


AUTHORITY = "internal. 5 IN SOA eu.pops.internal. hostmaster.internal. 7 3600 600 86400 5"


class TestNoAnswers:
    def test_an_unknown_name_does_not_exist(self, responder: Responder) -> None:
        reply = ask(responder, query("nope.internal."))
        assert reply.rcode() == dns.rcode.NXDOMAIN
        assert (records(reply.answer), records(reply.authority)) == ([], [AUTHORITY])
        assert reply.flags & dns.flags.AA

    def test_a_known_name_without_such_a_record_has_no_data(self, responder: Responder) -> None:
        reply = ask(responder, query("many.internal.", "AAAA"))
        assert reply.rcode() == dns.rcode.NOERROR
        assert (records(reply.answer), records(reply.authority)) == ([], [AUTHORITY])

    @pytest.mark.parametrize("rdtype", ["MX", "CNAME", "DS", "TYPE12345"])
    def test_a_type_that_no_name_has_is_no_data(self, responder: Responder, rdtype: str) -> None:
        reply = ask(responder, query("shop.internal.", rdtype))
        assert (reply.rcode(), records(reply.authority)) == (dns.rcode.NOERROR, [AUTHORITY])

    @pytest.mark.parametrize(
        "name", ["shop.example.", ".", "internal.example.", "shopinternal.", "shop.xinternal."]
    )
    def test_other_domains_are_refused(self, responder: Responder, name: str) -> None:
        reply = ask(responder, query(name))
        assert reply.rcode() == dns.rcode.REFUSED
        assert not reply.answer
        assert not reply.authority
        assert not reply.flags & dns.flags.AA

    def test_other_classes_are_refused(self, responder: Responder) -> None:
        reply = ask(responder, query("version.bind.", "TXT", rdclass=dns.rdataclass.CH))
        assert reply.rcode() == dns.rcode.REFUSED
        reply = ask(responder, query("shop.internal.", rdclass=dns.rdataclass.CH))
        assert reply.rcode() == dns.rcode.REFUSED

    @pytest.mark.parametrize(
        ("rdtype", "rcode"),
        [
            ("AXFR", dns.rcode.REFUSED),
            ("IXFR", dns.rcode.REFUSED),
            ("MAILB", dns.rcode.NOTIMP),
            ("TYPE128", dns.rcode.NOTIMP),
            ("OPT", dns.rcode.FORMERR),
        ],
    )
    def test_questions_that_are_about_no_record(
        self, responder: Responder, rdtype: str, rcode: dns.rcode.Rcode
    ) -> None:
        wire = bytearray(query("shop.internal.").to_wire())
        wire[-4:-2] = int(dns.rdatatype.from_text(rdtype)).to_bytes(2, "big")
        assert ask(responder, bytes(wire)).rcode() == rcode

    @pytest.mark.parametrize("opcode", [1, 2, 4, 5, 6, 15])
    def test_other_operations_are_not_implemented(self, responder: Responder, opcode: int) -> None:
        wire = bytearray(query("shop.internal.").to_wire())
        wire[2] |= opcode << 3
        reply = responder.respond(bytes(wire), STRANGER, 0.0, stream=False)
        assert reply is not None
        assert len(reply) == HEADER_BYTES
        assert (reply[2] >> 3 & 15, reply[3] & 15) == (opcode, dns.rcode.NOTIMP)

    def test_a_reply_is_not_replied_to(self, responder: Responder) -> None:
        reply = responder.respond(query("shop.internal.").to_wire(), STRANGER, 0.0, stream=False)
        assert reply is not None
        assert responder.respond(reply, STRANGER, 0.0, stream=False) is None
        assert responder.truncated(reply) is None

    def test_less_than_a_header_is_not_replied_to(self, responder: Responder) -> None:
        for length in range(HEADER_BYTES):
            assert responder.respond(bytes(length), STRANGER, 0.0, stream=False) is None
            assert responder.truncated(bytes(length)) is None

    @pytest.mark.parametrize("questions", [0, 2, 65535])
    def test_there_must_be_one_question(self, responder: Responder, questions: int) -> None:
        one = query("shop.internal.").to_wire()
        several = one[:4] + questions.to_bytes(2, "big") + one[6:HEADER_BYTES]
        several += one[HEADER_BYTES:] * min(questions, 2)
        assert ask(responder, several).rcode() == dns.rcode.FORMERR
        assert responder.truncated(several) is None

    def test_a_query_that_is_cut_short_is_malformed(self, responder: Responder) -> None:
        wire = query("shop.internal.", use_edns=0).to_wire()
        for length in range(HEADER_BYTES, len(wire)):
            reply = responder.respond(wire[:length], STRANGER, 0.0, stream=False)
            assert reply is not None
            assert len(reply) == HEADER_BYTES
            assert reply[3] & 15 == dns.rcode.FORMERR

    def test_a_query_of_unreasonable_length_is_not_even_read(self, responder: Responder) -> None:
        for length, rcode in ((MAX_QUERY_BYTES, dns.rcode.NOERROR), (MAX_QUERY_BYTES + 1, dns.rcode.FORMERR)):
            padded = query("shop.internal.", use_edns=0, pad=length).to_wire(max_size=65_535)
            assert len(padded) == length
            assert ask(responder, padded).rcode() == rcode

    def test_a_signature_of_nobody_known_is_ignored(self, responder: Responder) -> None:
        signed = query("shop.internal.")
        signed.use_tsig({"key.": b"secret"})
        assert records(ask(responder, signed.to_wire()).answer) == ["shop.internal. 30 IN A 192.0.2.1"]


class TestEdns:
    def test_is_answered_in_kind_and_only_then(self, responder: Responder) -> None:
        reply = ask(responder, query("shop.internal.", use_edns=0, payload=4096))
        assert (reply.edns, reply.payload) == (0, MAX_DATAGRAM_BYTES)
        assert ask(responder, query("shop.internal.")).edns == -1

    def test_the_wish_for_signatures_is_returned(self, responder: Responder) -> None:
        reply = ask(responder, query("shop.internal.", want_dnssec=True))
        assert reply.ednsflags == dns.flags.DO
        assert ask(responder, query("shop.internal.", use_edns=0, ednsflags=0x4001)).ednsflags == 0

    def test_a_later_version_is_told_ours(self, responder: Responder) -> None:
        reply = ask(responder, query("shop.internal.", use_edns=1))
        assert (reply.rcode(), reply.edns) == (dns.rcode.BADVERS, 0)
        assert not reply.answer

    def test_unknown_options_are_ignored(self, responder: Responder) -> None:
        cookie = dns.edns.GenericOption(dns.edns.OptionType.COOKIE, b"12345678")
        reply = ask(responder, query("shop.internal.", use_edns=0, options=[cookie]))
        assert (reply.rcode(), reply.options) == (dns.rcode.NOERROR, ())

    def test_other_domains_are_refused_with_it_too(self, responder: Responder) -> None:
        assert ask(responder, query("shop.example.", use_edns=0)).edns == 0


class TestLength:
    @pytest.mark.parametrize(
        ("payload", "limit"), [(None, 512), (0, 512), (400, 512), (700, 700), (65535, MAX_DATAGRAM_BYTES)]
    )
    def test_of_a_datagram_is_what_both_sides_take(
        self, responder: Responder, payload: int | None, limit: int
    ) -> None:
        question = query("_many._tcp.internal.", "SRV")
        if payload is not None:
            question.use_edns(0, payload=payload)
        wire = responder.respond(question.to_wire(), STRANGER, 0.0, stream=False)
        assert wire is not None
        assert len(wire) <= limit
        reply = dns.message.from_wire(wire)
        assert reply.flags & dns.flags.TC
        assert not reply.answer
        assert not reply.additional

    def test_of_a_stream_is_not_limited(self, responder: Responder) -> None:
        reply = ask(responder, query("_many._tcp.internal.", "SRV"), stream=True)
        assert not reply.flags & dns.flags.TC
        assert len(reply.answer[0]) == 32
        assert len(reply.additional) == 32

    @pytest.mark.parametrize(("length", "additions"), [(30, 3), (60, 0)])
    def test_is_kept_where_additions_can_be_left_out(self, length: int, additions: int) -> None:
        domain = f"{'d' * length}.{'d' * 30}"
        reply = ask(make_responder(domain), query(f"_shop._tcp.{domain}.", "SRV"))
        assert not reply.flags & dns.flags.TC
        assert len(reply.answer[0]) == 3
        assert len(reply.additional) == additions

    def test_of_32_addresses_fits_into_a_datagram(self, responder: Responder) -> None:
        reply = ask(responder, query("global.many.internal.", use_edns=0, payload=1232))
        assert len(reply.answer[0]) == 32
        assert not reply.flags & dns.flags.TC


class TestTruncated:
    def test_has_the_question_and_the_mark_and_is_no_longer_than_the_query(
        self, responder: Responder
    ) -> None:
        question = query("SHOP.internal.", use_edns=0)
        wire = responder.truncated(question.to_wire())
        assert wire is not None
        reply = dns.message.from_wire(wire)
        assert reply.flags & dns.flags.TC
        assert reply.id == question.id
        assert reply.question[0].name.labels == (b"SHOP", b"internal", b"")
        assert len(wire) <= len(question.to_wire())

    def test_is_not_said_where_it_would_be_longer_than_the_query(self, responder: Responder) -> None:
        name_in_header = bytes.fromhex("0474 0100 0001 0000 0000 0000 c000 0001 0001")
        assert dns.message.from_wire(name_in_header).question[0].name.labels == (b"t\1\0\0", b"\0", b"")
        assert responder.truncated(name_in_header) is None

    def test_is_not_said_to_what_cannot_be_read(self, responder: Responder) -> None:
        assert responder.truncated(query("shop.internal.").to_wire()[:-3]) is None


def subnet(text: str) -> dns.edns.ECSOption:
    option = dns.edns.ECSOption.from_text(text)
    assert isinstance(option, dns.edns.ECSOption)
    return option


class TestClientSubnet:
    @pytest.mark.feature("dns.client_subnet")
    def test_of_a_trusted_resolver_says_where_its_client_is(self, responder: Responder) -> None:
        reply = ask(responder, query("shop.internal.", options=[subnet("203.0.113.0/24")]), RESOLVER)
        assert records(reply.answer) == ["shop.internal. 30 IN A 192.0.2.2"]
        assert reply.options == (subnet("203.0.113.0/24/24"),)

    def test_of_anybody_else_is_ignored_and_not_returned(self, responder: Responder) -> None:
        reply = ask(responder, query("shop.internal.", options=[subnet("203.0.113.0/24")]), STRANGER)
        assert records(reply.answer) == ["shop.internal. 30 IN A 192.0.2.1"]
        assert reply.options == ()

    def test_is_taken_over_ipv6_and_about_ipv6(self, responder: Responder) -> None:
        reply = ask(responder, query("shop.internal.", options=[subnet("2001:db8:b::/56")]), "2001:db8:53::1")
        assert records(reply.answer) == ["shop.internal. 30 IN A 192.0.2.2"]
        assert reply.options == (subnet("2001:db8:b::/56/56"),)

    @pytest.mark.parametrize(
        ("name", "rdtype"),
        [("de-1.vm.shop", "A"), ("eu.pops", "A"), ("vms.shop", "TXT"), ("nope", "A"), ("many", "AAAA")],
    )
    def test_has_no_scope_where_all_get_the_same_answer(
        self, responder: Responder, name: str, rdtype: str
    ) -> None:
        question = query(f"{name}.internal.", rdtype, options=[subnet("203.0.113.0/24")])
        assert ask(responder, question, RESOLVER).options == (subnet("203.0.113.0/24/0"),)

    def test_of_no_bits_is_a_wish_not_to_be_located(self, responder: Responder) -> None:
        reply = ask(responder, query("shop.internal.", options=[subnet("0.0.0.0/0")]), RESOLVER)
        assert records(reply.answer) == ["shop.internal. 30 IN A 192.0.2.1"]
        assert reply.options == (subnet("0.0.0.0/0/0"),)

    def test_with_a_scope_is_malformed(self, responder: Responder) -> None:
        question = query("shop.internal.", options=[subnet("203.0.113.0/24/24")])
        assert ask(responder, question, RESOLVER).rcode() == dns.rcode.FORMERR
        assert ask(responder, question, STRANGER).rcode() == dns.rcode.NOERROR

    def test_given_twice_is_malformed(self, responder: Responder) -> None:
        question = query("shop.internal.", options=[subnet("203.0.113.0/24"), subnet("10.0.0.0/8")])
        assert ask(responder, question, RESOLVER).rcode() == dns.rcode.FORMERR

    @pytest.mark.parametrize(
        "data", ["", "0001", "00030800" + "0a", "00012100" + "0a000001", "00011400" + "0a00ff"]
    )
    def test_that_cannot_be_read_is_malformed(self, responder: Responder, data: str) -> None:
        option = dns.edns.GenericOption(dns.edns.OptionType.ECS, bytes.fromhex(data))
        question = query("shop.internal.", options=[option])
        assert ask(responder, question, RESOLVER).rcode() == dns.rcode.FORMERR


# ---- whatever comes ------------------------------------------------------------------------------


def check_whatever_comes(responder: Responder, packet: bytes, asker: str) -> None:
    for stream in (False, True):
        reply = responder.respond(packet, asker, 0.0, stream=stream)
        if reply is None:
            assert len(packet) < HEADER_BYTES or packet[2] & 0x80
            continue
        assert len(packet) >= HEADER_BYTES
        assert not packet[2] & 0x80, "a reply is replied to"
        assert reply[:2] == packet[:2]
        assert reply[2] & 0x80
        assert stream or len(reply) <= MAX_DATAGRAM_BYTES
        parsed = dns.message.from_wire(reply)
        if not parsed.answer:
            # The authority, the longest thing said to who asks for nothing we have.
            assert len(reply) <= len(packet) + 100
    truncated = responder.truncated(packet)
    assert truncated is None or len(truncated) <= len(packet)


VALID = [
    query(name, rdtype, use_edns=edns, options=options).to_wire()
    for name, rdtype in product(
        ["shop.internal.", "_many._tcp.internal.", "vms.many.internal.", "nope.internal.", "a.example."],
        ["A", "AAAA", "SRV", "TXT", "ANY"],
    )
    for edns, options in [(False, None), (0, None), (0, [subnet("203.0.113.0/24")])]
]


@given(st.binary(max_size=MAX_QUERY_BYTES + 10), st.sampled_from([RESOLVER, STRANGER]))
def test_any_bytes_are_replied_to_or_not_without_an_error(
    responder: Responder, packet: bytes, asker: str
) -> None:
    check_whatever_comes(responder, packet, asker)


@given(
    st.integers(0, 65535),
    st.integers(0, 127),
    st.integers(0, 255),
    st.lists(st.integers(0, 2), min_size=3, max_size=3),
    st.binary(max_size=300),
)
def test_any_body_behind_a_plausible_header_is_survived(
    responder: Responder, message_id: int, high: int, low: int, counts: list[int], body: bytes
) -> None:
    header = message_id.to_bytes(2, "big") + bytes([high, low, 0, 1])
    packet = header + b"".join(count.to_bytes(2, "big") for count in counts) + body
    check_whatever_comes(responder, packet, RESOLVER)


def mutations(rng: random.Random, packets: list[bytes], count: int) -> Iterator[bytes]:
    """Valid packets with some bytes changed, removed, doubled or put in."""
    for _ in range(count):
        packet = bytearray(rng.choice(packets))
        for _ in range(rng.randint(1, 6)):
            place = rng.randrange(len(packet))
            match rng.randrange(5):
                case 0:
                    packet[place] ^= 1 << rng.randrange(8)
                case 1:
                    packet[place] = rng.choice([0, 1, 41, 0x3F, 0x40, 0xC0, 0xFF, rng.randrange(256)])
                case 2:
                    del packet[place : place + rng.randint(1, 4)]
                case 3:
                    packet[place:place] = packet[place : place + rng.randint(1, 40)]
                case 4:
                    packet[place:place] = rng.randbytes(rng.randint(1, 4))
            if not packet:
                break
        yield bytes(packet)


@pytest.mark.untraced
def test_mutated_queries_are_survived(responder: Responder, rng: random.Random) -> None:
    for packet in mutations(rng, VALID, 4_000):
        check_whatever_comes(responder, packet, RESOLVER)


def test_a_name_is_followed_through_its_compression_at_most_once(responder: Responder) -> None:
    header = bytes.fromhex("1234 0000 0001 0000 0000 0000")
    for pointers in ("c00c", "c00e c00c", "01 61 c00c", "c000", "c0ff", "3f61", "40", "80"):
        check_whatever_comes(
            responder, header + bytes.fromhex(pointers) + bytes.fromhex("0001 0001"), STRANGER
        )
