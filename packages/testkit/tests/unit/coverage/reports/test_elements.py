from __future__ import annotations

from xml.etree.ElementTree import tostring

from testkit.coverage.reports.elements import element, text


def test_whatever_is_said_is_text_and_never_markup() -> None:
    made = element("p", {"title": '"><script>'}, text("<b>"), element("i", {}), text("a & b"), text(" < c"))
    assert tostring(made, encoding="unicode", method="html") == (
        '<p title="&quot;&gt;<script&gt;">&lt;b&gt;<i></i>a &amp; b &lt; c</p>'
    )


def test_what_no_document_may_hold_is_replaced() -> None:
    assert text("a\x00b\x1bc\nd\te\ud800") == "a\ufffdb\ufffdc\nd\te\ufffd"
